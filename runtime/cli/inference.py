"""`flowrun inference`: what a model answers, and what it is asked."""

from __future__ import annotations

import argparse
from typing import Any

from flowrun.runtime.cli.assigned import assigned
from flowrun.runtime.cli.client import SUCCESS, Client, add_address, add_pipeline
from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_json, print_text

__all__ = ["add_parser", "run"]

_ANSWER = {"Success": {"prompt": str, "response": str}}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "inference",
        description="Get the answers of a run (flowrun GRAPH, flowrun serve), or change its prompt.",
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    result = actions.add_parser("result", help="print the next answer")
    result.add_argument(
        "--channel", default="", help="a task that shows answers, or its number (the first)"
    )
    result.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="how many seconds to wait for it, 60 at most (60)",
    )
    result.add_argument("--json", action="store_true", help="as the server gives it")
    settings = actions.add_parser("settings", help="change values while the graph runs")
    settings.add_argument("--prompt", help="what to ask the model from now on")
    settings.add_argument("--task", help="the task to change (all that have the keys)")
    settings.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any value that may change, as YAML has it; may be given several times",
    )
    for action in (result, settings):
        add_pipeline(action)
        add_address(action)


def run(args: argparse.Namespace) -> int:
    """0, or 1 if the server refuses."""
    client = Client(args)
    if args.action == "settings":
        client.post("inference/settings", _settings(args), SUCCESS)
        print_text("changed")
        return 0
    path = f"inference/result/{args.channel}" if args.channel else "inference/result"
    answer = client.get(path, _ANSWER, timeout_s=f"{args.timeout:g}")["Success"]
    if args.json:
        print_json(answer)
    else:
        cut_off = " ... (cut off)" if answer.get("truncated") else ""
        print_text(f"{answer['prompt']}: {answer['response']}{cut_off}")
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {} if args.prompt is None else {"prompt": args.prompt}
    values |= assigned(args.set, before="--set ", example="max_new_tokens=20")
    if not values:
        raise UsageError("nothing to change: give --prompt TEXT or --set KEY=VALUE")
    return values if args.task is None else {"task": args.task, **values}
