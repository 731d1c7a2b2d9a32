"""What is done for a log besides writing its cycles, at intervals, on threads of its own."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

__all__ = ["Periodic"]


class Periodic:
    """Calls `work`, a method, every `period_s` seconds on a thread of its own, until `stop`, until it
    returns False, or until its object is gone."""

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
        while not self._stopped.wait(self._period_s):
            work = self._work()
            if work is None or not work():
                return
            del work
