"""`flowrun replay FLEET`: all runs in a fleet's folder again, in causal order."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrun.runtime.cli.fleet_span import span_of
from flowrun.runtime.cli.replay import how_to_trust, pace_of, values_of
from flowrun.runtime.errors import LogError, UntrustedRun, UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted, not_given_back, one_line

if TYPE_CHECKING:
    from flowrun.runtime.fleet.found import FleetReport, PartReport
    from flowrun.runtime.fleet.record import FleetRun
    from flowrun.runtime.fleet.replay import FleetReplay
    from flowrun.runtime.graph.spec import GraphSpec
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.replay.cycles import ReplayReport
    from flowrun.runtime.replay.report import DifferenceReport

__all__ = ["replay_fleet"]


def replay_fleet(args: argparse.Namespace) -> int:
    """0 if all messages are identical, and what came is what was sent; 1 otherwise."""
    runs, notes = _runs(args)
    _refuse_of_one_run(args, runs)
    if args.loop:
        from flowrun.runtime.cli.replay_loop import replay_again_and_again

        def turn() -> tuple[list[str], Any, float]:
            report, took = _replay(args, runs)
            parts = [f"{it.run.part}: {note}" for it in report.parts for note in it.notes]
            return [*notes, *report.notes, *parts], _sum(report), took

        return replay_again_and_again(turn)
    report, took = _replay(args, runs)
    report.notes[:0] = notes
    return _say(report, took)


def _runs(args: argparse.Namespace) -> tuple[list[FleetRun], list[str]]:
    """The runs, and notes on those that cannot be read."""
    from flowrun.runtime.fleet.record import fleet_runs

    errors: list[LogError] = []
    runs = fleet_runs(args.run, unreadable=errors.append)
    if errors and not args.partial:
        raise type(errors[0])(f"{errors[0]}; --partial replays the other runs")
    return runs, [f"left out: {error}" for error in errors]


def _replay(args: argparse.Namespace, runs: list[FleetRun]) -> tuple[FleetReport, float]:
    from contextlib import ExitStack

    from flowrun.runtime.cli.progress import progress
    from flowrun.runtime.fleet.replay import FleetReplay
    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.replay.compare import Tolerance
    from flowrun.runtime.replay.graph import graph_in_place_of, recorded_graph
    from flowrun.runtime.run.log_lines import configure_logs, drop_logs

    path = args.graph or args.graph_option
    secrets: set[str] = set()
    folders: set[Path] = set()
    stack = ExitStack()

    def spec_of(log: Log) -> GraphSpec:
        try:
            if path is not None:
                spec = graph_in_place_of(log, path, os.environ)
            else:
                spec = recorded_graph(log, os.environ, trust=args.trust)
        except UntrustedRun as error:
            raise UsageError(how_to_trust(args, error)) from None
        if spec.path.parent not in folders:
            folders.add(spec.path.parent)
            stack.enter_context(importable(spec.path.parent))
        secrets.update(spec.secrets)
        return spec

    begin = time.perf_counter()
    with stack:
        drop_logs()
        fleet = stack.enter_context(
            FleetReplay(
                runs,
                specs=spec_of,
                config=values_of(args),
                feed=args.feed,
                only=args.only,
                tolerance=Tolerance.parse(args.tolerance or []),
                partial=args.partial,
                span=span_of(args.first, args.last, runs),
                env=os.environ,
                keyframes=not args.no_keyframes,
                debug_messages=args.debug_messages,
            )
        )
        if args.verbose:
            configure_logs(now_ns=time.time_ns, secrets=frozenset(secrets))
        differences = _differences(args, fleet)
        cycles = fleet.cycles if sys.stderr.isatty() else 0
        show = stack.enter_context(progress("replay", cycles))
        report = fleet.run(progress=show, pace=pace_of(args.speed))
        if args.report is not None:
            _write(args.report, report, differences, frozenset(secrets))
    return report, time.perf_counter() - begin


def _sum(report: FleetReport) -> Any:
    """All of a fleet's replay as that of one run."""
    from flowrun.runtime.replay.cycles import ReplayReport

    found = [it.report for it in report.parts]
    first = None if report.first is None else f"{report.first[0]}: {report.first[1]}"
    total = ReplayReport(
        cycles=sum(it.cycles for it in found),
        compared=sum(it.compared for it in found),
        fed=sum(it.fed for it in found),
        differing=sum(it.differing for it in found),
        tolerated=sum(it.tolerated for it in found),
        missing=sum(it.missing for it in found),
    )
    total.first = first or (report.links[0] if report.links else None)  # type: ignore[assignment]  # shown as text
    return total


# -- what differs -----------------------------------------------------------------------------------


def _differences(
    args: argparse.Namespace, fleet: FleetReplay
) -> list[tuple[PartReport, DifferenceReport]]:
    """What collects the differences of each run, where a report is asked for."""
    if args.report is None:
        return []
    if args.report.suffix not in (".html", ".json"):
        raise UsageError(f"--report {args.report}: expected a name ending in .html or .json")
    from flowrun.runtime.replay.report import DifferenceReport

    return [(lane.part, DifferenceReport(lane.replay, hook=lane.watch)) for lane in fleet.lanes]


