"""The tasks of the golden run. A change here changes what they answer: then record it again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import FloatMsg, IntMsg, Message, Shape
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig


class ThrowsMsg(Message):
    """Some throws of a dice."""

    throws: Annotated[NDArray[np.int64], Shape("N")]


class Numbers(Task):
    """0 to 59; `before` is called with each before it is published."""

    before: ClassVar[Callable[[int], None] | None] = None

    def start(self, ctx: Context) -> None:
        self.next = 0

    def process(self, ctx: Context, count: Output[IntMsg]) -> None:
        if self.next == 60:
            ctx.finish()
            return
        if self.before is not None:
            type(self).before(self.next)
        count.value = self.next
        count.publish()
        self.next += 1


class Scale(Task):
    """Times a factor that may change."""

    class Config(TaskConfig):
        factor: Live[int] = 2

    def process(self, ctx: Context, number: Input[IntMsg], scaled: Output[IntMsg]) -> None:
        scaled.value = number.value * self.config.factor
        scaled.publish(tov_ns=number.tov_ns)


class Average(Task):
    """The mean of the last eight numbers."""

    def start(self, ctx: Context) -> None:
        self.last: deque[int] = deque(maxlen=8)

    def process(self, ctx: Context, number: Input[IntMsg], mean: Output[FloatMsg]) -> None:
        self.last.append(number.value)
        mean.value = sum(self.last) / len(self.last)
        mean.publish(tov_ns=number.tov_ns)

    def freeze(self) -> list[int]:
        return list(self.last)

    def thaw(self, state: list[int]) -> None:
        self.last = deque(state, maxlen=8)


class Moody(Task):
    """The root of what comes, but of nothing between 50 and 60."""

    def process(self, ctx: Context, mean: Input[FloatMsg], root: Output[FloatMsg]) -> None:
        if 50 <= mean.value < 60:
            raise ValueError(f"no root of {mean.value}")
        root.value = mean.value**0.5
        root.publish(tov_ns=mean.tov_ns)


class Dice(Task):
    """Throws a dice, now and then more than once."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[ThrowsMsg]) -> None:
        out.throws = ctx.rng.integers(1, 7, size=1 + number.value % 3)
        out.publish(tov_ns=number.tov_ns)
