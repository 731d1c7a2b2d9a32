"""Memory of pictures, used again for later ones of the same size.

Planes and pixels come and go between a decoder's own pictures. In the C library's heap they leave holes
that none of the next ones fits: at 1080p as much as all pictures that are in use. New pages from the
system for each would cost a sixth of what the picture costs.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import threading
import time
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

__all__ = ["give_back_freed", "new_array"]

_LEAST, _MOST = 1 << 18, 1 << 25
"""Bytes of arrays whose memory is kept for others."""
_MOST_SIZES, _MOST_OF_SIZE = 8, 16
_free: dict[int, deque[mmap.mmap]] = {}
"""By size, that of arrays that nobody refers to any more: those of many cameras come and go by the
dozen. A deque's methods are atomic: an array may end on any thread, and within any call."""
_adding = threading.Lock()
"""Held while `_free` gets a size."""
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
"""Not shared with processes that are forked."""
_PAUSE_S = 0.2
_gave_back_s = 0.0
"""When memory was given back last, by `time.monotonic`."""


def new_array(*shape: int) -> NDArray[np.uint8]:
    """An array of undefined contents."""
    size = math.prod(shape)
    if not _LEAST <= size <= _MOST:
        return np.empty(shape, np.uint8)
    free = _free.get(size)
    if free is None:
        free = _free_of(size)
    try:
        memory = free.pop()  # what was freed last is still in the caches
    except IndexError:
        memory = mmap.mmap(-1, size, **_PRIVATE)
    # The base of all arrays and buffers that show the memory.
    owner = np.frombuffer(memory, np.uint8)
    lent = _Lent(owner, _take_back)
    lent.memory, lent.free = memory, free
    _lent[id(lent)] = lent
    return owner.reshape(shape)


class _Lent(weakref.ref[NDArray[np.uint8]]):
    """That memory is in use. As `weakref.finalize`, which takes five times as long."""

    __slots__ = ("free", "memory")
    memory: mmap.mmap
    free: deque[mmap.mmap]


_lent: dict[int, _Lent] = {}
"""By their ids."""


def _take_back(lent: weakref.ref[NDArray[np.uint8]]) -> None:
    found = _lent.pop(id(lent))
    found.free.append(found.memory)


def _free_of(size: int) -> deque[mmap.mmap]:
    with _adding:
        if size not in _free:
            if len(_free) >= _MOST_SIZES:
                del _free[next(iter(_free))]
            _free[size] = deque(maxlen=_MOST_OF_SIZE)
        return _free[size]


def give_back_freed() -> None:
    """Give the pages that the C library keeps, and nobody uses, to the system: when a decoder has gone,
    whose pictures lay between others. It takes milliseconds, and is done a few times a second at most.
    Nothing happens where the C library is not glibc."""
    global _gave_back_s  # noqa: PLW0603  # of the process, as its memory is
    if time.monotonic() - _gave_back_s < _PAUSE_S:
        return
    _gave_back_s = time.monotonic()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
