"""`every: n` and `rate_hz` of a task: in which of the cycles in which it could run it does.

Both depend only on the cycle's number and its time, so a replay runs the task in the same cycles.
"""

from __future__ import annotations

from flowrun.runtime.clock import next_due
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.record import Gate
from flowrun.runtime.graph.plan import Step

__all__ = ["Rate", "RatedGate", "is_rated", "rate_of"]

_NS_PER_S = 1_000_000_000


class Rate:
    """When a task may run next. There is one per task, shared by the gates of all cycle records.

    every: run only in cycles whose number is a multiple of it.
    rate_hz: the most runs per second, by the cycles' time. The grid begins at the first cycle in
        which the task could run.
    """

    __slots__ = ("_due_ns", "_every", "_period_ns")

    def __init__(self, *, every: int, rate_hz: float | None) -> None:
        self._every = every
        self._period_ns = 0 if rate_hz is None else max(1, round(_NS_PER_S / rate_hz))
        self._due_ns: int | None = None

    @property
    def due_ns(self) -> int | None:
        """When `rate_hz` admits the next run; None before the first run, and without a `rate_hz`."""
        return self._due_ns

    @due_ns.setter
    def due_ns(self, value: int | None) -> None:
        self._due_ns = value

    def would_admit(self, time: CycleTime) -> bool:
        """What `admits` would return, without counting as a run."""
        due_ns = self._due_ns
        would = self.admits(time)
        self._due_ns = due_ns
        return would

    def admits(self, time: CycleTime) -> bool:
        """Whether the task runs in this cycle. Ask once in each cycle in which it could run."""
        if time.cycle % self._every:
            return False
        if not self._period_ns:
            return True
        due_ns = time.now_ns if self._due_ns is None else self._due_ns
        if time.now_ns < due_ns:
            return False
        self._due_ns = next_due(due_ns, time.now_ns, self._period_ns)
        return True


def is_rated(step: Step) -> bool:
    """Whether the graph file gives the step's task an `every` or a `rate_hz`."""
    return step.task.spec.every > 1 or step.task.spec.rate_hz is not None


def rate_of(step: Step) -> Rate:
    return Rate(every=step.task.spec.every, rate_hz=step.task.spec.rate_hz)


class RatedGate:
    """A step's gate, open only in the cycles that the task's rate admits."""

    __slots__ = ("_inner", "_rate", "_time")

    def __init__(self, inner: Gate, rate: Rate, time: CycleTime) -> None:
        self._inner = inner
        self._rate = rate
        self._time = time

    @property
    def present(self) -> bool:
        return self._inner.present and self._rate.admits(self._time)

    def would_open(self) -> bool:
        """Whether it is open, without counting as a run."""
        return self._inner.present and self._rate.would_admit(self._time)
