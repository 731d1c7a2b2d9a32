"""`flowrun check [GRAPH|DIR...]`: list all that is wrong with graph files, without running them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from flowrun.runtime.cli.choosing import add_settings
from flowrun.runtime.errors import GraphError, UsageError
from flowrun.runtime.graph.plan import Plan, load_plans
from flowrun.runtime.graph.privacy import leaks
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted

__all__ = ["add_parser", "run", "summary"]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "check",
        description="Check graph files: load, bind and plan them, start nothing. "
        "Report every mistake as file:line:column; the exit status is then 2.",
    )
    parser.add_argument(
        "graph",
        nargs="*",
        type=Path,
        metavar="GRAPH",
        help="a graph file, or a folder with them (this one): every .yaml and .yml file in it",
    )
    parser.add_argument(
        "--elsewhere",
        action="store_true",
        help="for graphs that run on another machine: do not ask for the files, devices and packages "
        "that they need there",
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    status = 0
    paths = [path for given in args.graph for path in _graphs_in(given) or [given]]
    if not args.graph and not (paths := _graphs_in(Path())):
        raise UsageError(f"no .yaml file in {Path().absolute()}; name the graphs to check")
    for path in paths:
        try:
            plans = load_plans(
                path, env=os.environ, ready=not args.elsewhere, settings=args.settings
            )
        except (GraphError, UsageError) as error:
            print_text(error, file=sys.stderr)
            status = 2
        else:
            parts = [
                summary(plan) if mission is None else f"mission {mission}: {summary(plan)}"
                for mission, plan in plans.items()
            ]
            for leak in dict.fromkeys(it for plan in plans.values() for it in leaks(plan)):
                print_text(f"{leak.where}: warning: {leak.message}", file=sys.stderr)
            print_text(f"{path}: ok: {'; '.join(parts)}")
    return status


def _graphs_in(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def summary(plan: Plan) -> str:
    """The size of a graph: `4 tasks, 3 connections`."""
    return (
        f"{counted(len(plan.steps), 'task')}, {counted(len(plan.graph.connections), 'connection')}"
    )
