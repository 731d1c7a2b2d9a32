"""What a run sends: which receivers are there, what they have, and which of them its cycles wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from flowrun.runtime.clock import ManualClock, monotonic_s
from flowrun.runtime.context import CycleTime
from flowrun.runtime.events import Event
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.links.hello import Hello
from flowrun.runtime.links.own import AGAIN_S, LOOK_S, OwnProcess, peer_of
from flowrun.runtime.links.replicas import Replicas
from flowrun.runtime.links.runs import Runs
from flowrun.runtime.links.sent import LogTail, SentLogs
from flowrun.runtime.links.shipper import Shipper
from flowrun.runtime.links.status import LinkStatus
from flowrun.runtime.links.streams import streams_of
from flowrun.runtime.links.transport import Query, Transport
from flowrun.runtime.links.wire import Peer
from flowrun.runtime.log.committed import CommittedCycles
from flowrun.runtime.task import Message
from flowrun.runtime.wakeup import Wakeup

__all__ = ["Committed", "Outbound"]

_ABSENT_S = 10.0
"""Seconds that a run which has ended waits for a receiver that is not there."""


class Committed(Protocol):
    """A cycle that was committed."""

    @property
    def messages(self) -> Sequence[Message]: ...

    @property
    def events(self) -> Sequence[Event]: ...

    @property
    def time(self) -> CycleTime: ...


@dataclass(slots=True)
class _Out:
    """One receiver.

    slots: of the outputs that it gets in lock-step. awaited: the cycle after the last that had some.
    """

    peer: Peer
    slots: Sequence[int] = ()
    awaited: int = 0
    is_there: bool = False
    was_there: bool = False
    reconnects: int = 0
    left_at_s: float = field(default_factory=monotonic_s)


class Outbound:
    """The receivers of the run of `plan` whose log is at `directory`.

    committed: the cycles that the run commits to its log.
    hurried: set when nobody is waited for any more.
    """

    def __init__(
        self,
        own: OwnProcess,
        plan: Plan,
        directory: Path,
        *,
        committed: CommittedCycles | None,
        hurried: threading.Event,
    ) -> None:
        self._own, self._plan, self._directory = own, plan, directory
        self._committed, self._hurried = committed, hurried
        self._shipper: Shipper | None = None
        self._outs: dict[str, _Out] = {}
        self._receivers = {peer_of(own.spec, it.peer): it for it in plan.graph.sends}
        self._replicas = Replicas(own, self._receivers)
        self._in_step: list[_Out] = []
        """The receivers that this run waits for after each cycle."""
        self._acked = Wakeup()
        self.waits = False
        """Whether `end` waits for receivers."""

    def open(self, transport: Transport) -> None:
        """Ship what the run commits from now on, and answer receivers."""
        own = self._own
        if not self._receivers:
            return
        tail = LogTail(self._directory, self._committed)
        self._replicas.begin(tail.coded)
        runs = Runs(self._directory.parent, graph=own.spec.name, partition=str(own.peer))
        self._shipper = Shipper(
            tail,
            SentLogs(runs, own.run, own.peer, spread=self._replicas.spread),
            transport,
            graph=own.graph,
            own=own.peer,
            run=own.run,
            receivers={peer: streams_of(it) for peer, it in self._receivers.items()},
            wake=own.wake,
            on_ack=self._acked.set,
            note=own.log.warning,
        )
        keys = own.keys_of(own.peer)
        for peer, boundary in self._receivers.items():
            slots = [
                slot.index
                for slot in self._plan.slots
                for stream in boundary.streams
                if slot.topic == stream.topic and stream.link.deliver == "lockstep"
            ]
            out = self._outs[str(peer)] = _Out(peer, slots)
            transport.serve(keys.hello(peer), partial(self._say_hello, boundary))
            transport.watch_alive(own.keys_of(peer).alive, partial(self._receiver_is, out))
        self._in_step = [it for it in self._outs.values() if it.slots]

    @property
    def is_all_in_step(self) -> bool:
        """Whether all that is sent goes in lock-step, and to each receiver the same."""
        return not self._replicas and all(
            stream.link.deliver == "lockstep"
            for it in self._plan.graph.sends
            for stream in it.streams
        )

    def unseen(self) -> Iterator[str]:
        """Receivers that have not been there."""
        return (str(it.peer) for it in self._outs.values() if not it.was_there)

    # -- on the cycles' thread ---------------------------------------------------------------------

    def look(self, cycle: Committed) -> None:
        """A cycle was committed."""
        if self._replicas and self._committed is not None:
            self._replicas.look(cycle.events, self._committed)
        for out in self._in_step:
            is_for_it = self._replicas.is_for(out.peer, cycle.time.cycle)
            if is_for_it and any(cycle.messages[slot].present for slot in out.slots):
                out.awaited = cycle.time.cycle + 1

    def restate(self) -> list[Event]:
        """Which replica gets what is sent."""
        return self._replicas.restate()

    @property
    def goes_in_step(self) -> bool:
        """Whether each cycle is to wait as `wait_in_step` does."""
        return bool(self._in_step)

    def wait_in_step(self, is_over: Callable[[], bool]) -> None:
        """Wait until receivers that go in lock-step have in their logs what was sent, or have ended.

        is_over: whether to wait no longer.
        """
        for out in self._in_step:
            while not (self._has_it(out) or is_over() or self._hurried.is_set()):
                self._acked.wait(LOOK_S)

    def is_in_step(self) -> bool:
        """Whether `wait_in_step` would not wait."""
        return all(map(self._has_it, self._in_step))

    def _has_it(self, out: _Out) -> bool:
        assert self._shipper is not None
        said = self._shipper.acknowledged[out.peer]
        replica = self._shipper.replica_of(out.peer.partition)
        if replica not in (None, out.peer.instance) or self._has_left(out):
            return True
        if not out.awaited or (said.run == self._own.run and said.cycle >= out.awaited):
            return True
        is_lost = out.was_there and not out.is_there
        return is_lost and self._own.spec.network.on_peer_lost == "continue"

    def _has_left(self, out: _Out) -> bool:
        """Whether a receiver takes nothing more: it has ended, and no other run of it follows."""
        assert self._shipper is not None
        if self._shipper.acknowledged[out.peer].is_last:
            return True
        return not out.is_there and self._own.is_gone(out.peer)

    def ship(self) -> None:
        """Put what was committed."""
        if self._shipper is not None:
            self._shipper.ship()

    # -- on the links' thread ----------------------------------------------------------------------

    def pump(self, now_s: float) -> None:
        """What there is to do now."""
        if self._shipper is None:
            return
        self._shipper.pump(int(now_s * 1e9))
        self._replicas.assign(
            now_s,
            present=self._shipper.replica_of,
            is_there=lambda part: self._outs[part].is_there,
        )
        if self._shipper.error is not None:
            self._own.fail(f"nothing is sent any more: {self._shipper.error}")

    # -- from the transport, on any thread ---------------------------------------------------------

    def _say_hello(self, boundary: Boundary, query: Query) -> None:
        query.reply(Hello.of(boundary.streams, self._own.clock.now_ns()).pack(), b"")
        query.finish()

    def _receiver_is(self, it: _Out, is_there: bool) -> None:  # noqa: FBT001
        it.reconnects += is_there and it.was_there and not it.is_there
        it.is_there, it.was_there = is_there, it.was_there or is_there
        if not is_there:
            it.left_at_s = self._own.now_s()
        self._own.wake()

    # -- at the end --------------------------------------------------------------------------------

    def say_end(self) -> list[str]:
        """The log is finished, and no other run follows: tell the receivers; those that have not said
        that they have all."""
        if self._shipper is None:
            return []
        self._shipper.end()
        self._shipper.say_end()
        return [name for name, it in self._outs.items() if not self._shipper.has_all(it.peer)]

    def end(self) -> None:
        """The same, until each receiver has said so or has ended itself, or is not there for a while.
        Where somebody says which processes have ended for good, others are waited for: they come again.
        """
        if self._shipper is not None:
            self._shipper.end()
            if not isinstance(self._own.clock, ManualClock):
                self.waits = True
                self._wait_for_receivers(self._shipper)
                self.waits = False

    def _wait_for_receivers(self, shipper: Shipper) -> None:
        began = self._own.now_s()
        told, said_at_s = False, -AGAIN_S
        while not self._hurried.wait(LOOK_S):
            now_s = self._own.now_s()
            if now_s - said_at_s >= AGAIN_S:
                shipper.say_end()
                said_at_s = now_s
            lacking = [
                it
                for it in self._outs.values()
                if not (shipper.has_all(it.peer) or self._has_left(it))
                and (it.is_there or self._may_come(now_s - max(it.left_at_s, began)))
            ]
            if not lacking:
                return
            if not told and now_s - began > 1:
                told = True
                self._own.log.info(
                    "waiting for receivers to take what was sent",
                    receivers=", ".join(str(it.peer) for it in lacking),
                )

    def _may_come(self, absent_s: float) -> bool:
        """Whether a receiver that is not there is waited for."""
        return self._own.told is not None or absent_s < _ABSENT_S

    def close(self) -> None:
        if self._shipper is not None:
            self._shipper.close()

    # -- status ------------------------------------------------------------------------------------

    def sent(self, ring: Collection[str]) -> tuple[int, dict[str, int]]:
        """The last cycle that was looked at, and by receiver of a ring the cycle after the last that had
        something for it."""
        assert self._shipper is not None
        found = {name: self._shipper.sent(it.peer) for name, it in self._outs.items()}
        return self._shipper.newest, {name: found[name] for name in found if name in ring}

    def status(self) -> list[LinkStatus]:
        """How each link is doing. From any thread."""
        return [self._status(it) for it in self._outs.values()]

    def _status(self, it: _Out) -> LinkStatus:
        assert self._shipper is not None
        state = "connected" if it.is_there else "lost" if it.was_there else "connecting"
        said, newest = self._shipper.acknowledged[it.peer], self._shipper.newest
        cursor = said.cycle if said.run == self._own.run else 0
        lag = max(0, newest + 1 - cursor)
        return LinkStatus(str(it.peer), "out", state, cursor, newest, lag, reconnects=it.reconnects)
