"""What a simulated process has of its machine: a clock of its own, and a log before which it may die."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flowrun.runtime.clock import ManualClock

__all__ = ["OwnClock", "TappedLog"]


class OwnClock(ManualClock):
    """The clock of a process's machine: ahead of the simulation's by a constant. It is moved by nobody
    but the simulation."""

    def __init__(self, clock: ManualClock, ahead_ns: int) -> None:
        self._clock, self.ahead_ns = clock, ahead_ns
        self.step_ns = 0

    @property
    def time_ns(self) -> int:  # type: ignore[override]
        return self._clock.time_ns + self.ahead_ns

    def now_ns(self) -> int:
        return self.time_ns

    def advance_to(self, time_ns: int) -> None: ...


class TappedLog:
    """The log of a process, as `CycleLog`. before: called before each commit."""

    def __init__(self, log: Any, before: Callable[[], None]) -> None:
        self._log, self._before = log, before

    def check(self) -> None:
        self._log.check()

    def bind(self, messages: Sequence[Any]) -> Any:
        return self._log.bind(messages)

    def commit(self, *args: Any, **options: Any) -> None:
        self._before()
        self._log.commit(*args, **options)