def _write(
    path: Path,
    report: FleetReport,
    found: list[tuple[PartReport, DifferenceReport]],
    secrets: frozenset[str],
) -> None:
    """JSON: one file. A page: one for each run, and one that leads to them."""
    from flowrun.runtime.atomic import whole_file
    from flowrun.runtime.wording import mask_secrets

    command = mask_secrets(shlex.join(["flowrun", *sys.argv[1:]]), secrets)
    if path.suffix == ".json":
        parts = [
            {"part": str(part.run.part), **collected.as_json(part.report, command=command)}
            for part, collected in found
        ]
        said = {
            "command": command,
            "identical": report.is_identical,
            "first": None if report.first is None else [str(it) for it in report.first],
            "deliveries": {"as_sent": report.delivered, "unverified": report.unverified},
            "links": [str(it) for it in report.links],
            "notes": _notes(report),
            "parts": parts,
        }
        text = json.dumps(said, indent=1) + "\n"
    else:
        pages = {}
        for part, collected in found:
            name = f"{path.stem}-{part.run.path.name}.html"
            collected.write(path.with_name(name), part.report, command=command)
            pages[name] = f"{part.run}: {_counts(part.report)}"
        text = _page(command, report, pages)
    with whole_file(path) as file:
        file.write_text(text, encoding="utf-8", errors="backslashreplace")


def _page(command: str, report: FleetReport, pages: dict[str, str]) -> str:
    from html import escape
    from urllib.parse import quote

    said = [_links(report), *_notes(report), *map(str, report.links[:20])]
    if report.first is not None:
        run, difference = report.first
        said.append(f"the first message that differs is of {run}:\n{difference}")
    items = "".join(
        f'<li><a href="{quote(name)}">{escape(text)}</a></li>\n' for name, text in pages.items()
    )
    lines = "".join(f"<pre>{escape(text)}</pre>\n" for text in said)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><title>replay of a fleet</title></head>\n'
        f"<body><main><h1>Replay of a fleet</h1>\n<p><code>{escape(command)}</code></p>\n"
        f"<ul>\n{items}</ul>\n{lines}</main></body></html>\n"
    )


def _say(report: FleetReport, took: float) -> int:
    for note in _notes(report):
        print_text(one_line(f"note: {note}"))
    width = max(len(str(part.run.part)) for part in report.parts)
    for part in report.parts:
        said = _counts(part.report)
        print_text(f"{part.run.part!s:<{width}}  {part.run.path.name}: {said}")
    print_text(f"{_links(report)}; all in causal order, in {took:.1f} s")
    for link in report.links[:1]:
        more = len(report.links) - 1
        print_text(f"what came is not what was sent{f', {more:,} times more' if more else ''}:")
        print_text(link)
    if report.first is not None:
        run, difference = report.first
        print_text(f"the first message that differs is of partition {run.part}, {run.path.name}:")
        print_text(difference)
    return 0 if report.is_identical else 1


def _notes(report: FleetReport) -> list[str]:
    """Those of the fleet, then those of its runs."""
    own = [f"{part.run.part}: {note}" for part in report.parts for note in part.notes]
    return [*report.notes, *own]


def _counts(found: ReplayReport) -> str:
    said = f"{counted(found.cycles, 'cycle')}, {counted(found.fed, 'message')} fed, "
    if found.differing or found.errors:
        said += f"{found.differing:,} of {found.compared:,} differ"
    else:
        said += f"{found.compared - found.tolerated:,} identical"
    if found.tolerated:
        said += f", {found.tolerated:,} within the tolerance"
    if found.missing:
        said += f", {not_given_back(found.missing)}"
    if found.recorded_error is not None:
        said += f"; the recorded error came again: {found.recorded_error}"
    return said


def _links(report: FleetReport) -> str:
    lost = f", {report.unverified:,} that the senders' logs here lack" if report.unverified else ""
    return f"links: {counted(report.delivered, 'delivery', 'deliveries')} as sent{lost}"


def _refuse_of_one_run(args: argparse.Namespace, runs: list[FleetRun]) -> None:
    others = {
        "--fault": args.faults or None,
        "--log-dir": args.log_dir,
        "--verify-keyframes": args.verify_keyframes or None,
    }
    given = [option for option, value in others.items() if value is not None]
    if given:
        paths = [shlex.quote(str(run.path)) for run in runs[:3]]
        more = f", and {len(runs) - 3} more" if len(runs) > 3 else ""
        raise UsageError(
            f"{given[0]} is for the run of one process, of which {args.run} has {len(runs)}: "
            f"flowrun replay RUN {given[0]} ..., where RUN is {', '.join(paths)}{more}"
        )
    if args.loop and args.report:
        raise UsageError("--loop cannot be combined with --report")
    if args.graph and args.graph_option:
        raise UsageError(f"two graphs: {args.graph} and --graph {args.graph_option}")
