"""A `Broadcast` as an event loop sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowrun.runtime.broadcast import Broadcast, Picture, Series

__all__ = ["Feed", "LoopWakeup", "Watched"]

_T = TypeVar("_T")


class LoopWakeup:
    """Wakes any number of coroutines when something has come on another thread.

    All of them share one subscription, which exists only while somebody waits: the cycle pays for one
    wake-up of the loop per item, however many clients there are, and nothing without clients. All
    methods are for the loop's thread.

    subscribe: as `Broadcast.subscribe`.
    """

    def __init__(self, subscribe: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        self.changed = asyncio.Event()
        """Set when something comes; to be taken before looking whether it is there."""
        self.closed = False
        """Whether `close` was called."""
        self._subscribe = subscribe
        self._waiting = 0
        self._unsubscribe: Callable[[], None] | None = None
        self._wake_is_due = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Be woken within; what comes before is for the caller to look for."""
        loop = asyncio.get_running_loop()
        self._waiting += 1
        if self._unsubscribe is None:
            self._unsubscribe = self._subscribe(lambda: self._came(loop))
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._unsubscribe()
                self._unsubscribe = None

    def close(self) -> None:
        """Wake all; there is nothing to wait for any more."""
        self.closed = True
        self._wake()

    def _came(self, loop: asyncio.AbstractEventLoop) -> None:
        # On the cycle's thread. The flag may be read late, which costs a second wake-up, never one.
        if not self._wake_is_due:
            self._wake_is_due = True
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._wake_is_due = False
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Watched(Generic[_T]):
    """A series, as coroutines read it."""

    def __init__(self, series: Series[_T]) -> None:
        self.series = series
        self.wakeup = LoopWakeup(series.subscribe)

    async def after(self, number: int) -> AsyncGenerator[tuple[int, list[_T]]]:
        """What follows item `number`, as it comes: how many items are lost, and the next ones. It ends
        with the series."""
        with self.wakeup.watching():
            while True:
                changed = self.wakeup.changed
                is_over = self.series.closed or self.wakeup.closed
                lost, items = self.series.after(number)
                number += lost + len(items)
                if lost or items:
                    yield lost, items
                elif is_over:
                    return
                else:
                    await changed.wait()


class Feed:
    """Lets any number of coroutines wait for a sink's next item, with no thread for any of them. All
    methods are for the loop's thread."""

    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast
        self._wakeup = LoopWakeup(broadcast.subscribe)
        self._encoding = asyncio.Lock()
        self._encoded: tuple[Picture, bytes] | None = None

    async def next(self, after: int, *, timeout_s: float | None) -> tuple[int, Any] | None:
        """As `Broadcast.next`: the first item above `after`, or None after `timeout_s` (None: no
        limit) or when no more can come.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        with self._wakeup.watching():
            while True:
                changed = self._wakeup.changed  # taken before looking, so that no item is missed
                found = self.broadcast.next(after, timeout_s=0)
                if found is not None or self.ended:
                    return found
                try:
                    async with asyncio.timeout_at(deadline):
                        await changed.wait()
                except TimeoutError:
                    return None

    async def jpeg(self, picture: Picture) -> bytes:
        """The picture as a JPEG file, encoded on a worker thread, once for all clients."""
        async with self._encoding:
            if self._encoded is None or self._encoded[0] is not picture:
                self._encoded = (picture, await asyncio.to_thread(picture.jpeg))
            return self._encoded[1]

    @property
    def ended(self) -> bool:
        """Whether no more items will come."""
        return self._wakeup.closed or self.broadcast.closed

    def close(self) -> None:
        """End all waiting: `next` gives None from now on."""
        self._wakeup.close()
