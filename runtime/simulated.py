"""Whether this process simulates: its time is then moved by hand, also that which tasks read.

`flowrun simulate` runs its seeds within `simulating`. What would depend on how fast threads are must
wait there, so that the same seed gives the same bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import SupportsIndex

__all__ = ["is_simulated", "simulating"]

_NAMES = ("time", "monotonic", "perf_counter")
_now: list[Callable[[], int]] = []
"""The time of the simulations that are under way, the last one in force."""


def is_simulated() -> bool:
    """Whether the time is moved by hand: who waits for another thread then waits as long as it takes."""
    return bool(_now)


@contextmanager
def simulating(now_ns: Callable[[], int]) -> Iterator[None]:
    """Within, all functions of `time` that say what time it is give that of `now_ns`, on all threads,
    and `time.sleep` returns at once on this one.

    Modules that hold the functions themselves (`from time import monotonic`), such as `threading`, go by
    the real time; so does `datetime.now`.
    """
    sleep, own = time.sleep, threading.get_ident()
    before = {name: getattr(time, name) for it in _NAMES for name in (it, f"{it}_ns")}

    def rest(seconds: float | SupportsIndex) -> None:
        if threading.get_ident() != own:
            sleep(seconds)

    _now.append(now_ns)
    try:
        time.sleep = rest
        for name in _NAMES:
            setattr(time, name, lambda: now_ns() / 1e9)
            setattr(time, f"{name}_ns", now_ns)
        yield
    finally:
        _now.pop()
        time.sleep = sleep
        for name, function in before.items():
            setattr(time, name, function)
