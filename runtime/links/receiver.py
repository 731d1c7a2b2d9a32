"""Takes what another process sends, exactly once and in order, and asks its log for what is missing.

The cycle that the cursor wants is taken; older ones are ignored; on a newer one, when the connection
comes back and after a second of silence the sender's log is asked, from the cursor on. What has come and
nobody has taken yet is bounded: beyond that it is left where it is, in the sender's log.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flowrun.runtime.links.rivals import Rival, Rivals
from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.links.transport import Sample, Transport
from flowrun.runtime.links.wire import (
    CONTEXT,
    CYCLE,
    RIVAL,
    STATUS,
    Carried,
    Head,
    Keys,
    Peer,
    Question,
    Status,
    Stream,
    WireError,
    opened,
    pack_run,
    unpacked,
)

__all__ = ["Gap", "Receiver", "Taken"]

_SILENCE_NS = 1_000_000_000
_TIMEOUT_S = 5.0
"""Seconds that an answer may take."""
_AGAIN_NS = 50_000_000
"""Least time between two questions that brought nothing new; doubled up to `_SILENCE_NS`."""
_MOST_READY = 1024
_MOST_BYTES = 64 << 20
"""Number and bytes of messages that may wait to be taken; the same again of those that are early."""
_ANSWER_BYTES = 8 << 20


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


class Receiver:
    """One sender's messages, in order.

    own, sender: the two processes. streams: what comes, in the order of both sides.
    cursor: the first cycle that is wanted, as this process's own log says it; None: all from the oldest.
    wake: called, on any thread, when there is something to take.
    note: called with a sentence on what is wrong with what came.
    run: this process's own, for the sender to know it by.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        graph: str,
        own: Peer,
        sender: Peer,
        streams: Sequence[Stream],
        cursor: Cursor | None,
        wake: Callable[[], None] = lambda: None,
        note: Callable[[str], None] = lambda _: None,
        silence_ns: int = _SILENCE_NS,
        run: int = 0,
    ) -> None:
        self._transport, self._run = transport, run
        self._streams = streams
        self._sender = sender
        self._log_key = Keys.of(graph, sender).log(own)
        self._ack_key = Keys.of(graph, own).ack(sender)
        self._silence_ns = silence_ns
        self.wake, self._note = wake, note
        self._lock = threading.Lock()
        self.cursor = cursor or Cursor(0, 0)
        """The first cycle that has not come."""
        self._ready: deque[Taken | Gap] = deque()
        self._ready_bytes = 0
        self._early: dict[Cursor, tuple[Head, bytes]] = {}
        """By the first cycle that they stand for, those that came before others."""
        self._early_bytes = 0
        self._needs_context = any(it.is_picture for it in streams) and self.cursor.cycle > 0
        self._is_behind = True
        self._asking: int | None = None
        """When the question was asked that has no answer yet."""
        self._asked = 0
        self._not_before_ns = 0
        self._pause_ns = _AGAIN_NS
        self._heard_ns: int | None = None
        self.is_open = True
        """Whether to take what comes; what does not is left in the sender's log."""
        self.ended = False
        """Whether the sender has ended in order, and all that it sent has come."""
        self.newest = Cursor(0, 0)
        """The newest cycle that was heard of."""
        self.damaged = 0
        """Number of messages that something on the way has changed."""
        self.rival: Rival | None = None
        """Two processes that run as this one, as the sender says."""
        self._senders, self._now_ns = Rivals(), 0
        self._noted_rival: Rival | None = None
        transport.subscribe(Keys.of(graph, sender).cycles(own), self.on_sample)

    # -- from the transport, on any thread ---------------------------------------------------------

    def on_sample(self, sample: Sample) -> None:
        """A message came."""
        head = self._opened(sample) if self.is_open else None
        if head is None:
            return
        if head.kind == RIVAL:
            self.rival = Rival(head.first, head.cycle)
            return
        if head.kind != CYCLE:
            self.reconnected()  # the sender has ended: ask for what is left
            return
        self._hear(head.run)
        with self._lock:
            self._heard_ns = None
            self.newest = max(self.newest, Cursor(head.run, head.cycle))
            came = self._offer(head, sample.payload)
        if came:
            self.wake()

    def reconnected(self) -> None:
        """The sender is there again: ask it at the next `pump`."""
        with self._lock:
            self._is_behind, self._not_before_ns, self._pause_ns = True, 0, _AGAIN_NS

    # -- on the thread that pumps ------------------------------------------------------------------

    def pump(self, now_ns: int) -> None:
        """Ask the sender's log, if that is due."""
        self._now_ns = now_ns
        with self._lock:
            if self._heard_ns is None:
                self._heard_ns = now_ns
            silent = now_ns - self._heard_ns >= self._silence_ns
            if self._asking is not None:
                if now_ns - self._asking < (_TIMEOUT_S + 1) * 1e9:
                    return
                self._asking = None
            due = (self._is_behind and now_ns >= self._not_before_ns) or silent
            if self.ended or not due or not self._has_room():
                return
            self._asking = self._heard_ns = now_ns
            self._asked += 1
            number, cursor = self._asked, self.cursor
            context = self._needs_context
            self._not_before_ns = now_ns + self._pause_ns
        answer: list[Sample] = []
        self._transport.query(
            self._log_key,
            Question(*cursor, _ANSWER_BYTES, context).pack(),
            answer.append,
            lambda: self._take_answer(number, answer, context=context),
            timeout_s=_TIMEOUT_S,
        )

    def acknowledge(self, cursor: Cursor) -> None:
        """Tell the sender that all before `cursor` is in this process's log, and whether it is known
        here that the sender has ended."""
        said = Question(*cursor, 0, self.ended).pack()
        self._transport.put(self._ack_key, said, pack_run(self._run))

    # -- on the thread of the cycles -----------------------------------------------------------------

    def peek(self) -> Taken | Gap | None:
        """What comes next; None if nothing has come."""
        with self._lock:
            return self._ready[0] if self._ready else None

    def take(self) -> Taken | Gap:
        """What `peek` showed; it is no longer there afterwards."""
        with self._lock:
            item = self._ready.popleft()
            if isinstance(item, Taken):
                self._ready_bytes -= len(item.payload)
            return item

    @property
    def waiting(self) -> int:
        """Number of cycles that have come and were not taken."""
        return len(self._ready)

    # -- inside --------------------------------------------------------------------------------------

    def _opened(self, sample: Sample) -> Head | None:
        try:
            head = opened(sample.attachment, sample.payload)
        except WireError as error:
            with self._lock:
                self.damaged += 1
                self._is_behind = True
            self._note(f"what {self._sender} sent was changed on the way: {error}")
            return None
        if (head.part, head.inst) != (self._sender.part, self._sender.inst):
            self._note(
                f"a message for {self._sender} is of partition {head.part}, instance {head.inst}; "
                f"expected {self._sender.part}, {self._sender.inst}"
            )
            return None
        return head

    def _hear(self, run: int) -> None:
        rival = self._senders.hear(run, self._now_ns)
        if rival is not None and rival != self._noted_rival:
            self._noted_rival = rival
            self._note(
                f"two processes run as {self._sender}: run {rival.later} began while run "
                f"{rival.earlier} goes on; nothing of it is taken before that one ends"
            )

    def _has_room(self) -> bool:
        return len(self._ready) < _MOST_READY // 2 and self._ready_bytes < _MOST_BYTES // 2

    def _offer(self, head: Head, payload: bytes, *, repaired: bool = False) -> bool:
        """Take a message if it is the next one; keep it if it is early. Whether it was taken."""
        if head.run == self.cursor.run and head.cycle < self.cursor.cycle:
            return False
        is_next = head.run == self.cursor.run and head.first <= self.cursor.cycle
        if is_next and (repaired or not self._needs_context):
            if not self._append(head, payload):
                self._is_behind = True
                return False
            self._take_early()
            return True
        self._is_behind = True
        start = Cursor(head.run, head.first)
        fits = len(self._early) < _MOST_READY and self._early_bytes < _MOST_BYTES
        if fits and start not in self._early:
            self._early[start] = head, payload
            self._early_bytes += len(payload)
        return False

    def _append(self, head: Head, payload: bytes) -> bool:
        """False if there is no room for it."""
        if len(self._ready) >= _MOST_READY or (
            self._ready and self._ready_bytes + len(payload) > _MOST_BYTES
        ):
            return False
        try:
            messages = unpacked(payload, self._streams)
        except WireError as error:
            self.damaged += 1
            self._note(f"what {self._sender} sent in cycle {head.cycle} cannot be read: {error}")
            return False
        self._ready.append(Taken(head, messages, payload))
        self._ready_bytes += len(payload)
        if head.kind == CYCLE:
            self.cursor = Cursor(head.run, head.cycle + 1)
        return True

    def _take_early(self) -> None:
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
                if head.cycle >= self.cursor.cycle and not self._append(head, payload):
                    self._is_behind = True
                    return

    def _take_answer(self, number: int, answer: Sequence[Sample], *, context: bool) -> None:
        heads = [(self._opened(it), it.payload) for it in answer]
        status = None
        for head, payload in heads:
            if head is not None and head.kind == STATUS:
                try:
                    status = Status.unpack(payload)
                except WireError as error:
                    self._note(f"{self._sender}: {error}")
        # Each once: what came twice must not stand for what was lost.
        messages = list(
            {
                head: (head, it) for head, it in heads if head is not None and head.kind != STATUS
            }.values()
        )
        with self._lock:
            if number != self._asked or self._asking is None:
                return  # it came too late
            self._asking = self._heard_ns = None
            before = len(self._ready), self.cursor
            if status is not None and (not context or len(messages) == status.count):
                self._take_messages(messages, status, context=context)
            elif not context:
                self._take_messages(messages, None, context=False)
            came = before != (len(self._ready), self.cursor)
            if came:
                self._pause_ns, self._not_before_ns = _AGAIN_NS, 0
            else:
                self._pause_ns = min(2 * self._pause_ns, self._silence_ns)
        if came or self.ended:
            self.wake()

    def _take_messages(
        self, messages: Sequence[tuple[Head, bytes]], status: Status | None, *, context: bool
    ) -> None:
        """status: None where the end of the answer was lost."""
        asked_at = self.cursor
        if (
            status is not None
            and status.run == self.cursor.run
            and status.begins > self.cursor.cycle
        ):
            self._miss(status.begins - 1, status.reason, Cursor(status.run, status.begins))
        for head, payload in sorted(messages, key=lambda it: (it[0].run, it[0].cycle, -it[0].kind)):
            if head.kind == CONTEXT:
                if self._needs_context and head.cycle < asked_at.cycle:
                    self._append(head, payload)
            else:
                self._offer(head, payload, repaired=True)
        if status is None:
            return
        is_whole = len(messages) == status.count
        if context and is_whole and any(head.kind == CYCLE for head, _ in messages):
            self._needs_context = False
            self._take_early()
        if not is_whole or status.run != asked_at.run or self.cursor.run != status.run:
            return
        if status.upto > self.cursor.cycle and self._has_all(messages):
            self.cursor = Cursor(status.run, status.upto)
            self._take_early()
        self._is_behind = status.more or bool(self._early)
        if self.cursor.cycle < status.upto or (status.more and not status.is_over):
            self._is_behind = True
            return
        if status.is_over and status.follows:
            if self._senders.is_alive(status.run, self._now_ns, within_ns=_SILENCE_NS):
                self._is_behind = True  # who says so is another process, or it was killed just now
                return
            after = Cursor(status.follows, status.follows_at)
            if status.reason and status.begins == status.upto:
                self._miss(-1, status.reason, after)
            self.cursor = after
            self._is_behind = True
            self._needs_context = False
            self._early = {at: it for at, it in self._early.items() if at.run == after.run}
            self._early_bytes = sum(len(payload) for _, payload in self._early.values())
            self._take_early()
        elif status.ended:
            self.ended = True

    def _has_all(self, messages: Sequence[tuple[Head, bytes]]) -> bool:
        """Whether all messages of the answer were taken: the cycles after them have nothing for us."""
        return all(head.kind == CONTEXT or head.cycle < self.cursor.cycle for head, _ in messages)

    def _miss(self, last: int, reason: str, after: Cursor) -> None:
        self._ready.append(Gap(self.cursor.run, self.cursor.cycle, last, reason, after))
        self.cursor = after
