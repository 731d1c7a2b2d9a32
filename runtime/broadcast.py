"""What a sink shows to clients outside the run, without ever waiting for them."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from flowrun.runtime.clock import monotonic_s

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Answer", "Broadcast", "Listeners", "PartialAnswer", "Picture", "Series", "Shows"]

Shows = Literal["picture", "answer", "partial answer", "video"]
"""What a task offers to clients: `Picture`, `Answer` or `PartialAnswer` items. "video" is for the
runtime to say, of cameras whose packets the log keeps."""

_T = TypeVar("_T")

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


class Listeners:
    """Functions to call when something has come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: tuple[Callable[[], None], ...] = ()

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` each time; returns a function that ends this. One last call may be under way
        then."""

        # Wrapped, so that the same function may be added twice and ended once.
        def entry() -> None:
            listener()

        with self._lock:
            self._all = (*self._all, entry)
        return partial(self._end, entry)

    def call(self) -> None:
        """Call all listeners. One that raises is not called again; the caller, such as a cycle, goes
        on."""
        for listener in self._all:
            try:
                listener()
            except Exception:  # noqa: BLE001  # whatever it is, it is not of the cycle
                self._end(listener)
                import structlog  # slow to load, and task authors' modules import this one

                structlog.get_logger("flowrun.server").exception("a client is told no more")

    def _end(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._all = tuple(kept for kept in self._all if kept is not listener)


class Series(Generic[_T]):
    """The last items of a kind, numbered from 1. Any thread may offer and read.

    most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        # Of a thread that reads lines: what is collected meanwhile may log one.
        self._lock = threading.RLock()
        self._kept: deque[_T] = deque(maxlen=most)
        self._number = 0
        self._listeners = Listeners()
        self._closed = False

    @property
    def watched(self) -> bool:
        """Whether somebody waits for items."""
        return bool(self._listeners)

    @property
    def number(self) -> int:
        """Number of items offered so far."""
        return self._number

    @property
    def closed(self) -> bool:
        """Whether `close` was called: no more items will come."""
        return self._closed

    def offer(self, item: _T) -> None:
        """Add an item. Never blocks for a reader."""
        with self._lock:
            self._number += 1
            self._kept.append(item)
        self._listeners.call()

    def after(self, number: int) -> tuple[int, list[_T]]:
        """How many items after item `number` are not kept any more, and those that are."""
        with self._lock:
            items = list(self._kept)  # at once; what follows takes as many as there were
            new = self._number - number
        lost = max(0, new - len(items))
        return lost, items[len(items) - (new - lost) :]

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """As `Broadcast.subscribe`."""
        return self._listeners.add(listener)

    def close(self) -> None:
        """No more items will come."""
        self._closed = True
        self._listeners.call()


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
        self._listeners = Listeners()
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
        self._listeners.call()

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener()` after each `offer` and after `close`. Returns a function that ends this.

        The listener is called on the thread that offers, within its cycle: it must not block, only wake
        another thread. One last call may be under way when the subscription has ended. While
        there is a listener, the sink counts as watched.
        """
        return self._listeners.add(listener)

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
        self._listeners.call()
