"""Follows this process's own log, and puts each cycle's boundary outputs for each receiver.

A cycle never waits for it: what cannot be sent is dropped, and the receiver asks the log for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from flowrun.runtime.errors import LogError
from flowrun.runtime.links.rivals import Rival, Rivals
from flowrun.runtime.links.sent import LogTail, Picker, SentLogs
from flowrun.runtime.links.spread import Spread
from flowrun.runtime.links.transport import Query, Sample, Transport
from flowrun.runtime.links.wire import (
    CYCLE,
    RIVAL,
    STATUS,
    Head,
    Keys,
    Peer,
    Question,
    Stream,
    WireError,
    packed,
    sealed,
    unpack_run,
)

__all__ = ["Acknowledged", "Shipper"]

_MOST_QUESTIONS = 64
"""That wait for an answer. Further ones are dropped: who asked asks again."""


@dataclass(slots=True)
class Acknowledged:
    """What a receiver has said. run, cycle: its cursor, see `runs.Cursor`. knows_end: whether it knows
    that this process has ended. is_last: whether it takes nothing more."""

    run: int = 0
    cycle: int = 0
    knows_end: bool = False
    is_last: bool = False


@dataclass(slots=True)
class _Out:
    """What is known of one receiver. first: the cycle after the last that was put. spread: to which
    replicas of its partition cycles belong. sent: the cycle after the last that brought it something."""

    peer: Peer
    key: str
    streams: Sequence[Stream]
    picker: Picker
    first: int | None = None
    spread: Spread | None = None
    sent: int = 0


class Shipper:
    """Ships the log at `tail` to its receivers.

    run: how the wire names it. receivers: what each gets.
    wake: called, on any thread, when there is something to `pump`.
    note: called with a sentence on what is wrong with the receivers.
    on_ack: called, on any thread, when a receiver has said what it has.
    """

    def __init__(
        self,
        tail: LogTail,
        logs: SentLogs,
        transport: Transport,
        *,
        graph: str,
        own: Peer,
        run: int,
        receivers: Mapping[Peer, Sequence[Stream]],
        wake: Callable[[], None] = lambda: None,
        on_ack: Callable[[], None] = lambda: None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._tail, self._logs, self._transport = tail, logs, transport
        self._own, self._run, self._wake, self._on_ack = own, run, wake, on_ack
        self._note, self._now_ns = note, 0
        keys = Keys.of(graph, own)
        self._outs = {
            peer: _Out(
                peer,
                keys.cycles(peer),
                streams,
                Picker(streams, tail.coded),
                spread=logs.spread_of(run, peer.partition, tail.coded),
            )
            for peer, streams in receivers.items()
        }
        self._spreads = {
            out.peer.partition: out.spread for out in self._outs.values() if out.spread is not None
        }
        self._shipping = threading.Lock()
        self._questions: deque[tuple[Query, Peer]] = deque(maxlen=_MOST_QUESTIONS)
        self.newest = -1
        """The last cycle that was read from the log."""
        self.acknowledged = {peer: Acknowledged() for peer in receivers}
        self._heard = {peer: Rivals() for peer in receivers}
        self._rivals: dict[Peer, Rival] = {}
        self._untold: set[Peer] = set()
        """Receivers that are to be told that two processes run as them."""
        self.error: LogError | None = None
        """Why the log cannot be followed any more."""
        for peer in receivers:
            transport.serve(keys.log(peer), partial(self._take_question, peer))
            transport.subscribe(Keys.of(graph, peer).ack(own), partial(self._take_ack, peer))

    def pump(self, now_ns: int) -> bool:
        """Put what the log has gained, and answer questions; whether there was anything."""
        self._now_ns = now_ns
        did = self.ship()
        while self._untold:
            self._tell(self._untold.pop())
        while self._questions:
            self._answer(*self._questions.popleft())
            did = True
        return did

    def ship(self) -> bool:
        """Put what the log has gained; whether there was anything. From any thread."""
        with self._shipping:
            return self._ship()

    def end(self) -> None:
        """The run has ended in order: receivers that have taken everything may end too."""
        self._logs.ended = True

    def say_end(self) -> None:
        """Tell the receivers that the run has ended; may be said again, as it may be lost."""
        for out in self._outs.values():
            head = Head(self._run, self._own.part, self._own.inst, STATUS, 0, self.newest, 0)
            self._transport.put(out.key, b"", sealed(head, b""))

    def has_all(self, peer: Peer) -> bool:
        """Whether a receiver has said that it has all that the log has for it, and knows of the end."""
        said, out = self.acknowledged[peer], self._outs[peer]
        has_it = said.run == self._run and said.cycle >= out.sent
        return said.knows_end and (has_it or not out.sent)

    def sent(self, peer: Peer) -> int:
        """The cycle after the last that had something for a receiver; 0 for none."""
        return self._outs[peer].sent

    def replica_of(self, partition: str) -> str | None:
        """The replica of a partition that gets what follows; None where all get all."""
        spread = self._spreads.get(partition)
        return None if spread is None else spread.current

    def close(self) -> None:
        """Let go of the logs."""
        self._tail.close()
        self._logs.close()

    def _ship(self) -> bool:
        did = False
        try:
            for cycle in self._tail.new():
                did, follows = True, cycle.cycle == self.newest + 1
                self.newest = cycle.cycle
                for spread in self._spreads.values():
                    spread.look(cycle)
                self._logs.looked_at = cycle.cycle
                for out in self._outs.values():
                    if out.first is None or not follows:
                        out.first = cycle.cycle
                    if out.spread is not None and out.spread.at(cycle.cycle) != out.peer.instance:
                        continue
                    messages = out.picker.messages(cycle)
                    if not messages:
                        continue
                    out.sent = cycle.cycle + 1
                    payload = packed(messages)
                    own = self._own
                    head = Head(
                        self._run,
                        own.part,
                        own.inst,
                        CYCLE,
                        out.first,
                        cycle.cycle,
                        cycle.time_ns,
                    )
                    self._transport.put(out.key, payload, sealed(head, payload))
                    out.first = cycle.cycle + 1
        except LogError as error:
            self.error = error
        return did

    def _take_question(self, peer: Peer, query: Query) -> None:
        self._questions.append((query, peer))
        self._wake()

    def _answer(self, query: Query, peer: Peer) -> None:
        try:
            asked = Question.unpack(query.parameters)
        except WireError:
            query.finish()
            return
        answer = self._logs.answer(asked, self._outs[peer].streams, peer)
        for head, payload in answer.messages:
            query.reply(payload, sealed(head, payload))
        ending = answer.status.pack()
        head = Head(asked.run, self._own.part, self._own.inst, STATUS, 0, asked.cycle, 0)
        query.reply(ending, sealed(head, ending))
        query.finish()

    def _take_ack(self, peer: Peer, sample: Sample) -> None:
        try:
            asked, by = Question.unpack(sample.payload), unpack_run(sample.attachment)
        except WireError:  # it is said again
            return
        rival = self._heard[peer].hear(by, self._now_ns)
        if rival is not None and self._rivals.get(peer) != rival:
            self._rivals[peer] = rival
            self._note(
                f"two processes run as {peer}: run {rival.later} began while run {rival.earlier} goes on"
            )
        if rival is not None:
            self._untold.add(peer)
        if self._is_second(peer, by):
            return
        said = self.acknowledged[peer]
        said.run, said.cycle, said.knows_end = asked.run, asked.cycle, asked.context
        said.is_last = asked.most_bytes > 0
        self._on_ack()

    def _is_second(self, peer: Peer, by: int) -> bool:
        """Whether a receiver's run is one that began while another one goes on."""
        rival = self._rivals.get(peer)
        if rival is None or rival.later != by:
            return False
        return self._heard[peer].is_alive(rival.earlier, self._now_ns)

    def _tell(self, peer: Peer) -> None:
        rival = self._rivals[peer]
        head = Head(self._run, self._own.part, self._own.inst, RIVAL, rival.earlier, rival.later, 0)
        self._transport.put(self._outs[peer].key, b"", sealed(head, b""))
