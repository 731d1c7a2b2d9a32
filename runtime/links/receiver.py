"""Takes what another process sends, exactly once and in order, and asks its log for what is missing.

The cycle that the cursor wants is taken; older ones are ignored; on a newer one, when the connection
comes back and after a second of silence the sender's log is asked, from the cursor on. What has come and
nobody has taken yet is bounded: beyond that it is left where it is, in the sender's log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from flowrun.runtime.links.arrived import Arrived, Gap, Taken
from flowrun.runtime.links.rivals import Rival, Rivals
from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.links.transport import Sample, Transport
from flowrun.runtime.links.wire import (
    CONTEXT,
    CYCLE,
    RIVAL,
    STATUS,
    Head,
    Keys,
    Peer,
    Question,
    Status,
    Stream,
    WireError,
    opened,
    pack_run,
)

__all__ = ["Receiver"]

_SILENCE_NS = 1_000_000_000
_TIMEOUT_S = 5.0
"""Seconds that an answer may take."""
_AGAIN_NS = 50_000_000
"""Least time between two questions that brought nothing new; doubled up to `_SILENCE_NS`."""
_ANSWER_BYTES = 8 << 20


class Receiver:
    """One sender's messages, in order.

    own, sender: the two processes. streams: what comes, in the order of both sides.
    cursor: the first cycle that is wanted, as this process's own log says it; None: all from the oldest.
    wake: called, on any thread, when there is something to take.
    urge: called, on any thread, when something is missing that was not before: see `is_behind`.
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
        urge: Callable[[], None] = lambda: None,
        note: Callable[[str], None] = lambda _: None,
        silence_ns: int = _SILENCE_NS,
        run: int = 0,
    ) -> None:
        self._transport, self._run = transport, run
        self._sender = sender
        self._log_key = Keys.of(graph, sender).log(own)
        self._ack_key = Keys.of(graph, own).ack(sender)
        self._silence_ns = silence_ns
        self.wake, self._urge, self._note = wake, urge, note
        self._lock = threading.Lock()
        self._arrived = Arrived(streams, cursor or Cursor(0, 0), self._note_damage)
        self._asking: int | None = None
        """When the question was asked that has no answer yet."""
        self._asked = self._not_before_ns = 0
        self._pause_ns = _AGAIN_NS
        self._heard_ns: int | None = None
        self.is_open = True
        """Whether to take what comes; what does not is left in the sender's log."""
        self.ended = False
        """Whether nothing more comes: the sender has ended in order and all that it sent has come, or it
        was given up."""
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
            self._urge()
            return
        self._hear(head.run)
        with self._lock:
            self._heard_ns = None
            self.newest = max(self.newest, Cursor(head.run, head.cycle))
            was_behind = self._arrived.is_behind
            came = self._arrived.offer(head, sample.payload)
            is_behind = self._arrived.is_behind
        if came:
            self.wake()
        if is_behind and not was_behind:
            self._urge()

    def reconnected(self) -> None:
        """The sender is there again: ask it at the next `pump`."""
        with self._lock:
            self._arrived.is_behind = True
            self._not_before_ns, self._pause_ns = 0, _AGAIN_NS

    def give_up(self) -> bool:
        """The sender has ended, and can be asked no more: what has come is all. Whether it is known that
        this is not all that it has sent."""
        with self._lock:
            lacks = self._arrived.has_early or self.newest >= self._arrived.cursor
        self.ended = True
        self.wake()
        return lacks

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
            due = (self._arrived.is_behind and now_ns >= self._not_before_ns) or silent
            if self.ended or not due or not self._arrived.has_room:
                return
            self._asking = self._heard_ns = now_ns
            self._asked += 1
            number, cursor = self._asked, self._arrived.cursor
            context = self._arrived.needs_context
            self._not_before_ns = now_ns + self._pause_ns
        answer: list[Sample] = []
        self._transport.query(
            self._log_key,
            Question(*cursor, _ANSWER_BYTES, context).pack(),
            answer.append,
            lambda: self._take_answer(number, answer, context=context),
            timeout_s=_TIMEOUT_S,
        )

    def acknowledge(self, cursor: Cursor, *, is_last: bool = False) -> None:
        """Tell the sender that all before `cursor` is in this process's log, and whether it is known
        here that the sender has ended.

        is_last: whether this process takes nothing more.
        """
        said = Question(*cursor, int(is_last), self.ended).pack()
        self._transport.put(self._ack_key, said, pack_run(self._run))

    # -- on the thread of the cycles -----------------------------------------------------------------

    def peek(self) -> Taken | Gap | None:
        """What comes next; None if nothing has come."""
        with self._lock:
            return self._arrived.ready[0] if self._arrived.ready else None

    def take(self) -> Taken | Gap:
        """What `peek` showed; it is no longer there afterwards."""
        with self._lock:
            return self._arrived.take()

    @property
    def is_behind(self) -> bool:
        """Whether `pump` is to be called soon, as something is missing. From any thread."""
        return self._arrived.is_behind and not self.ended

    @property
    def cursor(self) -> Cursor:
        """What is wanted next."""
        return self._arrived.cursor

    @property
    def waiting(self) -> int:
        """Number of cycles that have come and were not taken."""
        return len(self._arrived.ready)

    # -- inside --------------------------------------------------------------------------------------

    def _opened(self, sample: Sample) -> Head | None:
        try:
            head = opened(sample.attachment, sample.payload)
        except WireError as error:
            with self._lock:
                self.damaged += 1
                self._arrived.is_behind = True
            self._urge()
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

    def _note_damage(self, head: Head, error: WireError) -> None:
        self.damaged += 1
        self._note(f"what {self._sender} sent in cycle {head.cycle} cannot be read: {error}")

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
            arrived = self._arrived
            before = len(arrived.ready), arrived.cursor
            if status is not None and (not context or len(messages) == status.count):
                self._take_messages(messages, status, context=context)
            elif not context:
                self._take_messages(messages, None, context=False)
            came = before != (len(arrived.ready), arrived.cursor)
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
        arrived = self._arrived
        asked_at = arrived.cursor
        if (
            status is not None
            and status.run == arrived.cursor.run
            and status.begins > arrived.cursor.cycle
        ):
            arrived.miss(status.begins - 1, status.reason, Cursor(status.run, status.begins))
        for head, payload in sorted(messages, key=lambda it: (it[0].run, it[0].cycle, -it[0].kind)):
            if head.kind == CONTEXT:
                if arrived.needs_context and head.cycle < asked_at.cycle:
                    arrived.append(head, payload)
            else:
                arrived.offer(head, payload, repaired=True)
        if status is None:
            return
        is_whole = len(messages) == status.count
        if context and is_whole and any(head.kind == CYCLE for head, _ in messages):
            arrived.needs_context = False
            arrived.take_early()
        if not is_whole or status.run != asked_at.run or arrived.cursor.run != status.run:
            return
        if status.upto > arrived.cursor.cycle and self._has_all(messages):
            arrived.cursor = Cursor(status.run, status.upto)
            arrived.take_early()
        arrived.is_behind = status.more or arrived.has_early
        if arrived.cursor.cycle < status.upto or (status.more and not status.is_over):
            arrived.is_behind = True
            return
        if status.is_over and status.follows:
            if self._senders.is_alive(status.run, self._now_ns, within_ns=_SILENCE_NS):
                arrived.is_behind = (
                    True  # who says so is another process, or it was killed just now
                )
                return
            after = Cursor(status.follows, status.follows_at)
            if status.reason and status.begins == status.upto:
                arrived.miss(-1, status.reason, after)
            arrived.go_to_run(after)
        elif status.ended:
            self.ended = True

    def _has_all(self, messages: Sequence[tuple[Head, bytes]]) -> bool:
        """Whether all messages of the answer were taken: the cycles after them have nothing for us."""
        return all(
            head.kind == CONTEXT or head.cycle < self._arrived.cursor.cycle for head, _ in messages
        )
