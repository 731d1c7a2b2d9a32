"""`flowrun plan GRAPH`: print the order in which a graph runs, as text, Mermaid or SVG."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.cli.check import summary
from flowrun.runtime.cli.choosing import add_mission, add_settings
from flowrun.runtime.errors import UntrustedRun, UsageError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.drawing import (
    mermaid,
    mermaid_of_missions,
    partitions_of,
    svg,
    svg_of_missions,
)
from flowrun.runtime.graph.plan import Plan, Step, load_plan, load_plans, plan_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import listed

if TYPE_CHECKING:
    from flowrun.runtime.recorded.stats import StepStats

__all__ = ["add_parser", "run", "text"]

Measured = Mapping[str, "StepStats"]
"""By task, what a run has measured of it."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "plan",
        description="Show the steps of a cycle in their order: sources first, then each task after "
        "all that feed it. Ties are broken by the order in the file. With --run, how long each took.",
    )
    parser.add_argument("graph", type=Path, nargs="?", metavar="GRAPH")
    parser.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="add what a recorded run has measured: times of each step, its share of the cycle, how "
        "often it published, what it dropped. Without GRAPH, of the graph that was recorded",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="with --run: load the code that the recorded graph names, though somebody else may have "
        "recorded it",
    )
    add_mission(parser, "all, one after the other")
    add_settings(parser)
    parser.add_argument("--format", choices=list(_FORMATS), default="text")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to FILE, not to stdout"
    )


def run(args: argparse.Namespace) -> int:
    one, several = _FORMATS[args.format]
    if args.run is not None:
        return _run_measured(args)
    if args.graph is None:
        raise UsageError("which graph? give a GRAPH, or --run RUN")
    plans = load_plans(args.graph, env=os.environ, ready=False, settings=args.settings)
    if args.mission is not None:
        plan = load_plan(
            args.graph, env=os.environ, ready=False, mission=args.mission, settings=args.settings
        )
        plans = {args.mission: plan}
    drawn = several(plans) if len(plans) > 1 else one(next(iter(plans.values())), None)
    return _write(drawn, args.output)


def _run_measured(args: argparse.Namespace) -> int:
    """The plan of one run. 1 if not all of its log could be read."""
    from flowrun.runtime.cli.log_export import by_time
    from flowrun.runtime.recorded.stats import run_stats

    if args.settings or args.mission is not None:
        raise UsageError("--run cannot be combined with --set and --mission: the run had its own")
    with Log(args.run) as log:
        plan = _plan_of(args, log)
        with by_time(log, "stats") as read:
            stats = run_stats(log, read)
        loss = log.loss
    measured = {step.task: step for step in stats.steps}
    status = _write(_FORMATS[args.format][0](plan, measured), args.output)
    ids = {step.task.id for step in plan.steps}
    if others := [task for task in measured if task not in ids]:
        text = f"note: the run had other tasks too, which the graph lacks: {listed(others)}"
        print_text(text, file=sys.stderr)
    if loss is not None:
        print_text(f"flowrun plan: not all could be read: {loss}", file=sys.stderr)
        status = 1
    return status


def _plan_of(args: argparse.Namespace, log: Log) -> Plan:
    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.replay.graph import graph_in_place_of, recorded_graph

    try:
        if args.graph is None:
            spec = recorded_graph(log, os.environ, trust=args.trust)
        else:
            spec = graph_in_place_of(log, args.graph, os.environ)
    except UntrustedRun as error:
        raise UsageError(
            f"{args.run}: {error.why}, so it may not be yours, and the code that its graph names is not "
            "loaded; name the GRAPH, or give --trust. flowrun log stats shows the figures without it"
        ) from None
    with importable(spec.path.parent):
        return plan_graph(bind(spec, ready=False))


def _write(drawn: str, output: Path | None) -> int:
    if output is None:
        print_text(drawn, end="")
        return 0
    try:
        output.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from error
    return 0


def text_of_missions(plans: Mapping[str | None, Plan]) -> str:
    """The tables of the missions, one below the other."""
    return "\n".join(map(text, plans.values()))


_MEASURED = ("p50 ms", "p99 ms", "max ms", "share", "Hz", "dropped")


