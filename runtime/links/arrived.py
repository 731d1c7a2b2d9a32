"""What has come of one sender: in order, for the cycles to take, or early, before what is to come first.

Its size is bounded; what does not fit stays in the sender's log. It has no lock: `Receiver` holds one
around each call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.links.wire import CYCLE, Carried, Head, Stream, WireError, unpacked

__all__ = ["Arrived", "Gap", "Taken"]

_MOST_READY = 1024
_MOST_BYTES = 64 << 20
"""Number and bytes of messages that may wait to be taken; the same again of those that are early."""


class Gap(NamedTuple):
    """Cycles that never come: those of run `run` from `first` to `last`, -1: to its end. after: where
    the sender goes on."""

    run: int
    first: int
    last: int
    reason: str
    after: Cursor


class Taken(NamedTuple):
    """One of the sender's cycles. messages: what is shown of it; those of a context are only decoded."""

    head: Head
    messages: Sequence[Carried]
    payload: bytes


class Arrived:
    """The messages of one sender.

    streams: what comes, in the order of both sides. cursor: the first cycle that has not come.
    on_damage: called with why a message cannot be read.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        cursor: Cursor,
        on_damage: Callable[[Head, WireError], None],
    ) -> None:
        self._streams, self._on_damage = streams, on_damage
        self.cursor = cursor
        self.ready: deque[Taken | Gap] = deque()
        self._ready_bytes = 0
        self._early: dict[Cursor, tuple[Head, bytes]] = {}
        """By the first cycle that they stand for, those that came before others."""
        self._early_bytes = 0
        self.needs_context = any(it.is_picture for it in streams) and cursor.cycle > 0
        """Whether pictures before the cursor must come first, for those after it to be decoded."""
        self.is_behind = True
        """Whether the sender's log has something that is wanted, as far as is known."""

    @property
    def has_early(self) -> bool:
        return bool(self._early)

    @property
    def has_room(self) -> bool:
        """Whether there is room for an answer of the sender's log."""
        return len(self.ready) < _MOST_READY // 2 and self._ready_bytes < _MOST_BYTES // 2

    def take(self) -> Taken | Gap:
        """The next one, which is no longer there afterwards."""
        item = self.ready.popleft()
        if isinstance(item, Taken):
            self._ready_bytes -= len(item.payload)
        return item

    def offer(self, head: Head, payload: bytes, *, repaired: bool = False) -> bool:
        """Take a message if it is the next one; keep it if it is early. Whether it was taken.

        repaired: whether it comes from the sender's log.
        """
        if head.run == self.cursor.run and head.cycle < self.cursor.cycle:
            return False
        is_next = head.run == self.cursor.run and head.first <= self.cursor.cycle
        if is_next and (repaired or not self.needs_context):
            if not self.append(head, payload):
                self.is_behind = True
                return False
            self.take_early()
            return True
        self.is_behind = True
        start = Cursor(head.run, head.first)
        fits = len(self._early) < _MOST_READY and self._early_bytes < _MOST_BYTES
        if fits and start not in self._early:
            self._early[start] = head, payload
            self._early_bytes += len(payload)
        return False

    def append(self, head: Head, payload: bytes) -> bool:
        """Take a message. False if there is no room for it, or it cannot be read."""
        if len(self.ready) >= _MOST_READY or (
            self.ready and self._ready_bytes + len(payload) > _MOST_BYTES
        ):
            return False
        try:
            messages = unpacked(payload, self._streams)
        except WireError as error:
            self._on_damage(head, error)
            return False
        self.ready.append(Taken(head, messages, payload))
        self._ready_bytes += len(payload)
        if head.kind == CYCLE:
            self.cursor = Cursor(head.run, head.cycle + 1)
        return True

    def take_early(self) -> None:
        """Take what came early and is next now."""
        while self._early:
            usable = [
                start
                for start, (head, _) in self._early.items()
                if start.run == self.cursor.run
                and (start.cycle <= self.cursor.cycle or head.cycle < self.cursor.cycle)
            ]
            if not usable:
                return
            for start in sorted(usable):
                head, payload = self._early.pop(start)
                self._early_bytes -= len(payload)
                if head.cycle >= self.cursor.cycle and not self.append(head, payload):
                    self.is_behind = True
                    return

    def miss(self, last: int, reason: str, after: Cursor) -> None:
        """Cycles from the cursor to `last` never come; the sender goes on at `after`."""
        self.ready.append(Gap(self.cursor.run, self.cursor.cycle, last, reason, after))
        self.cursor = after

    def go_to_run(self, after: Cursor) -> None:
        """Another run of the sender is next."""
        self.cursor = after
        self.is_behind, self.needs_context = True, False
        self._early = {at: it for at, it in self._early.items() if at.run == after.run}
        self._early_bytes = sum(len(payload) for _, payload in self._early.values())
        self.take_early()
