"""`flowrun bisect RUN`: which commit, or which value, changes what a recorded run gives."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted, one_line

if TYPE_CHECKING:
    from flowrun.runtime.testbench.bisect import Found, Trial

__all__ = ["add_parser", "run"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "bisect",
        description="Find the first commit at which a recorded run gives something else, by replays in "
        "a worktree of the repository of the current folder, which stays as it is; or the first of "
        "several values of a config key.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="the run's directory, or a slab of it"
    )
    parser.add_argument("--good", metavar="COMMIT", help="at which the run is as it was recorded")
    parser.add_argument("--bad", default="HEAD", metavar="COMMIT", help="at which it is not (HEAD)")
    parser.add_argument(
        "--over",
        metavar="TASK.KEY=A,B,...",
        help="try these values instead of commits, from those with which the run is as it was recorded "
        "to those with which it is not; A..B means all whole numbers from A to B",
    )
    parser.add_argument(
        "--output",
        metavar="TASK[.PORT]",
        help="only other messages of this task, or of its port, count",
    )
    parser.add_argument("--cycle", type=int, metavar="N", help="only those of this cycle count")
    parser.add_argument(
        "--graph",
        metavar="FILE",
        help="the graph file, as of each commit (as `flowrun ci` finds it)",
    )
    parser.add_argument(
        "--recorded-graph", action="store_true", help="the graph in the log, at each commit"
    )
    for option, metavar, text in (
        ("--task", "TASK", "run only TASK, feed all others from the log"),
        ("--feed", "TASK", "do not run TASK, such as a model; take its messages from the log"),
        ("--set", "TASK.KEY=VALUE", "use this config value"),
        ("--tolerance", "MSG[.FIELD]=N", "as of replay"),
    ):
        parser.add_argument(
            option, action="append", default=[], metavar=metavar, help=f"{text} (may be repeated)"
        )
    parser.add_argument(
        "--trust", action="store_true", help="run the recorded graph of somebody else's run"
    )


def run(args: argparse.Namespace) -> int:
    """0 if one is found, 1 if only several can be named."""
    from flowrun.runtime.testbench.bisect import Wanted, bisect_commits, bisect_values
    from flowrun.runtime.testbench.folders import find_runs

    if (args.good is None) == (args.over is None):
        raise UsageError(
            "expected --good COMMIT, at which the run is as it was recorded, or --over TASK.KEY=A,B,..."
        )
    path, *others = find_runs([args.run])
    if others:
        raise UsageError(f"{args.run}: it holds {len(others) + 1:,} runs; name one, such as {path}")
    task, _, port = (args.output or "").partition(".")
    wanted = Wanted(task or None, port or None, args.cycle)
    options = _options(args)
    if args.over is not None:
        key, values = _values(args.over)
        found = bisect_values(path.absolute(), options, key, values, wanted, _tell)
    else:
        found = bisect_commits(
            path.absolute(),
            options,
            folder=Path(),
            good=args.good,
            bad=args.bad,
            wanted=wanted,
            tell=_tell,
        )
    return _print(found, args.run)


def _options(args: argparse.Namespace) -> list[str]:
    given: list[str] = []
    for name in ("task", "feed", "set", "tolerance"):
        for value in getattr(args, name):
            given += [f"--{name}", value]
    if args.graph is not None:
        given += ["--graph", args.graph]
    given += ["--recorded-graph"] if args.recorded_graph else []
    return [*given, *(["--trust"] if args.trust else [])]


def _values(text: str) -> tuple[str, list[str]]:
    key, equals, listed = text.partition("=")
    first, dots, last = listed.partition("..")
    try:
        values = (
            [str(number) for number in range(int(first), int(last) + 1)]
            if dots
            else listed.split(",")
        )
    except ValueError:
        values = listed.split(",")
    if not equals or "." not in key or not all(values) or not values:
        raise UsageError(f"--over {text}: expected TASK.KEY=A,B,... or TASK.KEY=1..100")
    return key, values


def _tell(trial: Trial) -> None:
    if trial.error is not None:
        said = f"cannot be replayed, passed over: {one_line(trial.error.partition(chr(10))[0])}"
    elif trial.change is None:
        said = "as recorded"
    else:
        said = one_line(str(trial.change))
    print_text(f"{one_line(trial.name)}: {said}", flush=True)


def _print(found: Found, run: Path) -> int:
    replays = counted(found.trials, "replay")
    if found.first is None or found.first.change is None:
        print_text(f"after {replays}, it is one of these, which cannot be replayed:")
        for name in found.candidates:
            print_text(f"  {one_line(name)}")
        return 1
    change = found.first.change
    print_text(f"\nfound with {replays}: {one_line(found.first.name)}")
    output = f"{change.task}.{change.port}" if change.port else change.task
    print_text(f"  cycle {change.cycle:,}, {output}, {change.field or 'the message as a whole'}:")
    print_text(f"    recorded: {change.recorded}\n    there:    {change.now}")
    if change.picture is not None:
        topic, cycle = change.picture
        print_text(f"  picture: {topic}, cycle {cycle:,}: flowrun view {run}")
    return 0
