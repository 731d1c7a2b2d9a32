"""`flowrun schema`: print the JSON Schema of graph files, or their reference page."""

from __future__ import annotations

import argparse
from typing import Any

from flowrun.runtime.graph.find import task_types
from flowrun.runtime.graph.reference import graph_reference
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
    parser.add_argument("--markdown", action="store_true", help="print a reference page instead")


def run(args: argparse.Namespace) -> int:
    if args.markdown:
        print_text(graph_reference(task_types()), end="")
        return 0
    print_json(graph_schema())
    return 0
