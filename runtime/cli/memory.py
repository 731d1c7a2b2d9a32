"""How the C library keeps memory, in a process that makes pictures and does little else."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_MIB = 1 << 20
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
"""glibc's numbers in malloc.h."""
_SETTINGS = {
    _TRIM_THRESHOLD: 128 * _MIB,
    _TOP_PAD: 16 * _MIB,
    _MMAP_THRESHOLD: 32 * _MIB,  # the most that it takes
    _ARENA_MAX: 1,
}


def keep_freed_memory() -> None:
    """Have freed memory used again, rather than given back to the system: a camera's picture has
    megabytes, and each paid for new pages, with 1 ms of the 6 ms that a 1080p picture costs. With one
    arena for all threads, what one has freed serves the others.

    Nothing happens where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    for setting, value in _SETTINGS.items():
        mallopt(setting, value)
