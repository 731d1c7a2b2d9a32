"""What is asked of the disk under a slab. Each call may take seconds, is made without the GIL, and
raises `OSError`, where the disk did not do it. The log of a simulation need not outlive the machine: the
calls that wait for the disk do nothing there.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

from flowrun.runtime.simulated import is_simulated

__all__ = ["preallocate", "sync_directory", "sync_file", "sync_pages", "write_all", "write_zeros"]

_FALLOC_FL_KEEP_SIZE = 1
_MS_SYNC = 4
_PAGE = mmap.PAGESIZE
_ZEROS = bytes(1 << 20)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def preallocate(fd: int, size: int) -> bool:
    """Take the blocks of the first `size` bytes; the file's size stays. False where the file system
    cannot do that: blocks must then be taken by writing to them."""
    if _libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE, 0, size) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code))


def sync_pages(address: int, start: int, end: int) -> None:
    """Bring what was written from `start` to `end` of a mapping, and the file's size, to the disk.

    address: of the mapping; it stays mapped meanwhile.

    Only the pages there: those that were prepared ahead of the writer are zeros, and writing them
    would double what the disk has to take.
    """
    if is_simulated():
        return
    start &= -_PAGE
    if _libc.msync(address + start, end - start, _MS_SYNC) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def sync_file(fd: int) -> None:
    """Bring a file, and its size, to the disk."""
    if not is_simulated():
        os.fsync(fd)


def sync_directory(fd: int) -> None:
    """Bring the names in a directory to the disk."""
    if is_simulated():
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that keeps its names without being asked
            raise


def write_all(fd: int, data: bytes | memoryview, at: int) -> None:
    """Write all of `data` at offset `at`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def write_zeros(fd: int, start: int, end: int) -> None:
    """Write zeros from `start` to `end`: a full disk is then an error here, where the mapping would
    answer with SIGBUS."""
    with memoryview(_ZEROS) as zeros:
        while start < end:
            start += os.pwrite(fd, zeros[: end - start], start)
