"""Sources that send numbers at a pace, and what takes them."""

from __future__ import annotations

import threading
from typing import ClassVar

from flowrun.msgs import FloatMsg, IntMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig


class Paced(Task):
    """A number every `every_ms`, up to `limit`; without one until a test says that it is `enough`."""

    class Config(TaskConfig):
        limit: int | None = 20
        every_ms: int = 5

    config: Config
    enough: ClassVar[threading.Event] = threading.Event()
    """Set by `monkeypatch`, for one test."""

    def start(self, ctx: Context) -> None:
        self.next, self.due_ns = 0, 0

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        limit = self.config.limit
        if self.enough.is_set() if limit is None else self.next == limit:
            ctx.finish()
        elif ctx.now_ns >= self.due_ns:
            self.due_ns = ctx.now_ns + self.config.every_ms * 1_000_000
            number.value = self.next
            number.publish()
            self.next += 1
        ctx.wake_at(self.due_ns)


class PacedFloats(Paced):
    """As floats."""

    def process(self, ctx: Context, number: Output[FloatMsg]) -> None:
        super().process(ctx, number)


class Floats(Task):
    """Takes them."""

    def process(self, ctx: Context, number: Input[FloatMsg]) -> None:
        """Nothing comes of it."""
