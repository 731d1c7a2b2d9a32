"""On which cores a thread runs, and how readily it lets others run. Of Linux only: elsewhere the system
settles that for a whole process, or not at all.

Threads that a thread starts afterwards inherit both.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from flowrun.runtime.wording import listed

__all__ = ["refused_affinity", "refused_nice", "settle", "settled"]


def settle(affinity: Collection[int] | None, nice: int | None) -> None:
    """Settle it for the calling thread; None leaves it as it is. `OSError` where the system refuses.

    affinity: numbers of cores.
    nice: from -20 to 19; the higher, the more the thread lets others run.
    """
    if affinity is not None:
        os.sched_setaffinity(0, affinity)
    if nice is not None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


@contextmanager
def settled(affinity: Collection[int] | None, nice: int | None) -> Iterator[None]:
    """`settle` while the context is open. Niceness stays where the process may not take it back."""
    if affinity is None and nice is None:
        yield
        return
    cores = os.sched_getaffinity(0)
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    settle(affinity, nice)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            settle(cores, None)
            settle(None, before)


def refused_affinity(affinity: Collection[int]) -> str | None:
    """Why `settle` would refuse these cores, for an error text; None if it would not."""
    if sys.platform != "linux":
        return "threads are bound to cores on Linux only; leave it out"
    allowed = sorted(os.sched_getaffinity(0))
    lacking = [str(core) for core in affinity if core not in allowed]
    if lacking:
        return f"this process may not use core {listed(lacking)}; its cores: {_ranges(allowed)}"
    return _tried(affinity, None)


def refused_nice(nice: int) -> str | None:
    """Why `settle` would refuse this niceness, for an error text; None if it would not."""
    if sys.platform != "linux":
        return "a niceness for single threads is of Linux only; leave it out"
    why = _tried(None, nice)
    if why is None:
        return None
    now = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    return (
        f"the system refuses {nice}: {why}; from {now} to 19 is always allowed, less with "
        "CAP_SYS_NICE or a higher limit (ulimit -e)"
    )


def _tried(affinity: Collection[int] | None, nice: int | None) -> str | None:
    """What the system says, on a thread that ends with the attempt."""
    said: list[str] = []

    def attempt() -> None:
        try:
            settle(affinity, nice)
        except OSError as error:
            said.append(error.strerror or str(error))

    thread = threading.Thread(target=attempt, name="flowrun-attempt")
    thread.start()
    thread.join()
    return said[0] if said else None


def _ranges(numbers: list[int]) -> str:
    """`0-3, 6` of sorted numbers."""
    parts: list[tuple[int, int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1] = parts[-1][0], number
        else:
            parts.append((number, number))
    return listed(str(first) if first == last else f"{first}-{last}" for first, last in parts)
