"""How often a model may be asked: a budget of questions, and of slow answers.

All that decides is the cycles' time and what was asked before, so a replay leaves out the same frames;
but latencies are none of a replay's own: where they decide, it takes the answers from the log.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from pydantic import PositiveFloat, PositiveInt, model_validator

from flowrun.runtime.task import Context, TaskConfig

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["Budget", "Spending", "is_timed"]

_HOUR_NS = 3_600_000_000_000
_FIRST_REST_NS = 1_000_000_000
_LONGEST_REST_NS = 60_000_000_000
_WINDOW = 100
PER_HOUR = "hourly budget"
"""The cause of frames that are left out because enough were asked about in the last hour."""
SLOW = "latency budget"
"""That of frames while a model rests whose answers take too long."""


class Budget(TaskConfig):
    """How often a model may be asked. A task that is restarted after an error begins with all of it."""

    per_hour: PositiveInt | None = None
    """The most questions in any hour; frames beyond it are left out."""
    p99_ms: PositiveFloat | None = None
    """How long 99 of 100 answers may take. If more take longer, frames are left out: for 1 s, and twice
    as long after each slow answer in a row, up to a minute. A replay then takes the answers from the
    log."""

    @model_validator(mode="after")
    def _says_something(self) -> Budget:
        if self.per_hour is None and self.p99_ms is None:
            raise ValueError("a budget has per_hour, p99_ms, or both")
        return self


def is_timed(budget: Budget | None) -> bool:
    """Whether latencies decide what is left out, which are none of a replay's own."""
    return budget is not None and budget.p99_ms is not None


class Spending:
    """What of a budget is spent. None is a budget without an end."""

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget
        self._asked_ns: deque[int] = deque()
        """Of the last hour."""
        self._slow: deque[bool] = deque(maxlen=_WINDOW)
        """Of the last answers, whether they took too long."""
        self._rest_ns = _FIRST_REST_NS
        self._until_ns: int | None = None
        """Until when the model rests."""
        self._left_out: Counter[str] = Counter()
        self._first_cycle = self._last_cycle = 0

    def leaves_out(self, ctx: Context) -> bool:
        """Whether nothing may be asked about a frame of this cycle; the run keeps that, and why."""
        cause = self._cause(ctx.now_ns)
        if cause is None:
            return False
        ctx.dropped(1, cause)
        if not self._left_out:
            self._first_cycle = ctx.cycle
        self._left_out[cause] += 1
        self._last_cycle = ctx.cycle
        return True

    def _cause(self, now_ns: int) -> str | None:
        budget = self._budget
        if budget is None:
            return None
        asked = self._asked_ns
        while asked and now_ns - asked[0] >= _HOUR_NS:
            asked.popleft()
        if budget.per_hour is not None and len(asked) >= budget.per_hour:
            return PER_HOUR
        if self._until_ns is not None and now_ns < self._until_ns:
            return SLOW
        return None

    def asked(self, now_ns: int) -> None:
        """A question is asked."""
        if self._budget is not None and self._budget.per_hour is not None:
            self._asked_ns.append(now_ns)

    def answered(self, latency_ms: float, now_ns: int) -> None:
        """An answer has come. now_ns: of the cycle in which it was asked."""
        if self._budget is None or self._budget.p99_ms is None:
            return
        is_slow = latency_ms > self._budget.p99_ms
        self._slow.append(is_slow)
        if not is_slow:
            self._rest_ns, self._until_ns = _FIRST_REST_NS, None
        elif 100 * sum(self._slow) > len(self._slow):
            self._until_ns = now_ns + round(latency_ms * 1e6) + self._rest_ns
            self._rest_ns = min(2 * self._rest_ns, _LONGEST_REST_NS)

    def report_to(self, log: FilteringBoundLogger) -> None:
        """Log which frames have been left out since the last call, if any, in one line."""
        if self._left_out:
            log.info(
                "frames left out: the budget is spent",
                first_cycle=self._first_cycle,
                last_cycle=self._last_cycle,
                **{
                    f"left_out_by_{cause.replace(' ', '_')}": count
                    for cause, count in self._left_out.items()
                },
            )
            self._left_out.clear()

    def freeze(self) -> dict[str, Any]:
        """What of the budget is spent."""
        return {
            "asked_ns": list(self._asked_ns),
            "slow": list(self._slow),
            "rest_ns": self._rest_ns,
            "until_ns": self._until_ns,
        }

    def thaw(self, state: dict[str, Any]) -> None:
        """Take up what `freeze` gave."""
        self._asked_ns = deque(state["asked_ns"])
        self._slow = deque(state["slow"], maxlen=_WINDOW)
        self._rest_ns, self._until_ns = state["rest_ns"], state["until_ns"]
