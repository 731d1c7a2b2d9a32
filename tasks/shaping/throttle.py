"""`Throttle`: fewer messages."""

from __future__ import annotations

from fractions import Fraction
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import PositiveFloat, PositiveInt, model_validator

from flowrun.msgs.message import Message
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.tasks.thinning import Thinning

__all__ = ["Throttle"]

M = TypeVar("M", bound=Message)
_NS_PER_S = 1_000_000_000


class Throttle(Task):
    """Pass on fewer messages, of any class: at most `rate_hz` a second, or every n-th.

    `rate_hz` goes by the messages' own times (`tov_ns`), not by the clock: of each 1 / `rate_hz` seconds
    the first message is passed on, the same ones in every run. A task's own `rate_hz` and `every`, which
    any task may have in the graph file, go by cycles, and leave a task out that has other inputs too;
    this is for a connection.

    The log has what it passes on once more, pictures as pixels: `logging: {payload: none}` leaves them
    out, and a replay makes them again.
    """

    class Config(TaskConfig):
        rate_hz: PositiveFloat | None = None
        """The most messages a second."""
        every: PositiveInt | None = None
        """Pass on every n-th message, the first one first."""

        @model_validator(mode="after")
        def _has_one(self) -> Throttle.Config:
            if (self.rate_hz is None) == (self.every is None):
                raise ValueError("give 'rate_hz' or 'every'")
            return self

    example_config = MappingProxyType({"rate_hz": 5})

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._thinning = Thinning(self.config.rate_hz or 1)
        self._came = 0

    def process(self, ctx: Context, message: Input[M], throttled: Output[M]) -> None:
        del ctx
        if self.config.every is not None:
            is_kept = self._came % self.config.every == 0
            self._came += 1
        else:
            is_kept = self._thinning.keeps(Fraction(message.tov_ns, _NS_PER_S))
        if is_kept:
            throttled.fill(message)
            throttled.publish(tov_ns=message.tov_ns)

    def freeze(self) -> Any:
        return {"came": self._came, "thinning": self._thinning.freeze()}

    def thaw(self, state: Any) -> None:
        self._came = state["came"]
        self._thinning.thaw(state["thinning"])
