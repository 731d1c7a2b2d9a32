"""When a cycle that could begin waits for more sources, so that their pictures are in one cycle.

Live sources, such as cameras, give something at a time of their own. As soon as one of them has
something, the cycle waits for those that have nothing yet, up to `runtime: {collect_timeout_ms}` - but
only for those from which something is expected by then. So one that is slow, or silent, or lost, delays
the others once, and no more until it gives something again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Arrivals", "wait_until"]


@dataclass(slots=True, eq=False)
class Arrivals:
    """When a live source has had something. Times are nanoseconds since 1970 UTC.

    waiting_ns: since when something waits for a cycle; None if nothing does.
    """

    waiting_ns: int | None = None
    _last_ns: int | None = None
    _interval_ns: int = 0
    _was_missed: bool = False
    """Whether nothing came by the time at which it was last expected."""

    def note(self, now_ns: int) -> None:
        """Something has come at `now_ns`; in the past, it has been left since. On any thread."""
        if self.waiting_ns is None:
            self.waiting_ns = now_ns
        last_ns = self._last_ns
        if last_ns is not None and now_ns <= last_ns:
            return
        if last_ns is not None:
            self._interval_ns = now_ns - last_ns
        self._last_ns = now_ns
        self._was_missed = False

    def miss(self) -> None:
        """Nothing has come though it was expected."""
        self._was_missed = True

    def is_expected(self, by_ns: int) -> bool:
        """Whether something may well come by then: one interval after what came last."""
        if self._was_missed:
            return False
        return self._last_ns is None or self._last_ns + self._interval_ns <= by_ns


def wait_until(sources: Collection[Arrivals], now_ns: int, timeout_ns: int) -> int | None:
    """Until when the cycle waits for more of the sources to have something; None if it does not."""
    waiting = [it.waiting_ns for it in sources if it.waiting_ns is not None]
    if not waiting:
        return None
    until_ns = min(waiting) + timeout_ns
    awaited = [it for it in sources if it.waiting_ns is None and it.is_expected(until_ns)]
    if awaited and now_ns < until_ns:
        return until_ns
    for source in awaited:
        source.miss()
    return None