def text(plan: Plan, measured: Measured | None = None) -> str:
    """A table with a row for each step, and in it a line for each port.

    measured: what a run has measured, by task.
    """
    of_task = partitions_of(plan)
    where = ("partition",) if of_task else ()
    rows = [
        (
            "step",
            "task",
            *where,
            "type",
            *(_MEASURED if measured is not None else ()),
            "reads",
            "writes",
        )
    ]
    for number, step in enumerate(plan.steps, 1):
        reads = [
            _read(plan, step, i)
            for i, argument in enumerate(step.arguments)
            if argument.port.is_input
        ]
        writes = [
            f"{argument.port.name}: {argument.port.message_type.__name__}"
            for argument in step.arguments
            if argument.port.is_output
        ]
        own = (of_task[step.task.id],) if of_task else ()
        first: tuple[str, ...] = (str(number), step.task.id, *own, _described(step, plan))
        if measured is not None:
            first += _figures(measured.get(step.task.id))
        for line in range(max(len(reads), len(writes), 1)):
            head = first if line == 0 else ("",) * len(first)
            rows.append((*head, _at(reads, line), _at(writes, line)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    spec = plan.graph.spec
    of_mission = "" if spec.mission is None else f", mission {spec.mission}"
    links = ["", *_links(plan, of_task)] if of_task else []
    return "\n".join([f"{spec.path}{of_mission}: {summary(plan)}", "", *lines, *links]) + "\n"


def _links(plan: Plan, of_task: Mapping[str, str]) -> list[str]:
    """A line for each connection between partitions."""
    lines = []
    for cnx, said in zip(plan.graph.connections, plan.graph.spec.connections, strict=True):
        src, dst = of_task[cnx.src_task], of_task[cnx.dst_task]
        if src != dst:
            link = said.link
            how = [link.deliver]
            how += [f"at most {link.max_age_ms} ms old"] if link.max_age_ms is not None else []
            what = f"{cnx.src_task}.{cnx.src_port} ({cnx.message_type.__name__})"
            lines.append(f"link  {src} -> {dst}: {what}, {', '.join(how)}")
    return lines


def _figures(step: StepStats | None) -> tuple[str, ...]:
    if step is None:
        return ("-",) * len(_MEASURED)
    from flowrun.runtime.cli.log_stats import dropped, ms, rate, share

    times = step.times
    return (
        *(ms(value) for value in (times.p50_ms, times.p99_ms, times.max_ms)),
        share(step),
        rate(step.rate_hz),
        dropped(step.dropped) or "0",
    )


def _notes(measured: Measured | None) -> dict[str, list[str]]:
    """The lines below the type of each task in a picture."""
    notes = {}
    for task, step in (measured or {}).items():
        p50, p99, longest, part, often, lost = _figures(step)
        notes[task] = [
            f"p50 {p50}, p99 {p99}, max {longest} ms",
            f"{part} of the cycle, {often} Hz",
        ]
        if step.dropped:
            notes[task].append(f"dropped: {lost}")
    return notes


def _mermaid(plan: Plan, measured: Measured | None) -> str:
    return mermaid(plan, _notes(measured))


def _svg(plan: Plan, measured: Measured | None) -> str:
    notes = _notes(measured)
    for task, partition in partitions_of(plan).items():
        notes.setdefault(task, []).insert(0, f"partition {partition}")
    return svg(plan, notes)


def _read(plan: Plan, step: Step, index: int) -> str:
    argument = step.arguments[index]
    if argument.slot is None:
        return f"{argument.port.name} <- nothing (optional)"
    slot = plan.slots[argument.slot]
    return f"{argument.port.name} <- {slot.task_id}.{slot.port}"


def _described(step: Step, plan: Plan) -> str:
    notes = [step.task.task_class.__name__]
    if step.task.spec.background:
        notes.append("background")
    if step.task.spec.on_error != "stop":
        notes.append(f"on error {step.task.spec.on_error}")
    if step.task.spec.every > 1:
        notes.append(f"every {step.task.spec.every} cycles")
    if step.task.spec.rate_hz is not None:
        notes.append(f"at most {step.task.spec.rate_hz:g} Hz")
    if not step.task.spec.logging.enabled:
        notes.append("not logged")
    if step.task.spec.where.file in plan.graph.spec.includes:
        notes.append(f"from {step.task.spec.where.file}")
    return ", ".join(notes)


def _at(lines: list[str], index: int) -> str:
    return lines[index] if index < len(lines) else ""


_FORMATS = {
    "text": (text, text_of_missions),
    "mermaid": (_mermaid, mermaid_of_missions),
    "svg": (_svg, svg_of_missions),
}
