"""Tasks for random graphs, each with one thing that is hard to replay."""

from __future__ import annotations

import math
import time
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import ClassVar

import numpy as np

from flowrun.msgs import BytesMsg, IntMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from support.films import draw
from support.helpers import GridMsg, RoughNumbers, Sum


class Paced(RoughNumbers):
    """A source that says how far it is, for `Lags`."""

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        is_over = self.next == self.config.limit
        Lags.number = math.inf if is_over else max(Lags.number, self.next)
        super().process(ctx, number)


class Lags(Task):
    """For `background: true`: works until the numbers are `lag` further, fails at some calls, and
    publishes what it remembers."""

    number: ClassVar[float] = math.inf
    """The newest number of a run; infinite when none runs, and in a replay."""

    class Config(TaskConfig):
        lag: int = 2
        fails: int = 0
        gain: Live[int] = 1
        refuses: int = -1

    def start(self, ctx: Context) -> None:
        self.total = 0
        self.is_over = False

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        if self.config.gain == self.config.refuses:
            raise ValueError(f"no gain of {self.config.gain}")

    def interrupt(self, ctx: Context) -> None:
        self.is_over = True

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        begin_s = time.monotonic()
        while Lags.number < number.value + self.config.lag and time.monotonic() < begin_s + 1:
            if self.is_over:
                raise RuntimeError("interrupted")
            time.sleep(0)
        self.total += number.value * self.config.gain + int(ctx.rng.integers(100))
        if self.config.fails and self.total % self.config.fails == 1:
            raise ValueError(f"cannot stand {self.total}, says {object()}")
        out.value = self.total
        out.publish(tov_ns=number.tov_ns)

    def freeze(self) -> int:
        return self.total

    def thaw(self, state: int) -> None:
        self.total = state


class Melts(Sum):
    """Its `freeze` fails at some sums."""

    def freeze(self) -> int:
        if self.total % 3 == 1:
            raise OSError(f"cannot freeze {self.total}")
        return super().freeze()


class Heavy(Task):
    """Fills the log: seven of its messages are a slab of one MiB."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[BytesMsg]) -> None:
        out.value = number.value.to_bytes(8, "little", signed=True) * 20_000
        out.publish()


class Borrows(Task):
    """Publishes an array of memory that it goes on writing to."""

    def start(self, ctx: Context) -> None:
        self.memory = bytearray(32)
        self.numbers = np.frombuffer(self.memory, np.float32).reshape(4, 2)

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[GridMsg]) -> None:
        self.numbers[...] = number.value
        out.grid = self.numbers
        out.publish(tov_ns=number.tov_ns)
        self.memory[:] = bytes([ctx.cycle % 256]) * 32


class Gathers(Task):
    """Sums up arrays, the one before included, of which it kept a copy."""

    def start(self, ctx: Context) -> None:
        self.kept: list[float] = []

    def process(self, ctx: Context, grid: Input[GridMsg], out: Output[IntMsg]) -> None:
        out.value = int(grid.grid.sum() + sum(self.kept)) % 1_000_003
        self.kept = grid.grid.ravel().tolist()
        out.publish()

    def freeze(self) -> list[float]:
        return self.kept

    def thaw(self, state: list[float]) -> None:
        self.kept = state


@cache
def film(kind: str) -> Path:
    """A small film of 12 pictures, with a key frame every 8."""
    options = {"b_frames": {"x264-params": "b-adapt=0:bframes=2"}, "plain": {"bf": "0"}}[kind]
    return draw(Path(mkdtemp()) / f"{kind}.mp4", frames=12, size=(64, 48), **options)
