"""Small tasks without a model or a camera: for first graphs, tests and benches."""

from __future__ import annotations

from typing import Any

from pydantic import NonNegativeInt, PositiveFloat

from flowrun.msgs import BoolMsg, IntMsg
from flowrun.runtime.clock import next_due
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig

__all__ = ["BoolSink", "BoolSource", "Counter", "PassBool", "Print", "Square"]

_NS_PER_S = 1_000_000_000


class Counter(Task):
    """0, 1, 2, ...: one number a cycle.

    A source that ends after `limit` numbers. The time of a message is its cycle's.
    """

    class Config(TaskConfig):
        limit: NonNegativeInt | None = None
        """How many numbers to publish; null counts for ever."""
        rate_hz: PositiveFloat | None = None
        """Numbers per second; null goes as fast as the graph does."""

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._next = 0
        self._due_ns: int | None = None

    def process(self, ctx: Context, count: Output[IntMsg]) -> None:
        if self._next == self.config.limit:
            ctx.finish()
            return
        if self.config.rate_hz is not None and not self._is_due(ctx, self.config.rate_hz):
            return
        count.value = self._next
        count.publish()
        self._next += 1
        if self._next == self.config.limit:
            ctx.finish()

    def _is_due(self, ctx: Context, rate_hz: float) -> bool:
        """Whether the next number's time has come; if not, asks to be called then."""
        now_ns = ctx.clock_ns()
        due_ns = now_ns if self._due_ns is None else self._due_ns
        is_due = now_ns >= due_ns
        if is_due:
            due_ns = next_due(due_ns, now_ns, max(1, round(_NS_PER_S / rate_hz)))
        self._due_ns = due_ns
        ctx.wake_at(due_ns)
        return is_due

    def freeze(self) -> Any:
        return {"next": self._next}

    def thaw(self, state: Any) -> None:
        self._next = state["next"]


class Square(Task):
    """The square of each number.

    It has the number's time. A square of more than 64 bits is an error.
    """

    def process(self, ctx: Context, number: Input[IntMsg], square: Output[IntMsg]) -> None:
        del ctx
        square.value = number.value**2
        square.publish(tov_ns=number.tov_ns)


class Print(Task):
    """Logs each number, so that it shows on the console.

    A line `number value=...` of the level info, also in the run's log.
    """

    def process(self, ctx: Context, number: Input[IntMsg]) -> None:
        ctx.log.info("number", value=number.value)


class BoolSource(Task):
    """True, once a cycle.

    A source that ends after `limit` messages. The time of a message is its cycle's.
    """

    class Config(TaskConfig):
        limit: NonNegativeInt | None = None
        """How many messages to publish; null goes on for ever."""

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._made = 0

    def process(self, ctx: Context, out: Output[BoolMsg]) -> None:
        if self._made != self.config.limit:
            out.value = True
            out.publish()
            self._made += 1
        if self._made == self.config.limit:
            ctx.finish()

    def freeze(self) -> Any:
        return {"made": self._made}

    def thaw(self, state: Any) -> None:
        self._made = state["made"]


class PassBool(Task):
    """What comes in goes out.

    With the time that it had: a step of a pipeline that costs nothing, to measure what a step costs.
    """

    def process(self, ctx: Context, value: Input[BoolMsg], out: Output[BoolMsg]) -> None:
        del ctx
        out.value = value.value
        out.publish(tov_ns=value.tov_ns)


class BoolSink(Task):
    """Takes what comes, and does nothing with it.

    The end of a pipeline that is to be measured.
    """

    def process(self, ctx: Context, value: Input[BoolMsg]) -> None:
        del ctx, value
