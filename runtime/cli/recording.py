"""`flowrun recording`: turn the log of a run on and off."""

from __future__ import annotations

import argparse

from flowrun.runtime.cli.client import SUCCESS, Client, add_address, add_pipeline
from flowrun.runtime.printing import print_text

__all__ = ["add_parser", "run"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "recording",
        description="Turn the log of a run (flowrun GRAPH, flowrun serve) on and off; a gap in it says "
        "what is missing.",
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    for name, help_text in (("start", "log again"), ("stop", "log no more until start")):
        action = actions.add_parser(name, help=help_text)
        add_pipeline(action)
        add_address(action)


def run(args: argparse.Namespace) -> int:
    """0, or 1 if the server refuses."""
    Client(args).post("recording/command", {"command": args.action.capitalize()}, SUCCESS)
    print_text("recording started" if args.action == "start" else "recording stopped")
    return 0
