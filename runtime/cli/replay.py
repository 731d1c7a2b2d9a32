"""`flowrun replay RUN`: run a recorded log again, and compare every message."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import UsageError

__all__ = ["add_parser", "run"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "replay",
        help="run a recorded log again, and compare every message",
        description="Run a recorded log again: sources, times, control messages and the moments of "
        "background results come from the log, all else is computed anew and compared byte for "
        "byte. Exit status 1 if a message differs.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="the run's directory, or a slab of it"
    )
    parser.add_argument("--graph", type=Path, help="another graph file than the recorded one")
    parser.add_argument(
        "--feed", action="append", default=[], metavar="TASK",
        help="do not run TASK; take its messages from the log (may be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="TASK.KEY=VALUE", dest="values",
        help="what if: another config value than the recorded one (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--to", type=int, metavar="CYCLE", help="the last cycle to run")
    parser.add_argument("--verbose", action="store_true", help="show what the tasks log")


def run(args: argparse.Namespace) -> int:
    """0 if all messages are identical, 1 if one differs."""
    from flowrun.runtime.graph import load_graph
    from flowrun.runtime.log_reader import Log
    from flowrun.runtime.logs import configure_logs
    from flowrun.runtime.replay import Replay, recorded_graph

    with Log(args.run) as log:
        if log.loss is not None:
            print(f"note: {log.loss}")
        graph = (
            recorded_graph(log, os.environ)
            if args.graph is None
            else load_graph(args.graph, env=os.environ)
        )
        configure_logs(
            now_ns=time.time_ns,
            stream=None if args.verbose else _Nowhere(),
            secrets=graph.secrets,
        )
        values = dict(map(_value, args.values))
        replay = Replay(log, graph=args.graph, feed=args.feed, config=values, env=os.environ)
        # As in a run: a task may import its neighbours in the graph's folder also in `start`.
        sys.path.insert(0, str(replay.plan.graph.spec.path.absolute().parent))
        begin = time.perf_counter()
        report = replay.run(to=args.to)
        took = time.perf_counter() - begin
    if report.recorded_error is not None:
        print(f"the recorded error came again: {report.recorded_error}")
    print(f"{report.cycles:,} cycles in {took:.1f} s, {report.fed:,} messages fed from the log")
    if report.first is not None:
        print(f"{report.differing:,} of {report.compared:,} messages differ; the first:")
        print(report.first)
        return 1
    print(f"{report.compared:,} messages identical" + _by_task(report.per_task))
    return 0


def _value(text: str) -> tuple[str, Any]:
    """`task.key=value`; the value is YAML, as it would stand in the graph file."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: expected TASK.KEY=VALUE")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value


class _Nowhere:
    """Takes what the tasks log: it was shown, and recorded, when they ran first."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False


def _by_task(counts: dict[str, int]) -> str:
    return " (" + ", ".join(f"{task} {n:,}" for task, n in counts.items()) + ")" if counts else ""
