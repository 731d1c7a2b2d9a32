"""A run on the terminal: a live table, or plain lines without a TTY."""

from __future__ import annotations

import io
import os
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, TextIO, cast

from flowrun.runtime.cli.board import answer_line, board, status_line, troubles
from flowrun.runtime.cli.terminal import can_draw
from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from flowrun.runtime.broadcast import Answer
    from flowrun.runtime.cli.terminal import Outlet, Terminal
    from flowrun.runtime.run.live import Run

__all__ = ["StatusDisplay"]

_PLAIN_EVERY_S = 5.0
_ANSWERS_SHOWN = 5
_USUAL_WIDTH = 80


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
        self._printed_s = monotonic_s()

    def __enter__(self) -> Self:
        where = self._run.directory or "nothing (--no-log)"
        self._say(
            f"{self._run.name}: {counted(len(self._run.plan.steps), 'task')}, logging to {where}"
        )
        if self._url is not None:
            self._say(f"{self._run.name}: page and API at {self._url}")
        if self._screen is not None:
            from rich.console import Console
            from rich.live import Live

            file = cast("IO[str]", _Screen(self._screen, self._terminal.stdout))
            console = Console(file=file, highlight=False, width=_width())
            self._live = Live(
                get_renderable=lambda: self._table(console.width),
                auto_refresh=False,
                console=console,
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
        if self._note_answer(self._run.last_answer):
            self._say(f"  {answer_line(self._answers[-1])}")
        if monotonic_s() - self._printed_s >= _PLAIN_EVERY_S:
            self._printed_s = monotonic_s()
            report = self._run.report()  # with many tasks it takes tens of milliseconds
            self._say(f"  {status_line(report)}")
            for trouble in troubles(report, self._run.busy()):
                self._say(f"    {trouble}")

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
        elif self._note_answer(self._run.last_answer):
            self._say(f"  {answer_line(self._answers[-1])}")

    def _say(self, text: str) -> None:
        print_text(text, file=self._terminal.stdout)

    def _note_answer(self, newest: Answer | None) -> bool:
        """Keep the newest answer; returns whether it is new."""
        if newest is None or (self._answers and self._answers[-1] == newest):
            return False
        self._answers = [*self._answers, newest][-_ANSWERS_SHOWN:]
        return True

    # -- the live table ------------------------------------------------------------------------

    def _table(self, width: int) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        report = self._run.report()
        self._note_answer(report.last_answer)
        parts = board(report, self._run.busy(), width=width)
        parts += [
            Text("  " + answer_line(answer), no_wrap=True, overflow="ellipsis")
            for answer in self._answers
        ]
        if self._url is not None:
            parts.append(Text(f"{self._url}   Ctrl-C ends the run", style="dim"))
        return Group(*parts)


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
