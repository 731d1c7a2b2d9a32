"""The clocks of a run, and when a rate is due.

No other module of the runtime reads a clock, except the command line and the warden of child processes,
which is a program of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "LiveClock", "ManualClock", "monotonic_s", "next_due", "ticks_ns"]

ticks_ns = time.perf_counter_ns
"""Monotonic nanoseconds, for durations: the step table holds them."""

monotonic_s = time.monotonic
"""Monotonic seconds, to wait for clients and child processes."""


class Clock(Protocol):
    """Nanoseconds since 1970 UTC; never goes back."""

    def now_ns(self) -> int:
        """The time now."""
        ...

    @property
    def at(self) -> Callable[[int], int]:
        """Converts a reading of `ticks_ns`, made just now, to the time: one reading serves as both."""
        ...


class LiveClock:
    """The real time. It is the monotonic clock plus an offset taken once, so that it does not jump when
    the system's clock is set during a run."""

    def __init__(self) -> None:
        self.offset_ns = time.time_ns() - time.perf_counter_ns()
        self.at: Callable[[int], int] = self.offset_ns.__add__

    def now_ns(self) -> int:
        return time.perf_counter_ns() + self.offset_ns


class ManualClock:
    """A clock that moves only when it is moved, for tests.

    step_ns: how far each reading moves it; 0 to move it by hand.
    """

    def __init__(self, start_ns: int = 0, *, step_ns: int = 0) -> None:
        self.time_ns = start_ns
        self.step_ns = step_ns

    def now_ns(self) -> int:
        now = self.time_ns
        self.time_ns += self.step_ns
        return now

    def at(self, ticks: int) -> int:  # noqa: ARG002  # the time does not depend on it
        return self.now_ns()

    def advance_to(self, time_ns: int) -> None:
        """Move forward to `time_ns`; never back."""
        self.time_ns = max(self.time_ns, time_ns)


def next_due(due_ns: int, now_ns: int, period_ns: int) -> int:
    """The first point after `now_ns` on the grid of `due_ns` and `period_ns`. A late cycle does not
    delay the following ones, and missed ones are not made up for in a burst."""
    return due_ns + period_ns * ((now_ns - due_ns) // period_ns + 1)
