"""How a live run waits: for its sources, and for the pace that the graph asks for."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from flowrun.runtime.clock import Clock, ManualClock
from flowrun.runtime.engine.outside import LiveOutside
from flowrun.runtime.engine.rates import Rate
from flowrun.runtime.task import CycleTime

__all__ = ["IDLE_POLL_NS", "Waiting"]

IDLE_POLL_NS = 10_000_000
"""Interval at which a source that called neither `wake` nor `wake_at` is asked again."""


_LONGEST_WAIT_S = 1.0
"""Seconds after which a wait looks at the clock again: the machine may have been suspended."""


class Waiting:
    """Waits for sources and for the graph's pace.

    clock: measures the waits; a `ManualClock` moves to the next moment instead.
    outside: knows which source is due, and when something has come.
    rated: the rate of each source that has one, by id.
    rate_hz: the graph's most cycles a second; None for no limit.
    """

    def __init__(
        self,
        clock: Clock,
        outside: LiveOutside,
        *,
        rated: Mapping[str, Rate],
        rate_hz: float | None,
    ) -> None:
        self._clock = clock
        self._outside = outside
        self._rated = rated
        self._pace = None if rate_hz is None else Rate(every=1, rate_hz=rate_hz)
        self._stopped = threading.Event()

    @property
    def is_paced(self) -> bool:
        """Whether the graph has a `rate_hz`."""
        return self._pace is not None

    def stop(self) -> None:
        """End the wait that is under way, and all later ones."""
        self._stopped.set()
        self._outside.woken.set()

    def for_pace(self) -> None:
        """Wait until the graph's `rate_hz` admits another cycle."""
        due_ns = None if self._pace is None else self._pace.due_ns
        if due_ns is None:
            return
        if isinstance(self._clock, ManualClock):
            self._clock.advance_to(due_ns)
        while (wait_ns := due_ns - self._clock.now_ns()) > 0 and not self._stopped.is_set():
            self._stopped.wait(min(wait_ns / 1e9, _LONGEST_WAIT_S))

    def count(self, time: CycleTime) -> None:
        """Count a cycle for the pace."""
        if self._pace is not None:
            self._pace.admits(time)

    def for_sources(self, now_ns: int) -> None:
        """Wait until something has come, a source is due, or it is time to ask the sources again.

        now_ns: when the sources were asked last.
        """
        outside, clock = self._outside, self._clock
        for task_id, rate in self._rated.items():
            if rate.due_ns is not None and outside.sources[task_id].gate.present:
                outside.due.not_before(task_id, rate.due_ns)
        due = outside.due.first()
        if isinstance(clock, ManualClock):
            if due is None:
                outside.woken.wait(IDLE_POLL_NS / 1e9)
                return
            clock.advance_to(due)
            outside.due.forget_until(due)
            return
        until = now_ns + IDLE_POLL_NS if due is None else min(due, now_ns + IDLE_POLL_NS)
        wait_ns = until - clock.now_ns()
        if wait_ns > 0:
            outside.woken.wait(wait_ns / 1e9)
        if due is not None:
            outside.due.forget_until(clock.now_ns())

    def after_source_error(self) -> None:
        """Wait a moment: a source that fails at once may do so forever."""
        if not isinstance(self._clock, ManualClock):
            self._stopped.wait(IDLE_POLL_NS / 1e9)
