"""What a run receives: which senders are there, whether theirs fits, what of it is in the log."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from flowrun.runtime.events import Event, Met, Reached
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.links.hello import Hello, misfit
from flowrun.runtime.links.own import AGAIN_S, OwnProcess, peer_of
from flowrun.runtime.links.receiver import Receiver
from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.links.source import Incoming, LinkSource
from flowrun.runtime.links.status import LinkStatus
from flowrun.runtime.links.streams import streams_of
from flowrun.runtime.links.transport import Sample, Transport
from flowrun.runtime.links.wire import Peer
from flowrun.runtime.task import Task

__all__ = ["Inbound", "Started"]

_HELLO_TIMEOUT_S = 2.0


class Started(Protocol):
    """One of a run's tasks, as an object."""

    @property
    def task(self) -> Task: ...


@dataclass(slots=True)
class _In:
    """One sender."""

    peer: Peer
    boundary: Boundary
    incoming: Incoming
    is_there: bool = False
    was_there: bool = False
    reconnects: int = 0
    is_welcome: bool = False
    """Whether its streams are known to fit."""
    refused: str = ""
    hello_at_s: float = -AGAIN_S
    asked_ns: int = 0
    offset_ns: int | None = None
    committed: Cursor = field(default_factory=lambda: Cursor(0, 0))
    """What is in this process's log; (0, 0): nothing is."""
    acknowledged: tuple[Cursor, bool] | None = None
    """What was said last."""
    acknowledged_at_s: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.incoming.receiver.ended


class Inbound:
    """The senders of a run, by source task."""

    def __init__(self, own: OwnProcess) -> None:
        self._own = own
        self._transport: Transport | None = None
        self._ins: dict[str, _In] = {}
        self._acknowledging = threading.Lock()
        self._is_over = False
        """Whether this process takes nothing more."""

    def receive(
        self, transport: Transport, boundary: Boundary, cursor: Cursor | None, started: Started
    ) -> None:
        """Have a source task receive what comes over a boundary. Before the first cycle.

        cursor: what is wanted next; None: all.
        """
        own, task = self._own, started.task
        assert isinstance(task, LinkSource)
        self._transport = transport
        peer, streams = peer_of(own.spec, boundary.peer), streams_of(boundary)
        receiver = Receiver(
            transport,
            graph=own.graph,
            own=own.peer,
            sender=peer,
            streams=streams,
            cursor=cursor,
            urge=own.wake,
            note=lambda text: own.log.warning(text, sender=str(peer)),
            run=own.run,
        )
        stops = any(it.link.on_gap == "stop" for it in boundary.streams)
        receiver.is_open = False
        incoming = Incoming(receiver, sender=peer, streams=streams, stops_at_gap=stops)
        task.receive_from(incoming)
        made = _In(peer, boundary, incoming, committed=cursor or Cursor(0, 0))
        self._ins[boundary.source] = made
        transport.watch_alive(own.keys_of(peer).alive, partial(self._sender_is, made))

    @property
    def is_all_in_step(self) -> bool:
        """Whether all that is received goes in lock-step."""
        return all(
            stream.link.deliver == "lockstep"
            for it in self._ins.values()
            for stream in it.boundary.streams
        )

    @property
    def lost(self) -> bool:
        """Whether a sender that was there is gone, and has not ended."""
        return any(it.was_there and not it.is_there and not it.is_over for it in self._ins.values())

    @property
    def is_behind(self) -> bool:
        """Whether something is missing that a sender is to be asked for."""
        return any(it.is_welcome and it.incoming.receiver.is_behind for it in self._ins.values())

    def unseen(self) -> Iterator[str]:
        """Senders that have not been there."""
        return (str(it.peer) for it in self._ins.values() if not it.was_there)

    # -- on the cycles' thread ---------------------------------------------------------------------

    def look(self) -> None:
        """A cycle was committed."""
        for it in self._ins.values():
            it.committed = it.incoming.published or it.committed

    def took(self, ring: Collection[str]) -> dict[str, tuple[int, int]] | None:
        """By sender of a ring, its run and the cycle after the last of it that is in the log; None while
        something of it has come, or is known to be missing."""
        found = {}
        for it in self._ins.values():
            receiver, has = it.incoming.receiver, it.committed
            if str(it.peer) not in ring:
                continue
            if not it.is_welcome or receiver.is_behind or receiver.waiting:
                return None
            run = receiver.cursor.run
            found[str(it.peer)] = (run, has.cycle if has.run == run else 0)
        return found

    def sources(self, ring: Collection[str]) -> list[str]:
        """The source tasks of the senders of a ring."""
        return [name for name, it in self._ins.items() if str(it.peer) in ring]

    def restate(self) -> list[Event]:
        """What of each sender is in the log, or in the cycle that is being committed."""
        said: list[Event] = []
        for name, it in self._ins.items():
            cursor = it.incoming.published or it.committed
            if cursor != Cursor(0, 0):
                said.append(Reached(name, *cursor))
        return said

    # -- on the links' thread ----------------------------------------------------------------------

    def pump(self, now_s: float) -> None:
        """What there is to do now."""
        for it in self._ins.values():
            if it.is_welcome:
                it.incoming.receiver.pump(int(now_s * 1e9))
            elif it.is_there and now_s - it.hello_at_s >= AGAIN_S and not it.refused:
                self._ask_hello(it, now_s)
            self._look_for_rival(it)
            if not it.is_there and not it.is_over and self._own.is_gone(it.peer):
                self._give_up(it)
        self.acknowledge(now_s)

    def finish(self, ring: Collection[str]) -> None:
        """Nothing more comes from the senders of a ring."""
        for it in self._ins.values():
            if str(it.peer) in ring and not it.is_over:
                it.incoming.receiver.give_up()

    def end(self) -> None:
        """Tell the senders that nothing more is taken: the run has ended in order. From any thread."""
        self._is_over = True
        self.acknowledge(self._own.now_s(), again=True)

    def acknowledge(self, now_s: float, *, again: bool = False) -> None:
        """Tell senders what is in the log, where that is new, or was said a while ago. From any thread.

        again: tell all of them now.
        """
        with self._acknowledging:  # an older cursor must not be said after a newer one
            for it in self._ins.values():
                says = it.committed, it.is_over
                is_due = now_s - it.acknowledged_at_s >= AGAIN_S
                if again or says != it.acknowledged or is_due:
                    it.acknowledged, it.acknowledged_at_s = says, now_s
                    it.incoming.receiver.acknowledge(it.committed, is_last=self._is_over)

    def _give_up(self, it: _In) -> None:
        """The sender has ended for good, and nobody has heard it say so."""
        if it.incoming.receiver.give_up():
            self._own.log.warning(
                "a sender has ended before all that it sent had come: the rest is in its log alone",
                sender=str(it.peer),
                newest_cycle=it.incoming.receiver.newest.cycle,
            )

    def _look_for_rival(self, it: _In) -> None:
        rival, it.incoming.receiver.rival = it.incoming.receiver.rival, None
        if rival is not None and rival.later == self._own.run:
            self._own.fail(
                f"another process runs as {self._own.peer}, since {_date(rival.earlier)}: end that one, "
                "or run this one as another instance"
            )

    def _ask_hello(self, it: _In, now_s: float) -> None:
        assert self._transport is not None
        it.hello_at_s, it.asked_ns = now_s, self._own.clock.now_ns()
        self._transport.query(
            self._own.keys_of(it.peer).hello(self._own.peer),
            b"",
            partial(self._take_hello, it),
            lambda: None,
            timeout_s=_HELLO_TIMEOUT_S,
        )

    # -- from the transport, on any thread ---------------------------------------------------------

    def _take_hello(self, it: _In, sample: Sample) -> None:
        said = Hello.unpack(sample.payload)
        if said is None:
            return
        now_ns = self._own.clock.now_ns()
        it.offset_ns = said.now_ns - (now_ns + it.asked_ns) // 2
        it.refused = misfit(said, str(it.peer), it.boundary.streams) or ""
        if it.refused:
            self._own.fail(it.refused)
            return
        misled = _misled(it)
        if misled is not None:
            self._own.log.warning(misled)
        self._own.note(Met(it.boundary.source, it.offset_ns))
        it.is_welcome = it.incoming.receiver.is_open = True
        it.incoming.receiver.reconnected()
        self._own.wake()

    def _sender_is(self, it: _In, is_there: bool) -> None:  # noqa: FBT001
        it.reconnects += is_there and it.was_there and not it.is_there
        it.is_there, it.was_there = is_there, it.was_there or is_there
        # It may have come back as another graph.
        it.is_welcome = it.incoming.receiver.is_open = False
        it.hello_at_s = -AGAIN_S
        it.incoming.note_sender(is_there=is_there)
        is_over = it.is_over or self._own.is_gone(it.peer)
        if not is_there and self._own.spec.network.on_peer_lost == "stop" and not is_over:
            self._own.fail(f"{it.peer} is lost, and the graph says on_peer_lost: stop")
        self._own.wake()

    # -- status ------------------------------------------------------------------------------------

    def status(self) -> list[LinkStatus]:
        """How each link is doing. From any thread."""
        return [_status(it) for it in self._ins.values()]


