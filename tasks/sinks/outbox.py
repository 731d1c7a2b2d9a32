"""What a cycle hands over, delivered by a thread, so that no cycle waits for who takes it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.errors import text_of
from flowrun.runtime.task import Context

__all__ = ["Complaints", "Outbox"]

T = TypeVar("T")

_EVERY_S = 10.0
"""Seconds in which the same complaint is only counted after it was logged."""
FULL = "queue full"
"""The cause of items that were dropped because others wait."""
AT_END = "end of the run"
"""The cause of items that waited when the time to deliver them was over."""


class Complaints:
    """Log lines about what goes wrong again and again: the first at once, then one every 10 s at most,
    with the number of times. For any thread."""

    def __init__(self, ctx: Context) -> None:
        self._log = ctx.log
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}

    def say(self, text: str, **fields: Any) -> None:
        """Log a warning. text: always the same for the same fault; what differs is in the fields."""
        now_s = monotonic_s()
        with self._lock:
            at_s, times = self._said.get(text, (None, 0))
            if at_s is not None and now_s - at_s < _EVERY_S:
                self._said[text] = at_s, times + 1
                return
            self._said[text] = now_s, 0
        if times:
            fields["times"] = times + 1
        self._log.warning(text, **fields)


class Outbox(Generic[T]):
    """Items that wait to be delivered, one after another, on a thread of its own.

    deliver: called with each item, on that thread. What it raises is raised again by the next `put`, on
        the cycle's thread, so that `on_error` decides; the item is lost, others follow. What it raises
        until then is logged.
    most: the most items that wait.
    is_newest_enough: whether an item that another takes the place of need not be counted.
    waits: asked when that many wait: whether `put` then waits for a place. If not, the item that has
        waited longest is dropped, counted and logged.
    """

    def __init__(
        self,
        ctx: Context,
        deliver: Callable[[T], None],
        *,
        most: int,
        waits: Callable[[], bool] = lambda: False,
        is_newest_enough: bool = False,
    ) -> None:
        self._is_newest_enough = is_newest_enough
        self._ctx = ctx
        self._deliver = deliver
        self._most = most
        self._waits = waits
        self._complaints = Complaints(ctx)
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._busy = False
        self._error: Exception | None = None
        self._until_s: float | None = None
        self._thread = threading.Thread(
            target=self._work, name=f"flowrun-{ctx.task_id}-outbox", daemon=True
        )
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread is still at work: after `close`, with an item that takes too long."""
        return self._thread.is_alive()

    @property
    def closing_s(self) -> float | None:
        """Seconds that are left for what waits; None while the run goes on."""
        return None if self._until_s is None else max(0.0, self._until_s - monotonic_s())

    def wait(self, timeout_s: float) -> bool:
        """For `deliver`: wait, until `close` at most; returns whether that has been called."""
        with self._changed:
            return self._changed.wait_for(lambda: self._until_s is not None, timeout_s)

    def give_back(self, item: T) -> None:
        """For `deliver`: leave the item undelivered, because the time is over."""
        with self._changed:
            self._items.appendleft(item)
            self._busy = False

    def put(self, item: T) -> None:
        """Hand over an item. Raises what `deliver` has raised since the last call."""
        dropped = False
        with self._changed:
            if len(self._items) >= self._most and self._waits():
                self._changed.wait_for(lambda: len(self._items) < self._most)
            elif len(self._items) >= self._most:
                self._items.popleft()
                dropped = True
            self._items.append(item)
            self._changed.notify_all()
        if dropped and not self._is_newest_enough:
            self._ctx.dropped(1, FULL)
            self._complaints.say("dropped: too many wait to be delivered", most=self._most)
        self._raise_error()

    def close(self, timeout_s: float) -> None:
        """Deliver what waits, for `timeout_s` at most. What is left is counted and logged. Raises what
        `deliver` has raised since the last `put`."""
        with self._changed:
            self._until_s = monotonic_s() + timeout_s
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            left = len(self._items) + self._busy
            self._items.clear()
        if left and not self._is_newest_enough:
            self._ctx.dropped(left, AT_END)
            self._ctx.log.warning(
                "not delivered before the end of the run", count=left, waited_s=timeout_s
            )
        self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.wait_for(lambda: self._items or self._until_s is not None)
                if not self._items or self.closing_s == 0:
                    return
                item = self._items.popleft()
                self._busy = True
                self._changed.notify_all()
            try:
                self._deliver(item)
            except Exception as error:  # noqa: BLE001  # raised again on the cycle's thread
                if self._error is not None:
                    said = f"{type(error).__name__}: {text_of(error)}"
                    self._complaints.say("failed again before the next cycle", error=said)
                self._error = self._error or error
