"""`flowrun schema`: print the JSON Schema of graph files, or a reference page."""

from __future__ import annotations

import argparse
from typing import Any

from flowrun.runtime.graph.find import task_types
from flowrun.runtime.graph.reference import graph_reference, tasks_reference
from flowrun.runtime.graph.schema import graph_schema
from flowrun.runtime.printing import print_json, print_text

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "schema",
        description="Print the JSON Schema of graph files. For the YAML language server, save it as "
        "graph.schema.json, and begin a graph file with: "
        "# yaml-language-server: $schema=graph.schema.json",
    )
    parser.add_argument(
        "--markdown",
        nargs="?",
        const="graph",
        choices=["graph", "tasks"],
        help="print a reference page instead: of graph files, or of the config of each task",
    )


def run(args: argparse.Namespace) -> int:
    if args.markdown == "graph":
        print_text(graph_reference(), end="")
    elif args.markdown == "tasks":
        print_text(tasks_reference(task_types()), end="")
    else:
        print_json(graph_schema())
    return 0
