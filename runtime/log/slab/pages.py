"""Pages of a mapping that are there before somebody writes to them."""

from __future__ import annotations

import ctypes
import mmap
import resource
import threading

__all__ = ["PagePopulator", "page_faults"]

_MADV_POPULATE_WRITE = 23
_PAGE = mmap.PAGESIZE
_STEP = 4 << 20

_libc = ctypes.CDLL(None)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def page_faults() -> int:
    """The page faults of this thread so far, without those that wait for a disk."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


class PagePopulator:
    """Populates pages of the mapping at `address`, which stays until `stop`, on a thread of its own;
    `madvise` is called without the GIL.

    Where the kernel cannot (before 5.14), no page is ever ready. One that the file does not have any
    more is an error here, not a SIGBUS.

    ready_to: the pages from the first start that was asked for, or from what was skipped since, up
        to here are populated; those after it may not be.
    """

    def __init__(self, address: int) -> None:
        self._address = address
        self._changed = threading.Condition()
        self._done = self._wanted = 0
        self.ready_to = 0
        self._stopping = False
        self._thread: threading.Thread | None = None

    def populate(self, start: int, end: int) -> None:
        """Populate from `start` (or as far as was asked before) to `end`; returns at once."""
        with self._changed:
            self._done = max(self._done, start & -_PAGE)
            self._wanted = max(self._wanted, end & -_PAGE)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="flowrun-pages", daemon=True)
            self._thread.start()

    def populate_again(self, start: int) -> None:
        """Populate what was asked for after `start` once more."""
        with self._changed:
            self._done = min(self._done, -(-start // _PAGE) * _PAGE)
            self._changed.notify()

    def drop(self) -> None:
        """Leave out what was asked for and is not begun."""
        with self._changed:
            self._wanted = self._done

    def stop(self) -> None:
        """End the thread: the mapping is used no more. May be called again."""
        if self._thread is not None:
            with self._changed:
                self._stopping = True
                self._changed.notify()
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._done < self._wanted or self._stopping)
                if self._stopping:
                    return
                start = self._done
                size = min(_STEP, self._wanted - start)
                self._done = start + size
            if _libc.madvise(self._address + start, size, _MADV_POPULATE_WRITE) != 0:
                return
            self.ready_to = start + size
