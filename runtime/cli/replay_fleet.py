"""`flowrun replay FLEET`: all runs in a fleet's folder again, in causal order."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.runtime.cli.replay import how_to_trust, values_of
from flowrun.runtime.errors import UntrustedRun, UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted, one_line

if TYPE_CHECKING:
    from flowrun.runtime.fleet.replay import FleetReport
    from flowrun.runtime.graph.spec import GraphSpec
    from flowrun.runtime.log.reader import Log

__all__ = ["replay_fleet"]


def replay_fleet(args: argparse.Namespace) -> int:
    """0 if all messages are identical, and what came is what was sent; 1 otherwise."""
    from contextlib import ExitStack

    from flowrun.runtime.cli.progress import progress
    from flowrun.runtime.fleet.record import fleet_runs
    from flowrun.runtime.fleet.replay import FleetReplay
    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.replay.compare import Tolerance
    from flowrun.runtime.replay.graph import graph_in_place_of, recorded_graph
    from flowrun.runtime.run.log_lines import configure_logs, drop_logs

    _refuse_of_one_run(args)
    path = args.graph or args.graph_option
    runs = fleet_runs(args.run)
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
            )
        )
        if args.verbose:
            configure_logs(now_ns=time.time_ns, secrets=frozenset(secrets))
        cycles = fleet.cycles if sys.stderr.isatty() else 0
        show = stack.enter_context(progress("replay", cycles))
        report = fleet.run(progress=show)
    return _say(report, time.perf_counter() - begin)


def _say(report: FleetReport, took: float) -> int:
    for part in report.parts:
        for note in part.notes:
            print_text(one_line(f"note: {part.run.part}: {note}"))
    width = max(len(str(part.run.part)) for part in report.parts)
    for part in report.parts:
        found = part.report
        said = f"{counted(found.cycles, 'cycle')}, {counted(found.fed, 'message')} fed, "
        if found.differing or found.errors:
            said += f"{found.differing:,} of {found.compared:,} differ"
        else:
            said += f"{found.compared - found.tolerated:,} identical"
        if found.tolerated:
            said += f", {found.tolerated:,} within the tolerance"
        if found.missing:
            said += f", {found.missing:,} pictures are not given back by the log"
        if found.recorded_error is not None:
            said += f"; the recorded error came again: {found.recorded_error}"
        print_text(f"{part.run.part!s:<{width}}  {part.run.path.name}: {said}")
    lost = f", {report.unverified:,} of logs that are not here" if report.unverified else ""
    print_text(
        f"links: {counted(report.delivered, 'delivery', 'deliveries')} as sent{lost}; "
        f"all in causal order, in {took:.1f} s"
    )
    for link in report.links[:1]:
        more = len(report.links) - 1
        print_text(f"what came is not what was sent{f', {more:,} times more' if more else ''}:")
        print_text(link)
    if report.first is not None:
        run, difference = report.first
        print_text(f"the first message that differs is of partition {run.part}, {run.path.name}:")
        print_text(difference)
    return 0 if report.is_identical else 1


def _refuse_of_one_run(args: argparse.Namespace) -> None:
    others = {
        "--fault": args.faults or None,
        "--from": args.first,
        "--to": args.last,
        "--log-dir": args.log_dir,
        "--loop": args.loop or None,
        "--no-keyframes": args.no_keyframes or None,
        "--report": args.report,
        "--speed": None if args.speed == "max" else args.speed,
        "--verify-keyframes": args.verify_keyframes or None,
    }
    given = [option for option, value in others.items() if value is not None]
    if given:
        raise UsageError(
            f"{given[0]} is for the run of one process: name one of those in {args.run}"
        )
    if args.graph and args.graph_option:
        raise UsageError(f"two graphs: {args.graph} and --graph {args.graph_option}")
