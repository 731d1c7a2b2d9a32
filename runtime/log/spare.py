"""File descriptors that a log keeps for itself: a process that has no more can still begin a slab."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TypeVar

from flowrun.runtime.log.slab.descriptor import Descriptor

__all__ = ["SpareDescriptors"]

_T = TypeVar("_T")
_COUNT = 8
_LENT_AT_ONCE = 2
"""What opening a slab takes: the file, and the mapping's own."""


class SpareDescriptors:
    """Descriptors of nothing, to be closed where others are needed and cannot be had."""

    def __init__(self) -> None:
        self._held: list[Descriptor] = []
        self.fill()

    def fill(self) -> None:
        """Take those that were lent again, as far as there are any."""
        with contextlib.suppress(OSError):
            while len(self._held) < _COUNT:
                self._held.append(Descriptor(os.open(os.devnull, os.O_RDONLY)))

    def lend(self, make: Callable[[], _T]) -> _T:
        """What `make` gives; where it fails for want of descriptors, some are given back and it is
        called again. Several times: another thread may be quicker to take them."""
        while True:
            try:
                return make()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._held:
                    raise
                for _ in range(min(_LENT_AT_ONCE, len(self._held))):
                    self._held.pop().close()

    def close(self) -> None:
        """Give all back."""
        while self._held:
            self._held.pop().close()
