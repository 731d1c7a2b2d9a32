"""A file in memory, without a descriptor of its own: a run may have thousands of slabs, and a task may
close descriptors that are not its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Callable

from flowrun.runtime.log.slab.faults import Region, libc

__all__ = ["MappedFile"]

_FAILED = ctypes.c_void_p(-1).value


class MappedFile:
    """The first `size` bytes, at least one, of the open file `fd`, which may be closed afterwards.

    view: the bytes. They are mapped until it, and all that was made of it, is gone.
    region: says whether they are still those of the file.
    on_loss: see `Region`.

    `OSError` if they cannot be mapped. If the file is cut meanwhile, what is missing reads as zeros.
    """

    def __init__(
        self,
        fd: int,
        size: int,
        *,
        writable: bool = False,
        on_loss: Callable[[], None] | None = None,
    ) -> None:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = libc.mmap(None, size, protection, mmap.MAP_SHARED, fd, 0)
        if address == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self.region = Region(address, size, writable=writable, on_loss=on_loss)
        content = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(content, self.region.unmap).atexit = False
        view = memoryview(content).cast("B")
        self.view = view if writable else view.toreadonly()
