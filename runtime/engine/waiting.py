"""How a live run waits: for its sources, and for the pace that the graph asks for."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from flowrun.runtime.clock import Clock, ManualClock
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.outside import LiveOutside
from flowrun.runtime.engine.pairing import Arrivals, wait_until
from flowrun.runtime.engine.rates import Rate

__all__ = ["IDLE_POLL_NS", "Waiting"]

IDLE_POLL_NS = 10_000_000
"""Interval at which a source that called neither `wake` nor `wake_at` is asked again."""
_WOKEN_POLL_NS = 100_000_000
"""The same, where all sources have said that they call `wake`, or when they are due."""

_LONGEST_WAIT_S = 1.0
"""Seconds after which a wait looks at the clock again: the machine may have been suspended."""


class Waiting:
    """Waits for sources and for the graph's pace.

    clock: measures the waits; a `ManualClock` moves to the next moment instead.
    outside: knows which source is due, and when something has come.
    rated: the rate of each source that has one, by id.
    rate_hz: the graph's most cycles a second; None for no limit.
    collect_ms: how long live sources wait for each other; 0 for not at all.
    """

    def __init__(
        self,
        clock: Clock,
        outside: LiveOutside,
        *,
        rated: Mapping[str, Rate],
        rate_hz: float | None,
        collect_ms: int = 0,
    ) -> None:
        self._clock = clock
        self._outside = outside
        self._rated = rated
        self._pace = None if rate_hz is None else Rate(every=1, rate_hz=rate_hz)
        self._collect_ns = collect_ms * 1_000_000
        self._stopped = threading.Event()

    @property
    def is_paced(self) -> bool:
        """Whether the graph has a `rate_hz`."""
        return self._pace is not None

    @property
    def holds_back(self) -> bool:
        """Whether a cycle may have to wait though something has come."""
        return self.is_paced or (self._collect_ns > 0 and len(self._outside.sources) > 1)

    def stop(self) -> None:
        """End the wait that is under way, and all later ones."""
        self._stopped.set()
        self._outside.woken.set()

    def for_cycle(self) -> None:
        """Wait until the next cycle may begin, if something has come."""
        self.for_pace()
        if self._collect_ns and len(self._outside.live) > 1:
            self._for_pairs()

    def _for_pairs(self) -> None:
        """Wait for live sources that have nothing yet, if others have."""
        outside = self._outside
        live: dict[str, Arrivals] = {}
        while not self._stopped.is_set():
            outside.woken.clear()  # before looking; the cycle takes whatever has come by now
            now_ns = self._clock.now_ns()
            live = {id_: it for id_, it in outside.live.items() if self._takes_part(id_, now_ns)}
            self._forget_due(now_ns)
            until_ns = wait_until(live.values(), now_ns, self._collect_ns)
            if until_ns is None:
                break
            due_ns = outside.due.first()
            until_ns = until_ns if due_ns is None else min(until_ns, due_ns)
            if isinstance(self._clock, ManualClock):
                self._clock.advance_to(until_ns)
            else:
                outside.woken.wait((until_ns - now_ns) / 1e9)
        for arrivals in live.values():
            arrivals.waiting_ns = None

    def _takes_part(self, source: str, now_ns: int) -> bool:
        """Whether the source is called in a cycle that begins now."""
        known, rate = self._outside.sources[source], self._rated.get(source)
        is_rated_later = rate is not None and rate.due_ns is not None and rate.due_ns > now_ns
        return not (known.has_ended or is_rated_later) and known.asked == "running"

    def for_pace(self) -> None:
        """Wait until the graph's `rate_hz` admits another cycle."""
        due_ns = None if self._pace is None else self._pace.due_ns
        if due_ns is None:
            return
        if isinstance(self._clock, ManualClock):
            self._clock.advance_to(due_ns)
        while (wait_ns := due_ns - self._clock.now_ns()) > 0 and not self._stopped.is_set():
            self._stopped.wait(min(wait_ns / 1e9, _LONGEST_WAIT_S))

    @property
    def pace_ns(self) -> int | None:
        """When the graph's `rate_hz` admits another cycle; None if it does now."""
        return None if self._pace is None else self._pace.due_ns

    def count(self, time: CycleTime) -> None:
        """Count a cycle for the pace."""
        if self._pace is not None:
            self._pace.admits(time)

    def due_ns(self) -> int | None:
        """When the next source is due; None if none has said so."""
        outside = self._outside
        for task_id, rate in self._rated.items():
            if rate.due_ns is not None and outside.sources[task_id].gate.present:
                outside.due.not_before(task_id, rate.due_ns)
        return outside.due.first()

    def pass_due(self) -> None:
        """Sources that are due by now are called in the next cycle; for who moves the clock by hand."""
        self._forget_due(self._clock.now_ns())

    def for_sources(self, now_ns: int) -> None:
        """Wait until something has come, a source is due, or it is time to ask the sources again.

        now_ns: when the sources were asked last.
        """
        outside, clock = self._outside, self._clock
        due = self.due_ns()
        if isinstance(clock, ManualClock):
            if due is None:
                outside.woken.wait(IDLE_POLL_NS / 1e9)
                return
            clock.advance_to(due)
            self._forget_due(due)
            return
        until = now_ns + (IDLE_POLL_NS if self._must_ask(now_ns) else _WOKEN_POLL_NS)
        until = until if due is None else min(due, until)
        wait_ns = until - clock.now_ns()
        if wait_ns > 0:
            outside.woken.wait(wait_ns / 1e9)
        if due is not None:
            self._forget_due(clock.now_ns())

    def _must_ask(self, now_ns: int) -> bool:
        """Whether a source may have something without waking anybody."""
        outside = self._outside
        return any(
            source.gate.present
            and task_id not in outside.live
            and not outside.due.is_later(task_id, now_ns)
            for task_id, source in outside.sources.items()
        )

    def _forget_due(self, now_ns: int) -> None:
        """The sources that are due are called in the next cycle."""
        for id_, due_ns in self._outside.due.take_until(now_ns).items():
            if id_ in self._outside.live:
                self._outside.live[id_].note(due_ns)

    def after_source_error(self) -> None:
        """Wait a moment: a source that fails at once may do so forever."""
        if not isinstance(self._clock, ManualClock):
            self._stopped.wait(IDLE_POLL_NS / 1e9)
