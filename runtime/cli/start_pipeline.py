"""`flowrun start-pipeline NAME [HOST [PORT]]`: start a graph of a server."""

from __future__ import annotations

import argparse

from flowrun.runtime.cli.client import Client, add_address
from flowrun.runtime.printing import print_text

__all__ = ["add_parser", "run"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "start-pipeline",
        description="The same as flowrun pipeline start NAME --host HOST --port PORT.",
    )
    parser.add_argument("name", help="the name of the graph")
    add_address(parser, positional=True)


def run(args: argparse.Namespace) -> int:
    """0, or 1 if the server refuses."""
    print_text(Client(args).post("pipeline/start", {"pipeline_id": args.name})["message"])
    return 0
