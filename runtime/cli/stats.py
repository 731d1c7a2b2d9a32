"""`flowrun stats`: the machine of a server."""

from __future__ import annotations

import argparse
import json

from flowrun.runtime.cli.client import Client, add_address
from flowrun.runtime.printing import print_text

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
    found = Client(args).get(f"stats/{args.action}")
    print_text(json.dumps(found, indent=2, ensure_ascii=False))
    return 0
