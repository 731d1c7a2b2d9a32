"""How other threads wake one that waits."""

from __future__ import annotations

import threading

__all__ = ["Wakeup"]


class Wakeup:
    """Whether something has come, for one thread that waits for it; any thread sets it.

    As `threading.Event`, which takes 50 us longer to wake a thread that has slept: its lines of Python
    are no longer in the CPU's cache by then. Here one lock does everything: it is held while nothing
    has come.
    """

    def __init__(self) -> None:
        self._nothing = threading.Lock()
        self._nothing.acquire()

    def set(self) -> None:
        """Wake the thread, or keep it from falling asleep."""
        if self._nothing.locked():
            try:
                self._nothing.release()
            except RuntimeError:
                return  # another thread was quicker

    def is_set(self) -> bool:
        """Whether something has come since it was last cleared, or waited for."""
        return not self._nothing.locked()

    def clear(self) -> None:
        """Nothing has come."""
        self._nothing.acquire(blocking=False)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until it is set, and clear it; False if it is not within `timeout_s`."""
        return self._nothing.acquire(timeout=timeout_s)
