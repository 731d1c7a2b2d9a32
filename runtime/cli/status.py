"""A run on the terminal: a live table, or plain lines without a TTY."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from flowrun.runtime.broadcast import Answer
    from flowrun.runtime.run.live import Run
    from flowrun.runtime.run.log_lines import LineQueue
    from flowrun.runtime.run.report import RunReport

__all__ = ["StatusDisplay"]

_REFRESH_HZ = 4
_PLAIN_EVERY_S = 5.0
_ANSWERS_SHOWN = 5


class StatusDisplay:
    """Shows a run from its own thread while the context is open; never in a cycle.

    running: the run.
    url: where its page is served; None if it is not.
    lines: log lines to write in between.
    plain: whether to print lines on a TTY too.
    """

    def __init__(
        self, running: Run, url: str | None, lines: LineQueue, *, plain: bool = False
    ) -> None:
        self._run = running
        self._url = url
        self._lines = lines
        self._live: Live | None = None
        self._is_plain = plain or not sys.stdout.isatty()
        self._answers: list[Answer] = []
        self._printed_s = 0.0
        self._is_gone = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="flowrun-status", daemon=True)

    def __enter__(self) -> Self:
        where = self._run.directory or "nothing (--no-log)"
        print(f"{self._run.name}: {len(self._run.plan.steps)} tasks, logging to {where}")
        if self._url is not None:
            print(f"{self._run.name}: page and API at {self._url}")
        sys.stdout.flush()
        if not self._is_plain:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                get_renderable=self._table, auto_refresh=False, console=Console(highlight=False)
            )
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._show(last=True)
        if self._live is not None:
            self._live.stop()

    def _work(self) -> None:
        """Write all that goes to the terminal, including log lines: two threads would mix their lines
        and leave parts of the table on the screen."""
        while not self._ended.wait(1 / _REFRESH_HZ):
            try:
                self._show()
            except OSError:  # the terminal, or the reader of our output, is gone; the run goes on
                self._is_gone = True

    def _show(self, *, last: bool = False) -> None:
        self._lines.drain()
        if self._is_gone:
            return
        if self._live is not None:
            self._live.refresh()
            return
        report = self._run.report()
        if self._note_answer(report.last_answer):
            print(f"  {_answer(self._answers[-1])}", flush=True)
        if report.uptime_s - self._printed_s >= _PLAIN_EVERY_S and not last:
            self._printed_s = report.uptime_s
            print(_line(report), flush=True)

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
                task.type + (" (background)" if task.background else ""),
                _microseconds(task.p50_us),
                _microseconds(task.p99_us),
                f"{task.dropped:,}" if task.dropped else "-",
            )
        parts: list[RenderableType] = [Text(_line(report), style="bold")]
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


def _line(report: RunReport) -> str:
    if report.starting is not None:
        line = f"{report.uptime_s:6.1f} s  starting {report.starting}"
        if report.progress is None:
            return f"{line} ..."
        if report.progress.fraction is None:
            return f"{line}: {report.progress.what} ..."
        return f"{line}: {report.progress.what} {report.progress.fraction:.0%}"
    line = (
        f"{report.uptime_s:6.1f} s  {report.cycles:,} cycles  {report.cycle_rate_hz:,.1f} cycles/s"
    )
    dropped = sum(task.dropped for task in report.tasks.values())
    if dropped:
        line += f"  {dropped:,} dropped"
    for task_id, task in report.tasks.items():
        if task.late_s is not None:
            line += f"  {task_id} hangs: {task.late_s:,.0f} s in one call"
    if report.log is not None:
        line += f"  log {report.log.bytes / 2**20:,.1f} MiB"
    return line


def _answer(answer: Answer) -> str:
    text = answer.response or "(an empty answer)"
    cut_off = " ... (cut off)" if answer.truncated else ""
    return f"cycle {answer.cycle}: {text}{cut_off}  ({answer.prompt}, {answer.latency_ms:.0f} ms)"


def _microseconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:,.1f} ms"
    return f"{value:,.1f} µs"
