"""One instance per key and process, however many tasks ask for it: several cameras, one model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Shared"]

T = TypeVar("T")


@dataclass(slots=True)
class _Entry(Generic[T]):
    making: threading.Lock = field(default_factory=threading.Lock)
    value: T | None = None
    users: int = 0


class Shared(Generic[T]):
    """Things that are dear to make. end: called when the last user has released one."""

    def __init__(self, end: Callable[[T], None] = lambda _: None) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._entries: dict[Hashable, _Entry[T]] = {}

    def acquire(self, key: Hashable, make: Callable[[], T]) -> T:
        """The one thing of `key`; the first who asks makes it, others wait. `release` gives it
        back. What `make` raises comes out, and the next who asks tries again."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
        try:
            with entry.making:
                if entry.value is None:
                    entry.value = make()
                return entry.value
        except BaseException:
            self.release(key)
            raise

    def release(self, key: Hashable) -> None:
        """The caller no longer uses the thing of `key`."""
        with self._lock:
            entry = self._entries[key]
            entry.users -= 1
            if entry.users:
                return
            del self._entries[key]
        if entry.value is not None:
            self._end(entry.value)
