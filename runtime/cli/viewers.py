"""`--foxglove`, `--rerun` and `--otel`: a run in the viewers of others, recorded or while it goes on."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.runtime.errors import UsageError
from flowrun.runtime.extras import import_optional, require
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import mask_urls

if TYPE_CHECKING:
    from flowrun.runtime.children.process import ChildProcess
    from flowrun.runtime.export.selection import ExportReport
    from flowrun.runtime.log.reader import Log

__all__ = ["add_options", "check_options", "shown_live", "view"]

_OTLP = "opentelemetry.proto.trace.v1.trace_pb2"
_POLL_S = 0.1
_REST_S = 10.0
"""How long a collector has for what is left when the run has ended."""


def add_options(parser: argparse.ArgumentParser, *, instead: bool) -> None:
    """Add the options to `parser`. instead: whether they take the place of the page."""
    page = " instead of on the page" if instead else ", too"
    parser.add_argument(
        "--foxglove",
        action="store_true",
        help=f"show it in Foxglove{page}; needs flowrun-runtime[foxglove]",
    )
    parser.add_argument(
        "--rerun", action="store_true", help=f"show it in Rerun{page}; needs flowrun-runtime[rerun]"
    )
    if not instead:
        parser.add_argument(
            "--otel",
            metavar="URL",
            help="send its steps to an OpenTelemetry collector, such as http://localhost:4318; needs "
            "flowrun-runtime[otel]",
        )


def check_options(args: argparse.Namespace) -> None:
    """`UsageError` if a viewer is asked for whose package is missing, or for what is no collector."""
    if args.foxglove:
        require("foxglove", "--foxglove", extra="foxglove", install="foxglove-sdk")
    if args.rerun:
        require("rerun", "--rerun", extra="rerun", install="rerun-sdk")
    if getattr(args, "otel", None) is not None:  # a recorded run is sent by `log export`
        from flowrun.runtime.export.otlp import Collector

        import_optional(_OTLP, "--otel", extra="otel", install="opentelemetry-proto")
        Collector(args.otel)


def view(args: argparse.Namespace) -> int:
    """Show the run of `args` in the viewer that they name, until Ctrl-C; of one that goes on, until it
    ends."""
    from flowrun.runtime.log.reader import Log

    check_options(args)
    if args.foxglove and args.rerun:
        raise UsageError("--foxglove and --rerun: choose one")
    if args.token is not None:
        raise UsageError("--token: neither Foxglove nor Rerun asks for one; they listen without")
    with Log(args.run) as log:
        try:
            while log.start_ns is None and log.is_written:  # its tasks start
                time.sleep(_POLL_S)
                log.refresh()
            (_foxglove if args.foxglove else _rerun)(log, args)
        except KeyboardInterrupt:
            return 0
    return 0


def _foxglove(log: Log, args: argparse.Namespace) -> None:
    from flowrun.runtime.export.foxglove_server import DEFAULT_PORT, FoxgloveServer

    port = DEFAULT_PORT if args.port is None else args.port
    with FoxgloveServer(log, host=args.host, port=port) as server:
        print_text(f"{args.run}: Foxglove: {server.url}", flush=True)
        print_text(f"  {server.app_url}", flush=True)
        (server.follow if server.is_live else server.play)()
        _say_notes(server.report)


def _rerun(log: Log, args: argparse.Namespace) -> None:
    from flowrun.runtime.export.rerun_server import DEFAULT_PORT, RerunServer

    port = DEFAULT_PORT if args.port is None else args.port
    server = RerunServer(log, host=args.host, port=port)
    try:
        print_text(f"{args.run}: Rerun: {server.url}", flush=True)
        viewer = _open_viewer(server.url)
        server.send()
        _say_notes(server.report)
        if not server.is_live:
            viewer.wait() if viewer is not None else threading.Event().wait()
    finally:
        server.stop()


def _open_viewer(url: str) -> subprocess.Popen[bytes] | None:
    """Rerun's own viewer, if there is a screen to open it on."""
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        print_text(f"  rerun {url}    opens the viewer", flush=True)
        return None
    with contextlib.suppress(OSError):
        return subprocess.Popen(  # noqa: S603  # ours
            # It listens itself, for more recordings: here alone, where there is a port.
            [sys.executable, "-m", "rerun", url, "--bind", "127.0.0.1", "--port", "auto"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return None


def _say_notes(report: ExportReport) -> None:
    for note in report.notes:
        print_text(f"note: {note}", file=sys.stderr)


@contextmanager
def shown_live(
    args: argparse.Namespace, directory: Path | None, say: Callable[[str], None]
) -> Iterator[None]:
    """Show the run whose log is in `directory` in the viewers of `args`, while the context is open.

    Each is a process of its own, which reads the log: what it does costs the cycles nothing.

    say: called with each line that they print.
    """
    from flowrun.runtime.children.process import ChildProcess

    run = str(directory)
    verbs = {name: ["view", run, f"--{name}"] for name in ("foxglove", "rerun") if vars(args)[name]}
    if args.otel is not None:
        verbs["otel"] = ["log", "export", run, "--to", "otlp", "--endpoint", args.otel]
    if verbs and directory is None:
        raise UsageError(f"--{next(iter(verbs))} shows what is in the log; leave out --no-log")
    with ExitStack() as children:
        for name, words in verbs.items():
            command = [sys.executable, "-P", "-m", "flowrun.runtime.cli", *words]
            if name == "otel":
                command.append("--follow")
            child = ChildProcess(command, folder=Path.cwd(), name=name, on_line=say)
            child.start()
            children.callback(child.stop)
            if name == "otel":
                children.callback(_send_rest, child, words, say)
        yield


def _send_rest(child: ChildProcess, words: list[str], say: Callable[[str], None]) -> None:
    """Wait until the collector has all; say how to send what it has not got."""
    if child.wait(_REST_S) != 0:
        again = shlex.join(["flowrun", *words[:-1], mask_urls(words[-1])])
        say(f"--otel: not all was sent; the log has it: {again}")
