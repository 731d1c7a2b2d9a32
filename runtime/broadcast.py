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
"""Seconds after a client's last question for which its sink still counts as watched."""


@dataclass(slots=True)
class Picture:
    """One frame for clients, encoded once, when the first of them asks.

    tov_ns: when the frame was taken.
    cycle: the cycle in which it was broadcast.
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
    """One answer of a model for clients; `tov_ns` and `cycle` are those of its frame, the others are
    fields of `PromptResponseMsg`."""

    tov_ns: int
    cycle: int
    prompt: str
    response: str
    truncated: bool
    reasoning: str
    backend: str
    tokens: int
    latency_ms: float


@dataclass(frozen=True, slots=True)
class PartialAnswer:
    """An answer that is still growing; `tov_ns` and `cycle` are those of its frame."""

    tov_ns: int
    cycle: int
    prompt: str
    text: str


class Broadcast:
    """The newest item of one sink, numbered. Any number of clients may wait for the next.

    The cycle only stores a reference; encoding and sending happen on the client's thread. An item must
    not change after `offer`, nor refer to the message of a slot.
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
        """Whether a client is waiting or has asked lately. If not, a sink may skip items that cost
        something."""
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
        """Call `listener()` after each `offer` and after `close`. Returns a function that ends this.

        The listener is called on the thread that offers, within its cycle: it must not block or raise,
        only wake another thread. One last call may be under way when the subscription has ended. While
        there is a listener, the sink counts as watched.
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
        """Note that a client is about to ask."""
        self._watched_until = monotonic_s() + _WATCH_S

    def next(self, after: int, *, timeout_s: float) -> tuple[int, Any] | None:
        """Wait for an item numbered above `after`; returns its number and it, or None after
        `timeout_s`."""
        with self._changed:
            self.watch()
            self._changed.wait_for(lambda: self._number > after or self._closed, timeout_s)
            self.watch()
            return (self._number, self._item) if self._number > after else None

    def close(self) -> None:
        """End the items: `next` returns None at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for listener in self._listeners:
            listener()
