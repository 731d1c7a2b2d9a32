"""`flowrun dataset RUNS --to coco -o DIR`: recorded pictures and their answers, as a data set."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted, one_line
from flowrun.tasks.commands.recorded import add_runs, labels_of_runs

__all__ = ["add_parser", "run"]


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "dataset",
        description="Write the pictures of recorded runs that a model was asked about, pixel for pixel "
        "as the tasks saw them, with the boxes and answers, or what labels say is right. Nothing that "
        "the runs name is executed.",
    )
    add_runs(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="a new folder"
    )
    parser.add_argument(
        "--to",
        choices=("coco", "fiftyone", "hf", "lerobot"),
        required=True,
        help="coco: labels.json and captions.json, and the pictures in data; fiftyone: the same, which "
        'it reads; hf: a folder for datasets.load_dataset("imagefolder", data_dir=DIR); lerobot: an '
        "episode for each run, with its films, of version 3.0 of LeRobot's format",
    )
    parser.add_argument(
        "--only",
        choices=("labelled", "wrong", "disagreements"),
        help="only answers of which a label says what is right, those that are labelled as wrong, or "
        "those to which the task's shadow said something else",
    )
    parser.add_argument(
        "--task",
        nargs="+",
        default=[],
        metavar="TASK",
        help="only answers of these tasks (all that answer about pictures)",
    )
    parser.add_argument(
        "--camera",
        nargs="+",
        default=[],
        metavar="CAMERA",
        help="of lerobot: the cameras whose films it has (those that tasks answered about, or all)",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="the labels (each run's own labels.jsonl)"
    )


def run(args: argparse.Namespace) -> int:
    """0; errors are raised."""
    from rich.console import Console
    from rich.progress import Progress

    from flowrun.runtime.testbench.folders import find_runs
    from flowrun.tasks.evaluation.dataset import write_dataset

    if args.to == "lerobot" and args.only:
        raise UsageError("--only is not for lerobot: a film has all its pictures")
    if args.to != "lerobot" and args.camera:
        raise UsageError("--camera is for lerobot; choose with --task")
    runs = find_runs(args.runs)
    labels = labels_of_runs(runs, args.labels)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("pictures", total=1)
        if args.to == "lerobot":
            return _write_episodes(
                args, runs, labels, lambda part: bar.update(task, completed=part)
            )
        written = write_dataset(
            runs,
            args.output,
            "hf" if args.to == "hf" else "coco",
            labels=labels,
            tasks=args.task,
            only=args.only,
            progress=lambda part: bar.update(task, completed=part),
        )
    for note in written.notes:
        print_text(one_line(f"note: {note}"))
    what = [counted(written.pictures, "picture"), counted(written.answers, "answer")]
    print_text(f"{args.output}: {', '.join(what)}, {written.boxes:,} boxes")
    return 0


def _write_episodes(
    args: argparse.Namespace, runs: list[Path], labels: Any, progress: Callable[[float], None]
) -> int:
    from flowrun.runtime.atomic import whole_folder
    from flowrun.tasks.evaluation.lerobot import write_episodes

    with whole_folder(args.output) as folder:
        written = write_episodes(
            runs,
            folder,
            labels=labels,
            tasks=args.task,
            cameras=args.camera,
            progress=progress,
        )
    for note in written.notes:
        print_text(one_line(f"note: {note}"))
    what = [
        counted(written.episodes, "episode"),
        counted(written.pictures, "picture"),
        counted(written.answers, "answer"),
    ]
    print_text(f"{args.output}: {', '.join(what)}")
    return 0
