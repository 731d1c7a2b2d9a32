"""Tasks that do what goes wrong, for the tests of faulty runs."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import model_validator

from flowrun.msgs import IntMsg, TextMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from support import helpers
from support.helpers import GridMsg


class Bounds(Task):
    """Two live values that belong together; counts `configure`, and may fail there."""

    class Config(TaskConfig):
        lo: Live[int] = 0
        hi: Live[int] = 5
        word: Live[str] = "w"

        @model_validator(mode="after")
        def _check(self) -> Any:
            if self.lo > self.hi:
                raise ValueError("lo must not exceed hi")
            return self

    def start(self, ctx: Context) -> None:
        self.changes = 0

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        self.changes += 1
        if self.config.word == "fail":
            raise OSError("cannot configure")

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[TextMsg]) -> None:
        out.value = f"{self.config.lo}-{self.config.hi} {self.changes}"
        out.publish()


class Leaver(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        raise SystemExit(3)


class Cable(helpers.Numbers):
    """A source that raises at 3, every time it is asked for it."""

    def process(self, ctx: Context, number: Output[IntMsg]) -> None:
        self.next += 1
        if self.next == 4:
            raise OSError("the cable is out")
        number.value = self.next
        number.publish()
        if self.next == 6:
            ctx.finish()


class Reuses(Task):
    """Publishes a view of an array that it goes on writing to."""

    def start(self, ctx: Context) -> None:
        self.buffer = np.zeros(8, np.float32)

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[GridMsg]) -> None:
        self.buffer[:] = number.value
        out.grid = self.buffer.reshape(4, 2)
        out.publish()


class Holds(Task):
    gate: ClassVar[Any] = None

    def process(self, ctx: Context, grid: Input[GridMsg], out: Output[TextMsg]) -> None:
        type(self).gate()
        out.value = str(grid.grid.tolist())
        out.publish()


class Stamps(Task):
    class Config(TaskConfig):
        tov: Any

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        out.publish(tov_ns=self.config.tov)


class Object(Task):
    class Config(TaskConfig):
        password: str

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        ctx.log.warning(
            "refused",
            error=OSError(f"bad login {self.config.password}"),
            config={"password": self.config.password},
        )


class WrongType(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[TextMsg]) -> None:
        out.value = number.value  # type: ignore[assignment]
        out.publish()


class Follows(Task):
    """How far each number is from the last one. It takes for granted that none but the first is 0, and
    that no more than three are missing."""

    def start(self, ctx: Context) -> None:
        self.last = 0

    def process(self, ctx: Context, number: Input[IntMsg], step: Output[IntMsg]) -> None:
        step.value = number.value - self.last
        self.last = number.value
        if step.value > 3:
            raise ValueError(f"{step.value} steps at once")
        step.publish()
