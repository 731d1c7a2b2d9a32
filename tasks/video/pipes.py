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
    silence: why it has ended, if until `note_begun` nothing more came for as long.
    """

    def __init__(self, path: Path | None, *, timeout_s: float) -> None:
        self._interrupted = threading.Event()
        self._is_input = path is None
        self._where = "standard input" if path is None else str(path)
        self._timeout_s = timeout_s
        self._limit_s: float | None = timeout_s
        """How long is waited for what comes next."""
        self._given = 0
        self.silence: AddressError | None = None
        if path is None:
            if not _taken.acquire(blocking=False):
                raise AddressError("standard input is read by another source already; it has one")
            self._fd = os.dup(0)
        else:
            # Not to wait for a writer in `open`, where nothing ends the wait.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if not self._wait(timeout_s):
            self.close()
            raise AddressError(
                f"nobody wrote to {self._where} within timeout_s {timeout_s:g}; "
                "start the program that writes to it, or raise timeout_s",
                code="timeout",
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
        while self._wait(self._limit_s):
            try:
                data = os.read(self._fd, size)
            except BlockingIOError:
                continue
            self._given += len(data)
            return data
        if self.silence is None and not self._interrupted.is_set():
            # Not raised: FFmpeg asks again, and PyAV prints all but the last error.
            self._limit_s = 0.0
            self.silence = AddressError(
                f"{self._where} has given {self._given:,} bytes, too few to begin with, and "
                f"nothing more within timeout_s {self._timeout_s:g}; see whether the program that "
                "writes to it goes on",
                code="timeout",
            )
        return b""

    def note_begun(self) -> None:
        """Its pictures are given from now on: wait for what comes as long as it takes."""
        self._limit_s = None

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
