"""`flowrun view RUN`: recorded runs on the page."""

from __future__ import annotations

import argparse
import os
import threading
from functools import partial
from pathlib import Path

from flowrun.runtime.cli import viewers
from flowrun.runtime.cli.run import DEFAULT_PORT
from flowrun.runtime.cli.serving import add_listening
from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_text

__all__ = ["add_parser", "run"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "view",
        description="Show a recorded run in a browser, on the page of a live one: every moment of it, "
        "what was answered then, and what another prompt or model would have answered. Nothing that the "
        "run names is executed to show it.",
    )
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="the run's directory, a slab of it, or a folder of runs, such as runs/",
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help=f"({DEFAULT_PORT}; Foxglove's 8765, Rerun's 9876) 0 picks a free one",
    )
    parser.add_argument(
        "--cycle", type=_cycle, metavar="N", help="the moment to begin with, of one run (its end)"
    )
    add_listening(parser)
    viewers.add_options(parser, instead=True)


def run(args: argparse.Namespace) -> int:
    """0 when it is ended by Ctrl-C or SIGTERM; `LogError` where there is no run."""
    if args.foxglove or args.rerun:
        if args.cycle is not None:
            raise UsageError("--cycle is for the page")
        return viewers.view(args)
    from flowrun.runtime.fleet.record import FLEET_FILE
    from flowrun.runtime.recorded.runs import RecordedRuns
    from flowrun.runtime.server.app import create_view_app
    from flowrun.runtime.server.serve import Server

    runs = RecordedRuns.at(args.run)
    if args.cycle is not None:
        _check_cycle(args.run, args.cycle)
    port = DEFAULT_PORT if args.port is None else args.port
    token = os.environ.get("FLOWRUN_TOKEN") if args.token is None else args.token
    server = Server.start_app(
        partial(create_view_app, runs), host=args.host, port=port, token=token
    )
    try:
        moment = (
            "" if args.cycle is None else f"{'&' if '?' in server.url else '?'}cycle={args.cycle}"
        )
        tab = "#fleet" if (args.run / FLEET_FILE).is_file() else ""
        # Who started it may wait for it.
        print_text(f"{args.run}: {server.url}{moment}{tab}", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    return 0


def _check_cycle(path: Path, cycle: int) -> None:
    """`UsageError` where there is no such cycle to begin with."""
    from flowrun.runtime.log.lock import slab_files
    from flowrun.runtime.log.reader import Log

    if path.is_dir() and not slab_files(path):
        raise UsageError(f"--cycle is for one run, and {path} is a folder of runs; name the run")
    with Log(path, verify=False) as log:
        if next(log.cycles(cycle, cycle + 1), None) is None:
            raise UsageError(f"--cycle {cycle}: the run has no such cycle")


def _cycle(text: str) -> int:
    if not text.isdecimal() or not text.isascii():
        raise argparse.ArgumentTypeError(f"expected the number of a cycle; got {text!r}")
    return int(text)
