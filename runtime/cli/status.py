"""A run on the terminal: a live table, or plain lines without a TTY."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, TextIO, cast

from flowrun.runtime.cli.terminal import can_draw
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from flowrun.runtime.broadcast import Answer
    from flowrun.runtime.cli.terminal import Outlet, Terminal
    from flowrun.runtime.engine.whereabouts import Busy
    from flowrun.runtime.run.live import Run
    from flowrun.runtime.run.report import RunReport

__all__ = ["StatusDisplay"]

_PLAIN_EVERY_S = 5.0
_ANSWERS_SHOWN = 5
_USUAL_WIDTH = 80
_BUSY_S = 2.0
"""Seconds after which a method of a task that runs is mentioned."""


class StatusDisplay:
    """Shows a run on a terminal while the context is open; never in a cycle.

    running: the run.
    url: where its page is served; None if it is not.
    terminal: calls `tick` from its thread.
    plain: whether to print lines on a TTY too.
    """

    def __init__(
        self, running: Run, url: str | None, terminal: Terminal, *, plain: bool = False
    ) -> None:
        self._run = running
        self._url = url
        self._terminal = terminal
        self._live: Live | None = None
        self._screen = None if plain or not can_draw() else terminal.screen
        self._answers: list[Answer] = []
        self._printed_s = 0.0

    def __enter__(self) -> Self:
        where = self._run.directory or "nothing (--no-log)"
        self._say(f"{self._run.name}: {len(self._run.plan.steps)} tasks, logging to {where}")
        if self._url is not None:
            self._say(f"{self._run.name}: page and API at {self._url}")
        if self._screen is not None:
            from rich.console import Console
            from rich.live import Live

            file = _Screen(self._screen, self._terminal.stdout)
            self._live = Live(
                get_renderable=self._table,
                auto_refresh=False,
                console=Console(file=cast("IO[str]", file), highlight=False, width=_width()),
                redirect_stdout=False,
                redirect_stderr=False,
            )
        self._terminal.show(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._terminal.show(None)

    # -- called by the terminal's thread ---------------------------------------------------------

    @property
    def is_live(self) -> bool:
        return self._live is not None and self._live.is_started

    def begin(self) -> None:
        if self._live is not None:
            self._live.start()
            # A shell that comes back after Ctrl-Z, or after a kill, has its cursor then.
            self._live.console.show_cursor(True)

    def tick(self) -> None:
        self._run.attend()
        if self._live is not None:
            self._live.refresh()
            return
        report = self._run.report()
        if self._note_answer(report.last_answer):
            self._say(f"  {_answer(self._answers[-1])}")
        if report.uptime_s - self._printed_s >= _PLAIN_EVERY_S:
            self._printed_s = report.uptime_s
            self._say(_line(report, self._run.busy()))

    def above(self, text: str) -> None:
        from rich.ansi import AnsiDecoder
        from rich.text import Text

        assert self._live is not None
        lines = Text("\n").join(AnsiDecoder().decode(text))
        self._live.console.print(lines, soft_wrap=True)

    def end(self) -> None:
        if self._live is not None:
            self._live.refresh()
            self._live.stop()
        elif self._note_answer(self._run.report().last_answer):
            self._say(f"  {_answer(self._answers[-1])}")

    def _say(self, text: str) -> None:
        print_text(text, file=self._terminal.stdout)

    def _note_answer(self, newest: Answer | None) -> bool:
        """Keep the newest answer; returns whether it is new."""
        if newest is None or (self._answers and self._answers[-1] == newest):
            return False
        self._answers = [*self._answers, newest][-_ANSWERS_SHOWN:]
        return True

    # -- the live table ------------------------------------------------------------------------

    def _table(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        report = self._run.report()
        self._note_answer(report.last_answer)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("task")
        table.add_column("type", style="dim")
        for name in ("p50", "p99", "dropped"):
            table.add_column(name, justify="right")
        for task_id, task in report.tasks.items():
            table.add_row(
                task_id,
                Text(one_line(task.type) + (" (background)" if task.background else "")),
                _microseconds(task.p50_us),
                _microseconds(task.p99_us),
                f"{task.dropped:,}" if task.dropped else "-",
            )
        parts: list[RenderableType] = [Text(_line(report, self._run.busy()), style="bold")]
        if report.progress is not None and report.progress.fraction is not None:
            from rich.progress_bar import ProgressBar

            parts.append(ProgressBar(total=1.0, completed=report.progress.fraction, width=60))
        parts.append(table)
        parts += [
            Text("  " + _answer(answer), no_wrap=True, overflow="ellipsis")
            for answer in self._answers
        ]
        if self._url is not None:
            parts.append(Text(f"{self._url}   Ctrl-C ends the run", style="dim"))
        return Group(*parts)


def _line(report: RunReport, busy: Sequence[Busy] = ()) -> str:
    if report.starting is not None:
        line = f"{report.uptime_s:6.1f} s  starting {report.starting}"
        if report.progress is None:
            return f"{line} ..."
        if report.progress.fraction is None:
            return f"{line}: {one_line(report.progress.what)} ..."
        return f"{line}: {one_line(report.progress.what)} {report.progress.fraction:.0%}"
    line = (
        f"{report.uptime_s:6.1f} s  {report.cycles:,} cycles  {report.cycle_rate_hz:,.1f} cycles/s"
    )
    for it in busy:
        if it.for_s >= _BUSY_S and report.tasks[it.task].late_s is None:
            line += f"  {it.task}: {it.for_s:.0f} s in {it.method}"
    dropped = sum(task.dropped for task in report.tasks.values())
    if dropped:
        line += f"  {dropped:,} dropped"
    for task_id, task in report.tasks.items():
        if task.late_s is not None:
            line += f"  {task_id} hangs: {task.late_s:,.0f} s in one call"
        elif task.state not in (None, "running", "ended"):
            line += f"  {task_id}: {task.state}" + (f" ({task.code})" if task.code else "")
    if report.log is not None:
        line += f"  log {report.log.bytes / 2**20:,.1f} MiB"
    return line


def _answer(answer: Answer) -> str:
    text = answer.response or "(an empty answer)"
    cut_off = " ... (cut off)" if answer.truncated else ""
    return one_line(
        f"cycle {answer.cycle}: {text}{cut_off}  ({answer.prompt}, {answer.latency_ms:.0f} ms)"
    )


def _microseconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:,.1f} ms"
    return f"{value:,.1f} µs"


def _width() -> int | None:
    """None, for that of the terminal, unless COLUMNS says that it has none."""
    return _USUAL_WIDTH if os.environ.get("COLUMNS") == "0" else None


class _Screen(io.TextIOBase):
    """A terminal as a file for rich, which looks at the stream that it takes the place of."""

    def __init__(self, outlet: Outlet, stream: TextIO) -> None:
        self._outlet = outlet
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def write(self, text: str) -> int:
        self._outlet.write_now(text.encode(self.encoding, errors=self._stream.errors or "replace"))
        return len(text)

    def fileno(self) -> int:
        return self._outlet.fd

    def isatty(self) -> bool:
        return True
