"""What becomes of mapped memory whose file cannot give it any more: it was cut by another program, its
disk is full or fails.

The system answers an access to such a page with SIGBUS, which ends the process. Here the page, and those
that depend on it, become zeros of memory instead, and the access goes on. The region says so: the
writer and the readers of the file look there, and raise an error.

SIGBUS comes in the thread that makes the access, during it, like a call of a function; so what answers
it may be Python. It takes no lock but the GIL, which the thread has, or has let go while it holds
nothing that another waits for with the GIL. Threads of a C library are an exception: if one reads a
view of a file that is being cut, while its library waits for it and keeps the GIL, both wait for ever.

Any SIGBUS elsewhere is left to the action that was there before.
"""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import signal
import struct
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Region", "is_cut", "libc"]

_PAGE = mmap.PAGESIZE
_SIGINFO, _NODEFER = 0x4, 0x40000000
_NO_PAGE, _BROKEN_MEMORY = 2, 4
"""Codes of a SIGBUS that an access to memory caused: BUS_ADRERR and BUS_MCEERR_AR."""
_FIXED, _NORESERVE = 0x10, 0x4000
_FAILED = ctypes.c_void_p(-1).value
_IS_KNOWN = (
    sys.platform == "linux"
    and os.uname().machine in ("x86_64", "aarch64")
    and struct.calcsize("P") == 8
)
"""Whether the structures below are those of this system, with glibc and with musl. Where they are not,
SIGBUS stays what it is."""

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
]  # fmt: skip
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class _Info(ctypes.Structure):
    """The beginning of `siginfo_t`."""

    _fields_ = (
        ("number", ctypes.c_int),
        ("error", ctypes.c_int),
        ("code", ctypes.c_int),
        ("address", ctypes.c_void_p),
    )


class _Action(ctypes.Structure):
    """`struct sigaction`."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


libc.sigaction.argtypes = [ctypes.c_int, ctypes.POINTER(_Action), ctypes.POINTER(_Action)]
_REGIONS: dict[int, Region] = {}
"""By address. In the answer to a signal it is only copied, which no other thread interrupts."""
_CUT: dict[int, Region] = {}
_earlier: _Action | None = None
_installing = threading.Lock()


class Region:
    """The `size` bytes at `address` to which a file is mapped.

    whole_to: number of bytes from the front that are those of the file; after them there are zeros.
    on_loss: a method, called where that has become less; during an access to the region, so it may
        only set attributes.
    """

    def __init__(
        self,
        address: int,
        size: int,
        *,
        writable: bool,
        on_loss: Callable[[], None] | None,
    ) -> None:
        self.address = address
        self.size = self.whole_to = size
        self._writable = writable
        self._on_loss = None if on_loss is None else weakref.WeakMethod(on_loss)
        _REGIONS[address] = self
        if _IS_KNOWN:
            _install()

    @property
    def is_cut(self) -> bool:
        return self.whole_to < self.size

    def unmap(self) -> None:
        """Give the memory back."""
        del _REGIONS[self.address]  # before somebody else gets the address
        _CUT.pop(self.address, None)
        libc.munmap(self.address, self.size)

    def give_up(self, offset: int = 0) -> bool:
        """Have zeros in place of the file, from the page at `offset` on; all of a writable region, so
        that nothing more is written to the file. Whether that is possible."""
        start = 0 if self._writable else offset & -_PAGE
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED | _NORESERVE
        address = self.address + start
        if libc.mmap(address, self.size - start, protection, flags, -1, 0) == _FAILED:
            return False
        self.whole_to = min(self.whole_to, start)
        _CUT[self.address] = self
        on_loss = None if self._on_loss is None else self._on_loss()
        if on_loss is not None:
            on_loss()
        return True


def is_cut(view: memoryview) -> bool:
    """Whether a part of a view of a region reads as zeros, because its file was cut."""
    if not _CUT or not view.nbytes:
        return False
    start = np.frombuffer(view, np.uint8).ctypes.data
    return any(
        0 <= start - it.address < it.size and start - it.address + view.nbytes > it.whole_to
        for it in list(_CUT.values())
    )


def _answer(number: int, info: Any, _context: int | None) -> None:
    is_ours, code = False, 0
    try:
        code, address = info.contents.code, info.contents.address or 0
        if code in (_NO_PAGE, _BROKEN_MEMORY):
            for region in list(_REGIONS.values()):
                if 0 <= address - region.address < region.size:
                    is_ours = region.give_up(address - region.address)
    except KeyboardInterrupt:
        is_ours = True  # the access is made again
    finally:
        if not is_ours:
            # The access is made again, under the earlier action; what was sent is sent again.
            _uninstall()
            if code <= 0:
                signal.raise_signal(number)


_CALL = ctypes.CFUNCTYPE(
    None, ctypes.c_int, ctypes.POINTER(_Info), ctypes.c_void_p, use_errno=True
)(_answer)
_CALL_AT = ctypes.cast(_CALL, ctypes.c_void_p).value


def _install() -> None:
    """See to it that the system calls `_answer`; somebody may have set another action since."""
    global _earlier  # noqa: PLW0603 - there is one action in a process
    with _installing:
        found = _Action()
        libc.sigaction(signal.SIGBUS, None, found)
        if found.handler == _CALL_AT:
            return
        if _earlier is None:
            atexit.register(_uninstall)  # afterwards there is no interpreter to call
        _earlier = found
        ours = _Action(handler=_CALL_AT, flags=_SIGINFO | _NODEFER)
        libc.sigaction(signal.SIGBUS, ours, None)


def _uninstall() -> None:
    found = _Action()
    libc.sigaction(signal.SIGBUS, None, found)
    if found.handler == _CALL_AT:
        libc.sigaction(signal.SIGBUS, _earlier, None)
