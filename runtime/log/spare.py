"""File descriptors that a log keeps for itself: a process that has no more can still begin a slab."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TypeVar

from flowrun.runtime.descriptor import Descriptor

__all__ = ["SpareDescriptors"]

_T = TypeVar("_T")
_COUNT = 8


class SpareDescriptors:
    """Copies of the descriptor `of`, to be closed where others are needed and cannot be had."""

    def __init__(self, of: Descriptor) -> None:
        self._of = of
        self._held: list[Descriptor] = []
        self.fill()

    def fill(self) -> None:
        """Take those that were lent again, as far as there are any."""
        with contextlib.suppress(OSError):
            while len(self._held) < _COUNT:
                self._held.append(Descriptor(os.dup(self._of.number)))

    def lend(self, make: Callable[[], _T]) -> _T:
        """What `make` gives; where it fails for want of descriptors, one is given back and it is
        called again. Several times: another thread may be quicker to take it."""
        while True:
            try:
                return make()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._held:
                    raise
                self._held.pop().close()

    def close(self) -> None:
        """Give all back."""
        while self._held:
            self._held.pop().close()
