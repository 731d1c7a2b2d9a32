"""A named pipe, or standard input, as a file that FFmpeg reads once, from its beginning."""

from __future__ import annotations

import os
import select
import threading
import time
from pathlib import Path
from typing import Any

from flowrun.tasks.video.address import AddressError

__all__ = ["Pipe", "PipedContainer"]

_TURN_S = 0.2
"""How long a read waits before it looks whether it is to end."""
_taken = threading.Lock()
"""Held while standard input is read: it has one reader."""


class Pipe:
    """A readable file for `av.open`. `AddressError` if nobody writes to it within `timeout_s`.

    path: the named pipe; None for standard input.
    """

    def __init__(self, path: Path | None, *, timeout_s: float) -> None:
        self._interrupted = threading.Event()
        self._is_input = path is None
        if path is None:
            if not _taken.acquire(blocking=False):
                raise AddressError("standard input is read by another source already; it has one")
            self._fd = os.dup(0)
        else:
            # Not to wait for a writer in `open`, where nothing ends the wait.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if not self._wait(timeout_s):
            self.close()
            where = "standard input" if path is None else str(path)
            raise AddressError(
                f"nobody wrote to {where} within timeout_s {timeout_s:g}; "
                "start the program that writes to it, or raise timeout_s"
            )

    def _wait(self, timeout_s: float | None) -> bool:
        """Whether there is something to read, or an end, within `timeout_s`."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._interrupted.is_set():
            if poll.poll(_TURN_S * 1000):
                return True
            if ends_s is not None and time.monotonic() >= ends_s:
                return False
        return False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end, or after `interrupt`."""
        while self._wait(None):
            try:
                return os.read(self._fd, size)
            except BlockingIOError:
                continue
        return b""

    def interrupt(self) -> None:
        """From any thread: end the wait for bytes."""
        self._interrupted.set()

    def close(self) -> None:
        self.interrupt()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if self._is_input:
                _taken.release()


class PipedContainer:
    """A container that is read from a pipe, and closes it."""

    def __init__(self, container: Any, pipe: Pipe) -> None:
        self._container, self._pipe = container, pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def interrupt(self) -> None:
        self._pipe.interrupt()

    def close(self) -> None:
        self._container.close()
        self._pipe.close()
