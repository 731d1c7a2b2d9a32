"""What is done for a log besides writing its cycles, at intervals, on threads of its own."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from flowrun.runtime.clock import monotonic_s

__all__ = ["Periodic"]


class Periodic:
    """Calls `work`, a method, on a thread of its own, until `stop`, until it returns False, or until its
    object is gone; it begins `period_s` seconds after it began before, or at once if it takes longer."""

    def __init__(self, work: Callable[[], bool], *, period_s: float, name: str) -> None:
        self._work = weakref.WeakMethod(work)
        self._period_s = period_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no more work; returns when the thread has ended. May be called again."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = self._period_s
        while not self._stopped.wait(pause_s):
            began = monotonic_s()
            work = self._work()
            if work is None or not work():
                return
            del work
            pause_s = max(0.0, self._period_s - (monotonic_s() - began))
