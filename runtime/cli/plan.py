"""`flowrun plan GRAPH`: print the order in which a graph runs, as text, Mermaid or SVG."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from flowrun.runtime.cli.check import summary
from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.drawing import mermaid, svg
from flowrun.runtime.graph.plan import Plan, Step, load_plan
from flowrun.runtime.printing import print_text

__all__ = ["add_parser", "run", "text"]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "plan",
        description="Show the steps of a cycle in their order: sources first, then each task after "
        "all that feed it. Ties are broken by the order in the file.",
    )
    parser.add_argument("graph", type=Path, metavar="GRAPH")
    parser.add_argument("--format", choices=list(_FORMATS), default="text")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write to FILE, not to stdout"
    )


def run(args: argparse.Namespace) -> int:
    plan = load_plan(args.graph, env=os.environ, ready=False)
    drawn = _FORMATS[args.format](plan)
    if args.output is None:
        print_text(drawn, end="")
        return 0
    try:
        args.output.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {args.output}: {error.strerror}") from error
    return 0


def text(plan: Plan) -> str:
    """A table with a row for each step, and in it a line for each port."""
    rows = [("step", "task", "type", "reads", "writes")]
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
        first = (str(number), step.task.id, _described(step))
        for line in range(max(len(reads), len(writes), 1)):
            head = first if line == 0 else ("", "", "")
            rows.append((*head, _at(reads, line), _at(writes, line)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([f"{plan.graph.spec.path}: {summary(plan)}", "", *lines]) + "\n"


def _read(plan: Plan, step: Step, index: int) -> str:
    argument = step.arguments[index]
    if argument.slot is None:
        return f"{argument.port.name} <- nothing (optional)"
    slot = plan.slots[argument.slot]
    return f"{argument.port.name} <- {slot.task_id}.{slot.port}"


def _described(step: Step) -> str:
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
    return ", ".join(notes)


def _at(lines: list[str], index: int) -> str:
    return lines[index] if index < len(lines) else ""


_FORMATS = {"text": text, "mermaid": mermaid, "svg": svg}
