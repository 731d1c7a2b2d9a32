"""The files that a run consists of, by name, and the lock that its writer holds."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "LOCK_NAME",
    "ahead_path",
    "begun_path",
    "is_ahead",
    "is_begun",
    "is_locked",
    "locked",
    "remove_lock",
    "slab_files",
    "slab_number",
    "slab_path",
    "take_lock",
]

LOCK_NAME = ".lock"
_LOCK = struct.Struct("@hhqqi4x")
"""`struct flock`: type, whence, start, length, process."""
_WHOLE_FILE = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_BEGUN, _AHEAD = ".mcap", ".next"
_SLAB_NAME = re.compile(rf"log_(\d{{4,}})({re.escape(_BEGUN)}|{re.escape(_AHEAD)})")


def slab_path(directory: Path, number: int) -> Path:
    """The slab of that number, once it is begun."""
    return directory / f"log_{number:04}{_BEGUN}"


def ahead_path(begun: Path) -> Path:
    """The slab's name while it is made and not begun."""
    return begun.with_suffix(_AHEAD)


def begun_path(ahead: Path) -> Path:
    return ahead.with_suffix(_BEGUN)


def slab_number(path: Path) -> int:
    """The slab's place in its run; 0 for a file that has no name of a slab."""
    match = _SLAB_NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def is_begun(path: Path) -> bool:
    match = _SLAB_NAME.fullmatch(path.name)
    return match is not None and match[2] == _BEGUN


def is_ahead(path: Path) -> bool:
    match = _SLAB_NAME.fullmatch(path.name)
    return match is not None and match[2] == _AHEAD


def slab_files(directory: Path) -> list[Path]:
    """The slabs in `directory`, begun or not, in order. `OSError` if it cannot be read."""
    return sorted(
        (path for path in directory.iterdir() if is_begun(path) or is_ahead(path)), key=slab_number
    )


def take_lock(directory: Path, *, create: bool = True) -> int | None:
    """The descriptor of the run's lock, which is held until it is closed; None if somebody else
    holds it. `OSError` if the file cannot be opened."""
    flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    while True:
        descriptor = os.open(directory / LOCK_NAME, flags, 0o644)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)
            is_removed = os.fstat(descriptor).st_nlink == 0
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise
        if not is_removed:
            return descriptor
        os.close(descriptor)  # its holder has removed it meanwhile


@contextmanager
def locked(directory: Path, *, create: bool = True) -> Iterator[bool]:
    """Whether nobody writes the run; nobody can within. `OSError` as `take_lock`.

    create: make the lock where there is none; else a run without one counts as not written, as a
        copy has none, and a writer would have made it.
    """
    try:
        descriptor = take_lock(directory, create=create)
    except FileNotFoundError:
        if create:
            raise
        yield True
        return
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_locked(directory: Path) -> bool:
    """Whether a process holds the run's lock, as its writer does to its end. Only asks: a lock, held
    for a moment, would keep somebody else from taking it. `OSError` if it cannot be known."""
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False  # a copy, or a run that was moved
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    finally:
        os.close(descriptor)
    return bool(_LOCK.unpack(found)[0] != fcntl.F_UNLCK)


def remove_lock(directory: Path) -> None:
    (directory / LOCK_NAME).unlink(missing_ok=True)
