"""The clocks of a run, and when a rate is due.

No other module of the runtime reads a clock, except the command line and the warden of child processes,
which is a program of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

__all__ = ["Clock", "LiveClock", "ManualClock", "monotonic_s", "next_due", "ticks_ns"]

ticks_ns = time.perf_counter_ns
"""Monotonic nanoseconds, for durations: the step table holds them."""

monotonic_s = time.monotonic
"""Monotonic seconds, to wait for clients and child processes."""


_boot_ns: Callable[[], int] = (
    partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else ticks_ns
)
_SUSPENDED_NS = 1_000_000
"""By how much two clocks must have parted for the machine to have been suspended in between."""


class Clock(Protocol):
    """Nanoseconds since 1970 UTC; never goes back."""

    def now_ns(self) -> int:
        """The time now."""
        ...

    @property
    def at(self) -> Callable[[int], int]:
        """Converts a reading of `ticks_ns`, made just now, to the time: one reading serves as both."""
        ...

    def refreshed_at(self) -> Callable[[int], int]:
        """`at` as it is from now on: the machine may have been suspended since it was last asked for."""
        ...


class LiveClock:
    """The real time. It is a clock that nobody sets plus an offset taken once, so that it does not jump
    when the system's clock is set during a run; only a machine that was suspended has lost no time.

    boot_ns: the clock that nobody sets, which goes on while the machine is suspended. `ticks_ns` may
        stop then.
    """

    def __init__(self, boot_ns: Callable[[], int] = _boot_ns) -> None:
        self._boot_ns = boot_ns
        self._offset_ns = time.time_ns() - boot_ns()
        self._ahead_ns = boot_ns() - ticks_ns()
        self.at: Callable[[int], int] = (self._offset_ns + self._ahead_ns).__add__

    def now_ns(self) -> int:
        return self._boot_ns() + self._offset_ns

    def refreshed_at(self) -> Callable[[int], int]:
        ahead_ns = self._boot_ns() - ticks_ns()
        if ahead_ns - self._ahead_ns > _SUSPENDED_NS:
            self._ahead_ns = ahead_ns
            self.at = (self._offset_ns + ahead_ns).__add__
        return self.at


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

    def refreshed_at(self) -> Callable[[int], int]:
        return self.at

    def advance_to(self, time_ns: int) -> None:
        """Move forward to `time_ns`; never back."""
        self.time_ns = max(self.time_ns, time_ns)


def next_due(due_ns: int, now_ns: int, period_ns: int) -> int:
    """The first point after `now_ns` on the grid of `due_ns` and `period_ns`. A late cycle does not
    delay the following ones, and missed ones are not made up for in a burst."""
    return due_ns + period_ns * ((now_ns - due_ns) // period_ns + 1)
