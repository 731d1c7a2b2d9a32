"""`flowrun pipeline`, `flowrun start-pipeline` and `flowrun stop-pipeline`: what a server runs."""

from __future__ import annotations

import argparse
from typing import Any

from flowrun.runtime.cli.client import MESSAGE, Client, add_address
from flowrun.runtime.printing import print_json, print_table, print_text

__all__ = ["add_parser", "run"]

_PIPELINE = {
    "id": str,
    "status": (str, {"Error": str}),
    "next_start_s?": (float, int, None),
    "parts?": (dict, None),
}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "pipeline",
        description="List, start and stop the graphs of a server (flowrun serve).",
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    listing = actions.add_parser("list", help="every graph, and what it is doing")
    listing.add_argument("--json", action="store_true", help="as the server says it")
    add_address(listing)
    for name, help_text in (
        ("start", "start a graph"),
        ("stop", "end the run of a graph, within 5 s"),
        ("restart", "stop a graph, if it runs, and start it"),
        ("config", "print a graph as JSON"),
    ):
        action = actions.add_parser(name, help=help_text)
        action.add_argument("name", help="the name of the graph")
        if name in ("start", "restart"):
            action.add_argument(
                "--restart",
                choices=("never", "on-failure", "always"),
                help="when the server starts it again by itself (never)",
            )
        add_address(action)
    for name in ("start", "stop"):
        alone = verbs.add_parser(
            f"{name}-pipeline",
            description=f"The same as flowrun pipeline {name} NAME --host HOST --port PORT.",
        )
        alone.add_argument("name", help="the name of the graph")
        alone.set_defaults(action=name)
        add_address(alone, positional=True)


def run(args: argparse.Namespace) -> int:
    """0, or 1 if the server refuses."""
    client = Client(args)
    match args.action:
        case "list":
            _list(client, as_json=args.json)
        case "config":
            print_json(client.get("pipeline/config", (dict, list), pipeline_id=args.name))
        case action:
            body = {"pipeline_id": args.name}
            if getattr(args, "restart", None) is not None:
                body["restart"] = args.restart
            print_text(client.post(f"pipeline/{action}", body, MESSAGE)["message"])
    return 0


def _list(client: Client, *, as_json: bool) -> None:
    found = client.get("pipeline/list", [_PIPELINE])
    if as_json:
        print_json(found)
        return
    print_table(("pipeline", "status", ""), [(one["id"], *_status(one)) for one in found])


def _status(one: dict[str, Any]) -> tuple[str, str]:
    """The status of a pipeline in a word, and what else there is to say of it."""
    said = []
    match one["status"]:
        case {"Error": str(text)}:
            status = "Error"
            said.append(text.splitlines()[0] if text else "")
        case status:
            if one.get("phase") in ("starting", "stopping"):
                status = one["phase"].capitalize()
            if one.get("pid") is not None:
                said.append(f"process {one['pid']}")
    if one.get("next_start_s") is not None:
        said.append(f"starts again in {one['next_start_s']:.0f} s")
    parts: dict[str, str] = one.get("parts") or {}
    said += [f"{part} {what}" for part, what in parts.items() if str(what).startswith("failed")]
    if one.get("restarts"):
        said.append(f"started again {one['restarts']} times")
    return str(status), "; ".join(said)
