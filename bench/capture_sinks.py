"""The tasks that read a camera's pictures for capture_program.py."""

from __future__ import annotations

import time
from typing import Any

from flowrun.msgs import FloatMsg, ImageRgb8Msg
from flowrun.runtime.task import Context, Input, Output, Task

meter: Any = None
"""The `Meter` of the program."""
decoded: dict[int | None, float] = {}
"""When pictures were decoded, by `perf_counter` and by their time stamps."""


class Unread(Task):
    """Gets every frame, and looks at none."""

    def process(self, ctx: Context, image: Input[ImageRgb8Msg]) -> None:
        meter.frame()


class Reads(Task):
    def process(self, ctx: Context, image: Input[ImageRgb8Msg]) -> None:
        assert image.pixels is not None  # reading makes them
        meter.frame()


class Live(Task):
    """Says how long ago each frame was decoded, before and after reading it."""

    def process(self, ctx: Context, image: Input[ImageRgb8Msg]) -> None:
        entered = time.perf_counter()
        assert image.pixels is not None
        came = decoded.pop(image.pts)
        meter.live_frame(entered - came, time.perf_counter() - came)


class Sees(Task):
    """Reads the pictures that it gets, as a model would."""

    def process(self, ctx: Context, image: Input[ImageRgb8Msg], mean: Output[FloatMsg]) -> None:
        mean.value = float(image.pixels[::16, ::16].mean())
        mean.publish(tov_ns=image.tov_ns)
