"""The log of a run that goes on, read by what shows it: until there is enough of it to begin."""

from __future__ import annotations

import threading

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.log.reader import Log

__all__ = ["POLL_S", "newest_cycle", "settled"]

POLL_S = 0.03
"""Seconds from one look at the log to the next."""
_SETTLING_S = 5.0
"""Seconds that a run has to show the first picture of each topic."""
_LOOK_BACK = 300
"""Cycles by which is decided in which form pictures are sent."""


def settled(log: Log, ended: threading.Event) -> int:
    """Wait until each topic of pictures has one, but not for long, and not once `ended` is set; returns
    the cycle from which on there is enough to go by."""
    until_s = monotonic_s() + _SETTLING_S
    while not _has_all_pictures(log) and monotonic_s() < until_s and not ended.wait(POLL_S):
        log.refresh()
    return max(0, newest_cycle(log) - _LOOK_BACK)


def newest_cycle(log: Log) -> int:
    """The number of the newest cycle; 0 without one."""
    end_ns = log.end_ns
    if end_ns is None:
        return 0
    return max((it.cycle for it in log.cycles(start_ns=end_ns)), default=0)


def _has_all_pictures(log: Log) -> bool:
    if log.start_ns is None:
        return False
    first = max(0, newest_cycle(log) - _LOOK_BACK)
    wanted = {name for name, topic in log.topics.items() if topic.is_picture}
    return not wanted or {message.topic for message in log.messages(wanted, first)} == wanted
