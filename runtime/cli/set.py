"""`flowrun set TASK KEY=VALUE...`: change values of a task while its graph runs."""

from __future__ import annotations

import argparse

from flowrun.runtime.cli.assigned import assigned
from flowrun.runtime.cli.client import SUCCESS, Client, add_address, add_pipeline
from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_json, print_text
from flowrun.runtime.wording import nearest

__all__ = ["add_parser", "run"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "set",
        description="Change values of a task while its graph runs (flowrun GRAPH, flowrun serve), from "
        "the next cycle on; the log keeps when. Without values it prints those in force, without a "
        "task those of all tasks.",
    )
    parser.add_argument("task", nargs="?", help="the id of the task")
    parser.add_argument(
        "values", nargs="*", metavar="KEY=VALUE", help="a key that may change; the value is YAML"
    )
    add_pipeline(parser)
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """0, or 1 if the server refuses."""
    client = Client(args)
    if args.task is not None and "=" in args.task:
        raise UsageError(f"{args.task}: name the task before it: flowrun set TASK {args.task}")
    if args.values:
        values = assigned(args.values, example="prompt='What is it?'")
        if "task" in values:
            raise UsageError(f"{args.task} has no key 'task' that may change")
        client.post("inference/settings", {"task": args.task, **values}, SUCCESS)
        print_text("changed")
        return 0
    in_force = client.get("inference/settings", dict)
    if args.task is None:
        print_json(in_force)
    elif args.task in in_force:
        print_json(in_force[args.task])
    else:
        raise UsageError(
            f"task {args.task!r} has no values that may change, or does not exist; tasks with some: "
            f"{', '.join(in_force) or 'none'}{nearest(args.task, in_force)}"
        )
    return 0
