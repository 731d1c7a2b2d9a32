"""A file in memory, read-only, without a descriptor of its own: a run may have thousands of slabs."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

__all__ = ["map_file"]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
]  # fmt: skip
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


def map_file(fd: int, size: int) -> memoryview:
    """The first `size` bytes, at least one, of an open file, until the view, and all that was made of
    it, is gone. `fd` may be closed before: `mmap.mmap` would keep a copy of it.

    `OSError` if they cannot be mapped. The caller sees to it that the file is as long, and stays so.
    """
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    content = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(content, _libc.munmap, address, size).atexit = False
    return memoryview(content).cast("B").toreadonly()
