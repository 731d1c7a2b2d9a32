"""`flowrun ci [DIR]`: replay the golden runs of a folder, and say what this change does to them."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.runtime.atomic import require_place
from flowrun.runtime.cli.failures import print_error, say
from flowrun.runtime.cli.replay import add_choices, add_tolerance, values_of
from flowrun.runtime.errors import FlowrunError, UsageError
from flowrun.runtime.printing import print_table, print_text
from flowrun.runtime.wording import counted, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowrun.runtime.testbench.golden import Verdict

__all__ = ["add_parser", "run"]

_MOST_SHOWN = 3
"""Changes of a run that the terminal shows."""

_GOLDEN = Path("golden")


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "ci",
        description="Replay golden runs - recorded ones that were right - with the code and the graph "
        "files of now, on all cores, and say which messages are other ones. The exit status is 1 if "
        "any is, or if a run cannot be replayed.",
    )
    parser.add_argument(
        "folder",
        nargs="*",
        type=Path,
        default=[_GOLDEN],
        metavar="DIR",
        help="a folder of runs, or a run (golden/)",
    )
    parser.add_argument(
        "--graph",
        type=Path,
        metavar="FILE",
        help="replay all with this graph (each run: the file at the place below this folder where its "
        "graph was when it was recorded, if there is one; or else the recorded graph)",
    )
    parser.add_argument(
        "--recorded-graph", action="store_true", help="replay each with the graph in its log"
    )
    add_choices(parser)
    add_tolerance(parser)
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write all differences, with pictures, as a page"
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write a comment for a pull request"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all differences as JSON")
    parser.add_argument(
        "--report-url", metavar="URL", help="where the comment says that the whole report is"
    )
    parser.add_argument(
        "--accept",
        action="store_true",
        help="have what is made now be what is right: record the runs that differ again, in place",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run the recorded graph of a run that somebody else may have recorded",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="number of processes (one for each core)"
    )


def run(args: argparse.Namespace) -> int:
    """0 if all runs are as they were recorded, or were accepted."""
    from flowrun.runtime.cli.progress import progress
    from flowrun.runtime.graph.file import read_text
    from flowrun.runtime.replay.compare import Tolerance
    from flowrun.runtime.testbench.folders import find_runs
    from flowrun.runtime.testbench.golden import accept, golden_runs, put_back, verdicts
    from flowrun.runtime.testbench.replays import Job
    from flowrun.runtime.testbench.verdict_files import headline

    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs}: expected 1 or more")
    if args.graph is not None and args.recorded_graph:
        raise UsageError("--graph and --recorded-graph cannot be combined")
    for name in ("html", "junit", "markdown", "json"):
        require_place(f"--{name}", getattr(args, name))
    if args.graph is not None:
        read_text(args.graph)
    if args.folder == [_GOLDEN] and not _GOLDEN.exists():
        raise UsageError(
            "there is no folder golden here: flowrun GRAPH --log-dir golden records a run into it; or "
            "name a folder of runs"
        )
    common = Job(
        Path(),
        only=None if args.only is None else tuple(args.only),
        feed=tuple(args.feed),
        config=values_of(args),
        tolerance=Tolerance.parse(args.tolerance).limits,
        trust=args.trust,
    )
    for path in put_back(args.folder):
        say(f"note: {path}: put back as it was; --accept was cut off there")
    runs = golden_runs(
        find_runs(args.folder), folder=None if args.recorded_graph else Path(), graph=args.graph
    )
    order = {golden.path: at for at, golden in enumerate(runs)}
    begin = time.perf_counter()
    with progress("replay", 1) as show:
        found = list(verdicts(runs, common, processes=args.jobs, progress=show))
    took = time.perf_counter() - begin
    found.sort(key=lambda it: order[it.run.path])
    _print(found)
    _write(args, found)
    accepted = failed = 0
    if args.accept:
        for verdict in found:
            if verdict.state not in ("differs", "mended"):
                continue
            try:
                accept(verdict.run, common, now_ns=time.time_ns())
            except FlowrunError as error:  # the others can be
                print_error(error, before=f"{verdict.run.name}: ")
                failed += verdict.is_fine
            else:
                accepted += not verdict.is_fine
    print_text(f"{headline(found)} ({took:.1f} s)")
    if accepted:
        print_text(f"recorded again: {accepted:,}; commit them if they are right")
    bad = sum(not it.is_fine for it in found) + failed
    return 1 if bad > accepted else 0


def _print(found: list[Verdict]) -> None:
    print_table(
        ("run", "graph", "", "what came of it"),
        [
            (
                it.run.name,
                "as recorded" if it.run.graph is None else str(it.run.graph),
                {"identical": "ok", "mended": "ok", "differs": "DIFFERS", "failed": "FAILED"}[
                    it.state
                ],
                it.summary,
            )
            for it in found
        ],
    )
    for it in found:
        for note in it.replayed.notes:
            print_text(one_line(f"{it.run.name}: note: {note}"))
        if it.state == "failed" and "\n" in (it.replayed.error or ""):
            print_text(f"{it.run.name}: {it.replayed.error}")
        changes = it.changes
        for change, count in changes[:_MOST_SHOWN]:
            print_text(f"{it.run.name}: {change}")
            if count > 1:
                print_text(f"  and {count - 1:,} more like it")
        if len(changes) > _MOST_SHOWN:
            more = counted(len(changes) - _MOST_SHOWN, "other change")
            print_text(f"{it.run.name}: and {more}")


def _write(args: argparse.Namespace, found: list[Verdict]) -> None:
    from flowrun.runtime.atomic import whole_file
    from flowrun.runtime.testbench.verdict_files import as_json, as_junit, as_markdown
    from flowrun.runtime.testbench.verdict_page import as_page

    command = shlex.join(["flowrun", *sys.argv[1:]])
    files: tuple[tuple[Path | None, Callable[[], str]], ...] = (
        (args.html, lambda: as_page(found, command=command)),
        (args.junit, lambda: as_junit(found)),
        (args.markdown, lambda: as_markdown(found, report=args.report_url)),
        (args.json, lambda: as_json(found)),
    )
    for path, made in files:
        if path is None:
            continue
        text = made()
        try:
            with whole_file(path) as new:
                new.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise FlowrunError(f"{path}: cannot be written: {error.strerror}") from None
