"""`flowrun runs [DIR]`: the recorded runs of a folder, and what each is."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.runtime.printing import print_json, print_table, print_text, size
from flowrun.runtime.wording import counted, one_line

if TYPE_CHECKING:
    from flowrun.runtime.testbench.runs import RunInfo

__all__ = ["add_parser", "run"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "runs",
        description="List the recorded runs of a folder, the newest last: which graph, when, how long, "
        "how many answers and errors, how large, and whether a replay runs it as it is.",
    )
    parser.add_argument(
        "folder",
        nargs="*",
        type=Path,
        default=[Path("runs")],
        metavar="DIR",
        help="a folder of runs, or runs (runs/)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """0; `LogNotFound` where there are no runs."""
    from flowrun.runtime.testbench.folders import find_runs
    from flowrun.runtime.testbench.runs import run_info

    found = [run_info(path, env=os.environ) for path in find_runs(args.folder)]
    found.sort(key=lambda it: (it.started_ns or 0, it.path))
    if args.json:
        print_json([{**asdict(it), "path": str(it.path)} for it in found])
        return 0
    names = (
        "run",
        "graph",
        "began",
        "took",
        "cycles",
        "answers",
        "errors",
        "size",
        "state",
        "replays",
    )
    print_table(names, [_row(it) for it in found])
    for it in found:
        for text in dict.fromkeys(
            filter(None, (it.why if it.state != "ended" else None, it.problem))
        ):
            print_text(one_line(f"{it.path.name}: {text}"))
    total = sum(it.bytes for it in found)
    print_text(f"{counted(len(found), 'run')}, {size(total)}")
    return 0


def _row(info: RunInfo) -> tuple[str, ...]:
    return (
        str(info.path),
        info.graph or "-",
        "-" if info.started_ns is None else _date(info.started_ns),
        "-" if info.duration_s is None else _length(info.duration_s),
        f"{info.cycles:,}",
        f"{info.answers:,}" if info.answers else "-",
        f"{info.errors:,}" if info.errors else "-",
        size(info.bytes),
        info.state,
        "yes" if info.problem is None else "no",
    )


def _date(time_ns: int) -> str:
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "-"


def _length(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
