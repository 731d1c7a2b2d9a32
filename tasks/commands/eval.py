"""`flowrun eval RUNS`: which model, which prompt: recorded frames asked again, the answers compared."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from flowrun.runtime.atomic import require_place
from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_text
from flowrun.tasks.commands.recorded import add_runs, kept_results, labels_of_runs, shown_progress

__all__ = ["add_parser", "run"]


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "eval",
        description="Ask about the frames of recorded runs again, by each model and each prompt that is "
        "given, and compare the answers with the recorded ones, or with labels. Answers are kept: what "
        "was asked once is not asked again, also after Ctrl-C.",
    )
    add_runs(parser)
    parser.add_argument(
        "--model",
        nargs="+",
        default=[],
        metavar="MODEL",
        help="embedded, a checkpoint folder, or a hub id",
    )
    parser.add_argument(
        "--backend", nargs="+", default=[], metavar="NAME", help="a backend of the recorded graph"
    )
    parser.add_argument(
        "--prompt", nargs="+", default=[], metavar="TEXT", help="a prompt in place of the recorded"
    )
    parser.add_argument(
        "--task",
        nargs="+",
        default=[],
        metavar="TASK",
        help="compare only answers of these tasks (all that answer about pictures)",
    )
    parser.add_argument(
        "--labels",
        nargs="?",
        const="",
        metavar="FILE",
        help="compare with what is labelled as right, in FILE or in each run's own labels.jsonl",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="compare N answers, spread evenly over the runs"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write the leaderboard and all changed answers to FILE: .html, .json or .md",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="ask N at the same time")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FILE",
        help="where answers are kept (results.sqlite in the user's cache)",
    )
    parser.add_argument("--no-cache", action="store_true", help="ask all again, and keep nothing")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run the code and the commands that the recorded graphs name, though somebody else may "
        "have recorded them",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """0; errors are raised."""
    from contextlib import nullcontext

    from flowrun.runtime.printing import print_json
    from flowrun.runtime.testbench.folders import find_runs
    from flowrun.tasks.evaluation.evaluate import evaluate
    from flowrun.tasks.evaluation.leaderboard import as_json, as_text, write_report
    from flowrun.tasks.evaluation.variants import variants_of

    for name in ("limit", "processes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: expected 1 or more")
    require_place("--report", args.report, ".html", ".json", ".md")
    variants = variants_of(args.model, args.backend, args.prompt)
    runs = find_runs(args.runs)
    labels = None
    if args.labels is not None:
        labels = labels_of_runs(runs, Path(args.labels) if args.labels else None)
    with (
        nullcontext() if args.no_cache else kept_results(args.cache) as store,
        shown_progress("answers") as progress,
    ):
        found = evaluate(
            runs,
            variants,
            tasks=args.task,
            labels=labels,
            most=args.limit,
            store=store,
            trust=args.trust,
            processes=args.processes,
            progress=progress,
        )
    command = shlex.join(["flowrun", *sys.argv[1:]])
    if args.report is not None:
        write_report(found, args.report, command=command)
    if args.json:
        print_json(as_json(found, command=command))
    else:
        print_text(as_text(found))
        if args.report is not None:
            print_text(f"report: {args.report}")
    return 0
