"""A file descriptor that is kept as long as a run lasts."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

__all__ = ["Descriptor"]


class Descriptor:
    """A descriptor that a task's code may close, as what makes a daemon of a process closes all that it
    finds. Its number is then nobody's, or that of a file of somebody else.

    number: of a descriptor just opened; closed by `close`.
    paths: the names that the file may have, under which it is opened again.
    """

    def __init__(self, number: int, *paths: Path) -> None:
        self._number = number
        self._paths = paths
        found = os.fstat(number)
        self.identity = found.st_dev, found.st_ino
        """Device and number of the file, whatever its name is."""

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return self._is_mine(self._number)

    @property
    def number(self) -> int:
        """A descriptor of the file; it is opened again where the old one was closed. `OSError` if that
        is impossible."""
        if not self.is_open:
            self._number = self._opened()
        return self._number

    def close(self) -> None:
        """Close it, unless somebody has."""
        if self.is_open:
            os.close(self._number)

    def _opened(self) -> int:
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
                number = os.open(path, flags | os.O_NOFOLLOW)
                if self._is_mine(number):
                    return number
                os.close(number)
        if self._paths:
            raise OSError(errno.ENOENT, "its descriptor was closed, and it was removed")
        raise OSError(errno.EBADF, "its descriptor was closed")

    def _is_mine(self, number: int) -> bool:
        try:
            found = os.fstat(number)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.identity
