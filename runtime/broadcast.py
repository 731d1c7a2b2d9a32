"""What a sink shows to clients outside the run, without ever waiting for them."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from flowrun.runtime.clock import monotonic_s

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Answer", "Broadcast", "PartialAnswer", "Picture", "Shows"]

Shows = Literal["picture", "answer", "partial answer"]
"""What a task offers to clients: `Picture`, `Answer` or `PartialAnswer` items."""

_WATCH_S = 3.0
"""How long after a client's last question its sink still counts as watched."""


@dataclass(slots=True)
class Picture:
    """One frame for clients, encoded when the first of them asks, and once.

    tov_ns, cycle: when the frame was taken, and the cycle in which it passed.
    encode: gives the JPEG; called at most once, on a client's thread.
    """

    tov_ns: int
    cycle: int
    encode: Callable[[], bytes]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _jpeg: bytes | None = None

    def jpeg(self) -> bytes:
        """The frame as a JPEG file."""
        with self._lock:
            if self._jpeg is None:
                self._jpeg = self.encode()
            return self._jpeg


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a model for clients; `tov_ns` and `cycle` are those of its frame."""

    tov_ns: int
    cycle: int
    prompt: str
    response: str
    backend: str
    tokens: int
    latency_ms: float


@dataclass(frozen=True, slots=True)
class PartialAnswer:
    """An answer as far as it is, while the model goes on; `tov_ns` and `cycle` are its frame's."""

    tov_ns: int
    cycle: int
    prompt: str
    text: str


class Broadcast:
    """The newest item of one sink, numbered; any number of clients wait for the next.

    The cycle only stores a reference: what a client does with it (encoding, sending) happens on the
    client's thread. Items must not change after `offer`, nor refer to the message of a slot.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._item: Any = None
        self._offered_at = 0.0
        self._watched_until = 0.0
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._closed = False

    @property
    def watched(self) -> bool:
        """Whether a client waits now or has asked lately: a sink whose items cost something skips
        them if not.
        """
        return bool(self._listeners) or monotonic_s() < self._watched_until

    @property
    def number(self) -> int:
        """Number of items offered so far."""
        return self._number

    @property
    def newest(self) -> Any:
        """The newest item, or None."""
        return self._item

    @property
    def age_s(self) -> float:
        """Seconds since the newest item was offered; infinite if there is none."""
        return monotonic_s() - self._offered_at if self._number else math.inf

    @property
    def closed(self) -> bool:
        """Whether `close` was called: no more items will come."""
        return self._closed

    def offer(self, item: Any) -> None:
        """Make `item` the newest. Never blocks for a client."""
        with self._changed:
            self._number += 1
            self._item = item
            self._offered_at = monotonic_s()
            self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener()` called after each `offer` and after `close`; the result ends that.

        It is called on the thread that offers, within its cycle: it only passes a word on, never
        blocks, never raises. One last call may still be under way when the subscription has ended.
        While there is a listener, the sink counts as watched.
        """

        # Wrapped, so that the same function may be subscribed twice and ended once.
        def entry() -> None:
            listener()

        with self._changed:
            self._listeners = (*self._listeners, entry)

        def unsubscribe() -> None:
            with self._changed:
                self._listeners = tuple(kept for kept in self._listeners if kept is not entry)

        return unsubscribe

    def watch(self) -> None:
        """A client says that it is about to ask."""
        self._watched_until = monotonic_s() + _WATCH_S

    def next(self, after: int, *, timeout_s: float) -> tuple[int, Any] | None:
        """The first item numbered above `after` (waits for it), or None after `timeout_s`."""
        with self._changed:
            self.watch()
            self._changed.wait_for(lambda: self._number > after or self._closed, timeout_s)
            self.watch()
            return (self._number, self._item) if self._number > after else None

    def close(self) -> None:
        """End the items: `next` gives None at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for listener in self._listeners:
            listener()