def _status(it: _In) -> LinkStatus:
    receiver = it.incoming.receiver
    state = "connected" if it.is_there else "lost" if it.was_there else "connecting"
    state = "refused" if it.refused else "ended" if receiver.ended else state
    cursor = it.committed
    newest = receiver.newest
    known = newest.cycle + 1 if newest.run == cursor.run != 0 else cursor.cycle
    return LinkStatus(
        str(it.peer),
        "in",
        state,
        cursor.cycle,
        newest.cycle,
        max(0, known - cursor.cycle),
        waiting=receiver.waiting,
        gaps=it.incoming.gaps,
        skipped=it.incoming.skipped,
        damaged=receiver.damaged,
        clock_offset_ms=None if it.offset_ns is None else round(it.offset_ns / 1e6, 3),
        refused=it.refused,
        reconnects=it.reconnects,
    )


def _date(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _misled(it: _In) -> str | None:
    """What a difference of the clocks does to `max_age_ms`; None where it does nothing to speak of."""
    ages_ms = [stream.max_age_ms for stream in it.incoming.streams if stream.max_age_ms is not None]
    if it.offset_ns is None or not ages_ms or abs(it.offset_ns) < min(ages_ms) * 500_000:
        return None
    how, what = ("behind", "older") if it.offset_ns < 0 else ("ahead", "younger")
    return (
        f"the clock of {it.peer} is {abs(it.offset_ns) / 1e9:.1f} s {how}: with max_age_ms "
        f"{min(ages_ms)} its messages are taken for {what} than they are; set the clocks of both "
        "machines"
    )
