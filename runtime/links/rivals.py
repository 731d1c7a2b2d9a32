"""Two processes that run as the same instance of a partition, by mistake: each would take what is meant
for the other, or send as the other.

Those of one log directory exclude each other by a lock. Others are found by what they say: a process
that is heard of while a later one has been at work for a while was not followed by it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from flowrun.runtime.errors import UsageError
from flowrun.runtime.links.wire import Peer

__all__ = ["Rival", "Rivals", "only_one"]

_OVERLAP_NS = 2_000_000_000
"""How long what a process sent before it was killed may come after what the next one sends."""
_ALIVE_NS = 5_000_000_000
"""How long ago a process was heard of that is alive."""
_MOST = 8
"""Processes that are remembered."""


class Rival(NamedTuple):
    """Two runs at work as one: by when they began, nanoseconds since 1970 UTC. later: that which was
    heard of later."""

    earlier: int
    later: int


class Rivals:
    """What is heard of the processes that speak as one peer."""

    def __init__(self) -> None:
        self._heard: dict[int, tuple[int, int]] = {}
        """By run, when it was heard of first and last, in the order of the first."""

    def hear(self, run: int, now_ns: int) -> Rival | None:
        """A run said something; with which one it is at work at once, None if with none."""
        first_ns, _ = self._heard.get(run, (now_ns, now_ns))
        self._heard[run] = first_ns, now_ns
        if len(self._heard) > _MOST:
            del self._heard[next(iter(self._heard))]
        for other, (other_first_ns, other_last_ns) in self._heard.items():
            is_later = other != run and other_first_ns >= first_ns
            overlaps = now_ns - other_first_ns >= _OVERLAP_NS
            if is_later and overlaps and now_ns - other_last_ns < _ALIVE_NS:
                return Rival(run, other)
        return None

    def is_alive(self, run: int, now_ns: int, *, within_ns: int = _ALIVE_NS) -> bool:
        """Whether a run was heard of within the last `within_ns`."""
        return run in self._heard and now_ns - self._heard[run][1] < within_ns


@contextmanager
def only_one(directory: Path, graph: str, peer: Peer) -> Iterator[None]:
    """Keep any other process from running as `peer` with its logs in `directory`. `UsageError` where
    one does. Ends with the process, however that ends."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a file system that knows no locks, or is read-only
            descriptor = _opened(directory / f".{graph}-{peer.partition}-{peer.instance}.running")
            stack.callback(os.close, descriptor)
            try:
                # Not OFD: a child that a task forks would hold it after the process was killed.
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                raise UsageError(
                    f"process {holder or '?'} runs as {peer} already, with its logs in {directory}: two "
                    "would take the same messages; end it first"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
