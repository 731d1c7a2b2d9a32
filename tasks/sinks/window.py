"""`Window`: pictures in a window of this machine's screen."""

from __future__ import annotations

import importlib.util
import os
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import UsageError
from flowrun.runtime.pictures.squares import square_size
from flowrun.runtime.task import Context, Input, Task, TaskConfig
from flowrun.runtime.wording import one_line
from flowrun.tasks.sinks.outbox import Outbox

__all__ = ["Window"]

_PROGRAM = Path(__file__).with_name("window_process.py")
_END_S = 1.0
_START_S = 20.0
_OF_SCREEN = 0.9
_CLOSED = 3


class Window(Task):
    """Show the newest picture in a window.

    Takes pictures at `image`. They are upright and of the right shape, and made smaller where they are
    larger than the screen. A picture that comes before the last one is shown takes its place: the window
    never holds up a cycle. Closing it, or pressing q or Escape in it, ends the window alone, or the run
    too, as `on_close` says; it is closed at the end of the run. A machine without a display is a mistake
    that is found before the run. A replay shows nothing.
    """

    class Config(TaskConfig):
        title: str | None = None
        """What the window is called; null: the task's id and the run's name."""
        width: PositiveInt | None = None
        """Columns of the pictures in the window; null: their own, as far as the screen has them."""
        on_close: Literal["continue", "end"] = "continue"
        """What the run does when somebody closes the window."""

    acts_outside = True

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._outbox: Outbox[ImageRgb8Msg] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._screen = (0, 0)
        self._is_ending = threading.Event()
        self._is_closed = threading.Event()

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        del config, graph_dir
        if importlib.util.find_spec("_tkinter") is None:
            yield "", "Window needs Python's Tk: apt install python3-tk"
        elif not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            yield (
                "",
                "no display: DISPLAY is not set. Run it on a desktop, or with ssh -X; without one leave "
                "the task out: the page shows BroadcastImage",
            )

    def start(self, ctx: Context) -> None:
        title = self.config.title or f"{ctx.task_id} - {ctx.run_id}"
        self._process = process = subprocess.Popen(  # noqa: S603  # ours
            [sys.executable, "-I", str(_PROGRAM), one_line(title)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the run, which then closes the window
        )
        try:
            self._screen = _screen_of(process)
        except BaseException:
            self._process = None
            _end(process)
            raise
        threading.Thread(target=self._watch, args=[ctx, process], daemon=True).start()
        self._outbox = Outbox(ctx, self._show, most=1, is_newest_enough=True)

    def process(self, ctx: Context, image: Input[ImageRgb8Msg]) -> None:
        del ctx
        if not self._is_closed.is_set() and self._outbox is not None:
            self._outbox.put(image.copy())

    def stop(self, ctx: Context) -> None:
        del ctx
        self._is_ending.set()
        if self._outbox is not None:
            self._outbox.close(_END_S)
        process = self._process
        if process is None:
            return
        if self._outbox is not None and self._outbox.is_alive:
            process.kill()  # it takes no more pictures
        _end(process)

    def _show(self, image: ImageRgb8Msg) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        height, width = square_size(image.height, image.width, image.pixel_aspect)
        part = min(
            1.0,
            *(_OF_SCREEN * it / own for it, own in zip(self._screen, (width, height), strict=True)),
        )
        if self.config.width is not None:
            part = self.config.width / width
        width, height = max(1, round(part * width)), max(1, round(part * height))
        is_own = (width, height) == (image.width, image.height)
        pixels = image.pixels if is_own else image.resized(width, height)
        with suppress(BrokenPipeError):  # somebody has closed it
            self._process.stdin.write(struct.pack("<II", width, height))
            self._process.stdin.write(pixels.tobytes())
            self._process.stdin.flush()

    def _watch(self, ctx: Context, process: subprocess.Popen[bytes]) -> None:
        """Note that the window has gone."""
        status = process.wait()
        self._is_closed.set()
        if self._is_ending.is_set():
            return
        if status != _CLOSED:
            ctx.log.warning("the window has ended by itself", status=status)
            return
        ctx.log.info("somebody has closed the window", on_close=self.config.on_close)
        if self.config.on_close == "end":
            ctx.end_run(f"somebody closed the window of task {ctx.task_id!r}")


def _screen_of(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Width and height of the screen, once the window is there. `UsageError` where it cannot be."""
    assert process.stdout is not None
    assert process.stderr is not None
    ready, _, _ = select.select([process.stdout], [], [], _START_S)
    words = process.stdout.readline().split() if ready else []
    if len(words) == 2:
        return int(words[0]), int(words[1])
    process.kill()  # it may be waiting
    said = process.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
    raise UsageError(f"cannot open a window: {said or 'the screen does not answer'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the window close, and make it."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):  # what it has not taken
                pipe.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
