"""`flowrun demo`: a graph that ships with flowrun, and needs no camera, no account and no network."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import flowrun.runtime
from flowrun.runtime.cli import run as run_verb

__all__ = ["add_parser", "run"]

_GRAPH = Path(flowrun.runtime.__file__).parents[1] / "graphs" / "demo.yaml"


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "demo",
        description="Run a graph that ships with flowrun until Ctrl-C, and open its page: a film of "
        "coloured shapes, a small model that describes it and finds the shapes. Without --port the page "
        f"is at {run_verb.DEFAULT_PORT}, or where that is taken at a free port.",
    )
    parser.add_argument(
        "--no-browser", dest="open", action="store_false", help="do not open the page in a browser"
    )
    run_verb.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """As `flowrun GRAPH`."""
    args.graph = _GRAPH
    if args.port is None and args.socket is None and not _is_free(args.host, run_verb.DEFAULT_PORT):
        args.port = 0
    return run_verb.run(args)


def _is_free(host: str, port: int) -> bool:
    """Whether nobody listens there; True too where that is not known, so that starting says why."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return False
    except OSError:
        return True
