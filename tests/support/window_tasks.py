"""Windows that a test looks at, or closes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.task import Context, Input
from flowrun.tasks.sinks.window import Window
from support.helpers import until

_PRESS = ["search", "--name", "closes me", "windowfocus", "--sync", "%1", "key", "Escape"]


class Looks(Window):
    """Waits after each picture until the test is content with the screen."""

    is_right: ClassVar[Callable[[], bool]] = staticmethod(lambda: True)

    def process(self, ctx: Context, image: Input[ImageRgb8Msg]) -> None:
        super().process(ctx, image)
        until(type(self).is_right)


class Closes(Window):
    """Somebody presses Escape in it in the third cycle."""

    def process(self, ctx: Context, image: Input[ImageRgb8Msg]) -> None:
        super().process(ctx, image)
        if ctx.cycle == 2:
            until(self._is_pressed)

    def _is_pressed(self) -> bool:
        """Whether the window has gone, after one more try. Without a window manager, nobody says when
        it takes keys."""
        with suppress(
            subprocess.TimeoutExpired
        ):  # `--sync` waits for ever for a window that has gone
            subprocess.run(["xdotool", *_PRESS], check=False, timeout=2, capture_output=True)
        return self._is_closed.wait(0.2)
