"""`flowrun publish TASK.PORT MESSAGE`: publish a message while a graph runs."""

from __future__ import annotations

import argparse
import itertools
import json
import mimetypes
import sys
from pathlib import Path
from typing import Any

from flowrun.runtime.cli.client import Client, add_address, add_pipeline
from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted

__all__ = ["add_parser", "run"]

_FASTEST_HZ = 1000.0


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "publish",
        description="Publish a message on a port of a running graph (flowrun GRAPH, flowrun serve), in "
        "its next cycle, in place of what the task publishes there; a source waits for the cycle after "
        "it. The log keeps it, and a replay publishes it again. Lists: arrays; base64: bytes; a field "
        "that is left out has its default.",
        epilog="flowrun publish counter.count '{\"value\": 3}' | flowrun publish cam0 @person.jpg",
    )
    parser.add_argument("to", metavar="TASK.PORT", help="where; TASK alone if it has one output")
    parser.add_argument(
        "message",
        help="its fields as a JSON object; @FILE: from a file, which is a picture for ports of "
        "pictures; -: from stdin",
    )
    parser.add_argument(
        "--tov-ns",
        type=int,
        metavar="NS",
        help="its time of validity, nanoseconds since 1970 UTC (the cycle's time)",
    )
    parser.add_argument(
        "--rate", type=float, metavar="HZ", help="publish it again and again, HZ times a second"
    )
    parser.add_argument(
        "--count", type=int, metavar="N", help="how often with --rate (until Ctrl-C)"
    )
    add_pipeline(parser)
    add_address(parser)


def run(args: argparse.Namespace) -> int:
    """0, or 1 if the server refuses."""
    if args.rate is not None and not 0 < args.rate <= _FASTEST_HZ:
        raise UsageError(f"--rate {args.rate:g}: expected more than 0, and at most {_FASTEST_HZ:g}")
    if args.count is not None and (args.count < 1 or args.rate is None):
        raise UsageError(f"--count {args.count}: expected 1 or more, and --rate HZ with it")
    content = _content(args.message)
    query = {} if args.tov_ns is None else {"tov_ns": str(args.tov_ns)}
    client, path, done = Client(args), f"publish/{args.to}", 0
    begin_s = monotonic_s()
    for number in itertools.count():
        said = client.post_content(path, *content, query=query)["message"]
        done += 1
        if args.rate is None or done == args.count:
            break
        _wait(begin_s + (number + 1) / args.rate)
    print_text(said if done == 1 else f"{said}, {counted(done, 'time')}")
    return 0


def _wait(until_s: float) -> None:
    import time

    time.sleep(max(0.0, until_s - monotonic_s()))


def _content(message: str) -> tuple[bytes, str]:
    """The body of the request, and its type."""
    if message == "-":
        return _checked(sys.stdin.buffer.read(), "stdin"), "application/json"
    if not message.startswith("@"):
        return _checked(
            message.encode("utf-8", "surrogateescape"), "the message"
        ), "application/json"
    path = Path(message[1:])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    kind = mimetypes.guess_type(path.name)[0] or ""
    if kind.startswith("image/"):
        return data, kind
    return _checked(data, str(path)), "application/json"


def _checked(data: bytes, name: str) -> bytes:
    """JSON, before anything is sent."""
    try:
        found: Any = json.loads(data)
    except ValueError as error:
        raise UsageError(
            f"{name} is not JSON: {error}; expected an object, such as '{{\"value\": 3}}', or @FILE"
        ) from None
    if not isinstance(found, dict):
        raise UsageError(
            f"{name}: expected a JSON object of the message's fields, such as '{{\"value\": 3}}', got "
            f"{json.dumps(found)[:40]}"
        )
    return data
