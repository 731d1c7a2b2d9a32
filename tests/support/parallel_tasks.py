"""Tasks for the tests of `executor: parallel`."""

from __future__ import annotations

import threading
from typing import ClassVar

from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig


class Meets(Task):
    """Passes a number on when others are in their `process` too."""

    barrier: ClassVar[threading.Barrier]

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        Meets.barrier.wait(30)
        out.value = number.value
        out.publish()


class Steps(Task):
    """Passes a number on, and notes in `began` that it has begun.

    at: the number at which it raises.
    after: the id of a task that has to begin with the same number before.
    """

    class Config(TaskConfig):
        at: int | None = None
        after: str | None = None

    config: Config
    began: ClassVar[list[tuple[str, int]]]
    changed: ClassVar[threading.Condition]

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        with Steps.changed:
            Steps.began.append((ctx.task_id, number.value))
            Steps.changed.notify_all()
            if self.config.after is not None:
                other = self.config.after, number.value
                assert Steps.changed.wait_for(lambda: other in Steps.began, 30)
        if number.value == self.config.at:
            raise ValueError(f"{ctx.task_id} refuses {number.value}")
        out.value = number.value
        out.publish()
