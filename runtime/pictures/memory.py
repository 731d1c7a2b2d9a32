"""Memory of pictures, used again for later ones of the same size.

Planes and pixels come and go between a decoder's own pictures. In the C library's heap they leave holes
that none of the next ones fits: at 1080p as much as all pictures that are in use. New pages from the
system for each would cost a sixth of what the picture costs.
"""

from __future__ import annotations

import ctypes
import mmap
import time
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

__all__ = ["give_back_freed", "new_array"]

_LEAST, _MOST = 1 << 18, 1 << 25
"""Bytes of arrays whose memory is kept for others."""
_free: deque[mmap.mmap] = deque(maxlen=8)
"""That of arrays that nobody refers to any more; the oldest gives way. Its methods are atomic: an array
may end on any thread, and within any call."""
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
"""Not shared with processes that are forked."""
_PAUSE_S = 0.2
_gave_back_s = 0.0
"""When memory was given back last, by `time.monotonic`."""


def new_array(*shape: int) -> NDArray[np.uint8]:
    """An array of undefined contents."""
    size = int(np.prod(shape, dtype=np.int64))
    if not _LEAST <= size <= _MOST:
        return np.empty(shape, np.uint8)
    memory = _taken(size) or mmap.mmap(-1, size, **_PRIVATE)
    # The base of all arrays and buffers that show the memory.
    owner = np.frombuffer(memory, np.uint8)
    weakref.finalize(owner, _free.append, memory).atexit = False
    return owner.reshape(shape)


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


def _taken(size: int) -> mmap.mmap | None:
    for _ in range(len(_free)):
        try:
            memory = _free.popleft()
        except IndexError:  # another thread was quicker
            break
        if len(memory) == size:
            return memory
        _free.append(memory)
    return None
