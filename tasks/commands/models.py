"""`flowrun models`: list the models on this machine, and the task that each is for."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from flowrun.runtime.printing import print_table, print_text, size

__all__ = ["add_parser", "run"]


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "models",
        description="List the models on this machine: the one that ships, those in the hub's cache, "
        "and those in the folders given. `flowrun ask MODEL PICTURE` tries one.",
    )
    parser.add_argument(
        "folder",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="a checkpoint folder, or one that holds checkpoint folders",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from flowrun.tasks.models import checkpoints

    inner = [found for folder in args.folder for found in checkpoints.in_folder(folder)]
    cached = list(checkpoints.in_hub_cache())
    listed = [checkpoints.embedded(), *cached, *inner]
    if args.json:
        rows = [
            {
                "model": item.name,
                "task": item.task,
                "architecture": item.architecture or None,
                "size_bytes": item.size_bytes,
                "complete": item.complete,
                "path": str(item.path),
            }
            for item in listed
        ]
        print_text(json.dumps(rows, indent=2))
        return 0
    print_table(
        ("model", "task", "architecture", "size"),
        [
            (
                item.name,
                item.task or "-",
                item.architecture or "-",
                size(item.size_bytes) + ("" if item.complete else ", no weights"),
            )
            for item in listed
        ],
    )
    count = f"{len(cached)}" if cached else "none"
    print_text(f"\nin the hub's cache, {checkpoints.hub_cache_path()}: {count}")
    return 0
