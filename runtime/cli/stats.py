"""`flowrun stats`: the machine of a server."""

from __future__ import annotations

import argparse

from flowrun.runtime.cli.client import Client, add_address
from flowrun.runtime.printing import print_json

__all__ = ["add_parser", "run"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "stats", description="Print, as JSON, what the machine of a server is, and how busy."
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    for name, help_text in (
        ("whoami", "its names, its system and its user"),
        ("sysinfo", "its memory, processors and disks"),
    ):
        add_address(actions.add_parser(name, help=help_text))


def run(args: argparse.Namespace) -> int:
    """0, or 1 if the server refuses."""
    print_json(Client(args).get(f"stats/{args.action}", dict))
    return 0
