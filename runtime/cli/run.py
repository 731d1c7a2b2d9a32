"""`flowrun GRAPH`: run a graph."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.runtime.cli import viewers
from flowrun.runtime.cli.choosing import add_mission, add_partition, add_settings, seconds
from flowrun.runtime.cli.failures import print_error
from flowrun.runtime.cli.serving import add_listening, add_proxied
from flowrun.runtime.cli.signals import listening
from flowrun.runtime.errors import FlowrunError, LogError, UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted

if TYPE_CHECKING:
    from flowrun.runtime.cli.terminal import Terminal
    from flowrun.runtime.engine.beginning import Beginning
    from flowrun.runtime.graph.plan import Plan
    from flowrun.runtime.graph.spec import GraphSpec
    from flowrun.runtime.links.told import Told
    from flowrun.runtime.run.live import Run, RunResult
    from flowrun.runtime.server.serve import Server

__all__ = ["DEFAULT_PORT", "add_options", "add_parser", "run"]

DEFAULT_PORT = 3000

_SAY_AFTER_S = 0.5
"""Seconds from a signal to the line that says what the run waits for."""
_SAY_EVERY_S = 5.0
_TICK_S = 0.02
_STUCK_S = 8.0
"""Seconds after SIGTERM, SIGHUP or the end of --for at which a run ends without its tasks; supervisors
kill after 10."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "run",
        description="Run a graph until its sources end, until Ctrl-C, for --cycles N, or --for 10s. "
        "Every message goes into a log under runs/, from which `flowrun replay` runs it again.",
    )
    parser.add_argument("graph", type=Path, help="the graph file")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `run` asks of `args`, but for the graph, and whether its page is opened."""
    add_mission(parser, "the first one")
    add_partition(parser, "it has none; flowrun up runs all")
    add_settings(parser)
    parser.add_argument("--cycles", type=int, metavar="N", help="end after N cycles")
    parser.add_argument(
        "--for",
        dest="duration",
        metavar="TIME",
        help="end after this time, such as 10s, 2m or 1h, counted from when all tasks have started",
    )
    parser.add_argument(
        "--log-dir",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where to make the run's own directory (runs)",
    )
    parser.add_argument("--no-log", action="store_true", help="keep no log")
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help=f"serve the page and the HTTP API there; 0 picks a free port, -1 serves nothing "
        f"({DEFAULT_PORT} where a task shows pictures or answers)",
    )
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="serve them on this Unix socket instead, which only you can open",
    )
    add_listening(parser)
    add_proxied(parser)
    parser.add_argument(
        "--debug-messages",
        action="store_true",
        help="find tasks that change a message after it was published, or keep an input (slow)",
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a live status")
    parser.add_argument(
        "--exit",
        action="store_true",
        help="end with the run, also on a terminal, where its page stays otherwise until Ctrl-C",
    )
    # Said by `flowrun up` on standard input: see links/told.py.
    parser.add_argument("--told", action="store_true", help=argparse.SUPPRESS)
    viewers.add_options(parser, instead=False)


def run(args: argparse.Namespace) -> int:
    """0 for a run that ended well, 1 after an error, 2 for a mistake in the graph or the options.

    On a terminal, a run whose page is served stays after its end, until a signal ends it with the same
    status.
    """
    from flowrun.runtime.graph.find import importable, unused_modules

    if args.cycles is not None and args.cycles < 0:
        raise UsageError(f"--cycles {args.cycles}: expected a number of cycles, 0 or more")
    if args.duration is not None:
        seconds("--for", args.duration)
    with importable(args.graph.parent):
        unused = unused_modules(args.graph.parent)
        if unused:
            print_text(
                f"warning: not used: {', '.join(unused)} in {args.graph.parent.absolute()}: installed "
                "modules have these names, and are imported instead; rename yours",
                file=sys.stderr,
            )
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from flowrun.runtime.cli.terminal import Terminal

    with Terminal() as terminal:
        return _run_on(terminal, args)


def _taken_up(plan: Plan, directory: Path) -> Beginning | None:
    """What is left of an earlier run, where the graph says to go on with it."""
    if plan.graph.spec.part is None:
        return None
    from flowrun.runtime.replay.recovery import recovered_part

    notes: list[str] = []
    found = recovered_part(plan, directory, note=notes.append)
    for text in dict.fromkeys(notes):
        print_text(f"recover: {text}", file=sys.stderr)
    if found is not None:
        print_text(f"goes on with {found.run_id} at cycle {found.cycle}", file=sys.stderr)
    return found


def _heard() -> Told:
    """What is said on standard input, which is empty for all others from now on."""
    from flowrun.runtime.links.told import Told

    told = Told()
    stream = os.fdopen(os.dup(0), encoding="utf-8", errors="replace")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=told.hear, args=[stream], name="flowrun-told", daemon=True).start()
    return told


def _run_on(terminal: Terminal, args: argparse.Namespace) -> int:
    from flowrun.runtime.cli.again import Again
    from flowrun.runtime.cli.memory import keep_freed_memory
    from flowrun.runtime.cli.terminal import LogLines
    from flowrun.runtime.clock import LiveClock
    from flowrun.runtime.graph.partitions import without_partition
    from flowrun.runtime.graph.plan import load_plan
    from flowrun.runtime.run.live import Run

    viewers.check_options(args)
    keep_freed_memory()
    plan = load_plan(
        args.graph,
        env=os.environ,
        mission=args.mission,
        partition=args.partition,
        settings=args.settings,
    )
    if plan.graph.spec.partitions and plan.graph.spec.part is None:
        raise without_partition(plan.graph.spec)
    if plan.graph.spec.part is not None:
        from flowrun.runtime.links.zenoh import require_zenoh

        require_zenoh()
    directory = None if args.no_log else _run_directory(args.log_dir, plan.graph.spec)
    try:
        running = Run(
            plan,
            clock=LiveClock(),
            directory=directory,
            console=LogLines(terminal.stderr),
            debug_messages=args.debug_messages,
            begins=None if directory is None else _taken_up(plan, directory),
            told=_heard() if args.told else None,
        )
    except FlowrunError as error:
        if directory is not None:
            with contextlib.suppress(OSError):  # not made, or something is in it
                directory.rmdir()
        print_error(error, secrets=plan.graph.spec.secrets, before="error: ")
        if isinstance(error, LogError):
            print_text(
                "choose another directory with --log-dir, or run with --no-log", file=sys.stderr
            )
        return 1
    again = Again()
    signals = _Signals(running, terminal)
    stays = not args.exit and _is_attended(terminal)
    with running.discarded_unless_run(), listening(signals), _served(running, args) as server:
        # All that is loaded now lives as long as the process. The collector must not visit it again
        # and again: with a model in memory that costs a cycle 0.1 s.
        gc.collect()
        gc.freeze()
        from flowrun.runtime.cli.announced import announced
        from flowrun.runtime.cli.status import StatusDisplay

        url = server.url if server else None
        if server is not None and args.open:
            from flowrun.runtime.cli.browser import open_page

            open_page(server.url)
        with (
            viewers.shown_live(args, running.directory, print_text),
            announced(running, url),
            StatusDisplay(running, url, terminal, plain=args.plain),
            _limited(running, signals, args.duration),
        ):
            result = running.run(cycles=args.cycles)
        terminal.take_back()
        status = 0 if result.error is None else 1
        signals.sum_up(result)
        signals.has_run(status)
        if server is not None and stays and running.executor.has_started:
            signals.wait(f"  page:   {server.url}  stays until Ctrl-C")
    if signals.is_asked_again and server is not None:
        terminal.end()
        again.begin(port=server.port, token=server.token)
    return status


def _is_attended(terminal: Terminal) -> bool:
    """Whether somebody is there who reads stdout, and can press Ctrl-C."""
    return terminal.screen is not None and sys.stdin is not None and sys.stdin.isatty()


def _run_directory(parent: Path, graph: GraphSpec) -> Path:
    """A directory for this run, of which no other knows."""
    from flowrun.runtime.log.directory import new_run_directory

    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    part = "" if graph.part is None else f"-{graph.part.partition}-{graph.part.instance}"
    return new_run_directory(parent, f"{graph.name}{part}-{stamp}")


class _Signals:
    """Signals end the run: the first one after the running cycle, or at once while its tasks start; the
    second one now, with the log finished. A supervisor that sends SIGTERM once does not wait for ever:
    that ends a run that is stuck by itself. After the run the first one ends the process."""

    def __init__(self, running: Run, terminal: Terminal) -> None:
        self._run = running
        self._terminal = terminal
        self._say_at_s = _SAY_AFTER_S
        self._came = threading.Event()
        self.is_asked_again = False
        """Whether somebody has asked for another run, after this one."""
        self._status: int | None = None
        """What the process ends with; None while it runs."""
        self._summing_up = threading.Lock()
        self._is_summed_up = False

    def sum_up(self, result: RunResult) -> None:
        """Print the summary, unless another thread has. From any thread."""
        with self._summing_up:
            if not self._is_summed_up:
                self._is_summed_up = True
                _print_summary(self._run, result)

    def has_run(self, status: int) -> None:
        """The run has ended, and so will the process, with `status`."""
        self._status = status

    def wait(self, why: str) -> None:
        """Print `why`, and wait for a signal, unless one has ended the run."""
        if not self._came.is_set():
            print_text(why, file=self._terminal.stdout)
            self._run.on_again = self._run_again
            self._came.wait()
            self._run.on_again = None

    def _run_again(self) -> None:
        self.is_asked_again = True
        self._came.set()

    def interrupt(self, number: int) -> None:
        self._run.interrupt_start(signal.Signals(number).name)

    def first(self, number: int) -> None:
        self._run.stop(signal.Signals(number).name)
        self._came.set()

    def waiting(self, number: int, seconds: float) -> None:
        if self._status is not None:
            return
        busy = self._run.busy()
        if number != signal.SIGINT and seconds >= _STUCK_S and busy:
            self._end(signal.Signals(number).name, 128 + number)
        if seconds < self._say_at_s:
            return
        self._say_at_s += _SAY_EVERY_S
        again = "press Ctrl-C again to end now" if number == signal.SIGINT else "again to end now"
        tasks = [f"{it.task} ({it.for_s:.0f} s in {it.method})" for it in busy]
        whom = f"task {', '.join(tasks)}" if tasks else "the run to end"
        print_text(
            f"{signal.Signals(number).name}: waiting for {whom}; {again}",
            file=self._terminal.stderr,
        )

    def again(self, number: int, *, is_stuck: bool) -> None:
        del is_stuck
        if self._run.leave():
            return
        self._end(signal.Signals(number).name, 128 + number)

    def stuck(self, reason: str) -> None:
        """End a run that was to end for `reason`, and whose tasks do not come back."""
        if self._status is None and self._run.busy():
            self._end(reason, 1)

    def _end(self, reason: str, otherwise: int) -> None:
        """End the process now: with the status of the run, or `otherwise` where it has not ended."""
        status = self._status
        if status is None:
            result = self._run.end_now(reason)
            self._terminal.show(None)
            self._terminal.take_back()
            self.sum_up(result)
            status = otherwise
        self._terminal.end()
        os._exit(status)


@contextmanager
def _limited(running: Run, signals: _Signals, duration: str | None) -> Iterator[None]:
    """Ask the run to end when `duration` has passed since its tasks had started, as Ctrl-C does; end it
    without its tasks if they do not come back."""
    if duration is None:
        yield
        return
    reason, limit_s, ended = (
        f"the limit of {duration}",
        seconds("--for", duration),
        threading.Event(),
    )

    def wait() -> None:
        while not running.executor.has_started:
            if ended.wait(_TICK_S):
                return
        if not ended.wait(limit_s):
            running.stop(reason)
            if not ended.wait(_STUCK_S):
                signals.stuck(reason)

    thread = threading.Thread(target=wait, name="flowrun-limit", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _served(running: Run, args: argparse.Namespace) -> Iterator[Server | None]:
    if args.socket is not None and args.port is not None:
        raise UsageError("--socket and --port: the page is served at one of them")
    port = args.port
    if port is None:
        has_channel = any(kind in ("picture", "answer") for kind in running.shows.values())
        port = DEFAULT_PORT if has_channel else -1
    if port < 0 and args.socket is None:
        yield None
        return
    from flowrun.runtime.server.serve import Server
    from flowrun.runtime.server.site import Site

    token = os.environ.get("FLOWRUN_TOKEN") if args.token is None else args.token
    site = Site(tuple(args.cors), args.root_path)
    if args.socket is not None:
        server = Server.start_at(running, args.socket, token, site=site)
    else:
        server = Server.start(running, host=args.host, port=port, token=token, site=site)
    if server.port:
        running.page = server.url.partition("?")[0]
    try:
        yield server
    finally:
        server.stop()


def _print_summary(running: Run, result: RunResult) -> None:
    report = running.report()
    print_text()
    if result.error is not None:
        print_error(result.error, secrets=running.plan.graph.spec.secrets, before="error: ")
    why = "an error" if result.error is not None else result.reason
    print_text(
        f"{running.name}: {counted(result.cycles, 'cycle')} in {report.uptime_s:.1f} s, ended by {why}"
    )
    from flowrun.runtime.cli.board import errors, shadows

    for line in errors(report):
        print_text(f"  errors: {line}")
    for line in shadows(report):
        print_text(f"  shadow: {line}")
    if result.log_error is not None:
        print_text(f"  log ended before the run did: {result.log_error}", file=sys.stderr)
    if running.writer is not None:
        size = result.log_bytes / 2**20
        print_text(
            f"  log:    {running.directory}  ({counted(result.messages, 'message')}, {size:,.1f} MiB)"
        )
        print_text(f"  replay: flowrun replay {shlex.quote(str(running.directory))}")
    elif not running.executor.has_started and result.error is None:
        print_text("  no log is kept: the run ended before its tasks had started")
