"""All links of a run that is one process of a partition: what it sends, and what it receives.

One thread follows the log, asks senders' logs and acknowledges; a cycle only tells it that it is over.
Where all that a run sends or receives goes in lock-step, its cycles wait for the other side anyway: then
their thread does it between two of them, which spares a change of threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from flowrun.runtime.clock import Clock, ManualClock, monotonic_s
from flowrun.runtime.context import CycleTime
from flowrun.runtime.errors import FlowrunError, worded
from flowrun.runtime.events import Assigned, Event, Met, Reached
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.links.hello import Hello, misfit
from flowrun.runtime.links.lookout import Lookout
from flowrun.runtime.links.news import News
from flowrun.runtime.links.reached import reached_before
from flowrun.runtime.links.receiver import Receiver
from flowrun.runtime.links.rivals import only_one
from flowrun.runtime.links.runs import Cursor, Runs
from flowrun.runtime.links.security import certificates_of, security_of
from flowrun.runtime.links.sent import LogTail, SentLogs
from flowrun.runtime.links.shipper import Shipper
from flowrun.runtime.links.source import Incoming, LinkSource
from flowrun.runtime.links.spread import Spread, chosen, spread_key
from flowrun.runtime.links.status import LinkStatus, PartStatus
from flowrun.runtime.links.transport import Query, Sample, Transport
from flowrun.runtime.links.wire import Keys, Peer, Stream, graph_key
from flowrun.runtime.links.zenoh import ZenohTransport, config_of, open_zenoh
from flowrun.runtime.log.committed import CommittedCycles
from flowrun.runtime.log.message import LoggedCycle
from flowrun.runtime.task import Message, Task

__all__ = ["LinkError", "Links", "open_transport", "streams_of"]

_LOOK_S = 0.05
"""Interval at which the log and the receivers are looked at while nothing happens."""
_AGAIN_S = 1.0
"""Interval at which what may have been lost is said again: a hello, an acknowledgement."""
_HELLO_TIMEOUT_S = 2.0
_ABSENT_S = 10.0
"""Seconds that a run which has ended waits for a receiver that is not there."""
_CLOSE_S = 2.0
_REASSIGN_S = 2.0
"""Seconds for which another replica must be the right one before it gets what is sent."""


class LinkError(FlowrunError):
    """What another partition sends does not fit, or it is lost and the graph says to stop."""


class Started(Protocol):
    """One of a run's tasks, as an object."""

    @property
    def task(self) -> Task: ...


class Committed(Protocol):
    """A cycle that was committed."""

    @property
    def messages(self) -> Sequence[Message]: ...

    @property
    def events(self) -> Sequence[Event]: ...

    @property
    def time(self) -> CycleTime: ...


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
    hello_at_s: float = -_AGAIN_S
    asked_ns: int = 0
    offset_ns: int | None = None
    committed: Cursor = field(default_factory=lambda: Cursor(0, 0))
    """What is in this process's log; (0, 0): nothing is."""
    acknowledged: tuple[Cursor, bool] | None = None
    """What was said last."""
    acknowledged_at_s: float = 0.0


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


class Links:
    """The links of the run of `plan` whose log is at `directory`.

    started_ns: when the run began, as its log says. clock: the run's.
    committed: the cycles that the run commits to its log.
    transport: opens the transport.
    log: a logger of the run.
    now_s: monotonic seconds, for what is said again and again.
    """

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        *,
        started_ns: int,
        clock: Clock,
        log: Any,
        committed: CommittedCycles | None = None,
        transport: Callable[[GraphSpec], Transport] | None = None,
        now_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self._now_s = now_s
        self.error: LinkError | None = None
        """Why the run must end."""
        self.on_error: Callable[[str], None] = lambda _: None
        """Called, on any thread, with the reason when `error` is set."""
        self.hold: Callable[[bool], None] = lambda _: None
        """Called, on the links' thread, when the run is to wait for a sender, and when no longer."""
        self.note: Callable[[Assigned | Met], None] = lambda _: None
        """Called, on any thread, with what is to be recorded in the next cycle: where what is sent goes
        from then on, and that a sender was reached."""
        self.own_status: Callable[[], PartStatus] | None = None
        """How this process is doing, for the others; None tells them nothing."""
        self._news: News | None = None
        self._plan, self._spec = plan, plan.graph.spec
        assert self._spec.part is not None
        self._own = self.peer_of(self._spec.part)
        self._name = graph_key(self._spec.name)
        self._directory, self._run = directory, started_ns
        self._committed = committed
        self._clock, self._log = clock, log
        self._open = open_transport if transport is None else transport
        self._transport: Transport | None = None
        self._shipper: Shipper | None = None
        self._ins: dict[str, _In] = {}
        self._outs: dict[str, _Out] = {}
        self._woken, self._stopped, self._hurried = (threading.Event() for _ in range(3))
        self._thread: threading.Thread | None = None
        self._lookout: Lookout | None = None
        self._replicas: dict[str, tuple[str, ...]] = {}
        """By partition, the replicas that share what is sent to it."""
        self._spread_keys: dict[str, str] = {}
        self._sending_tasks: dict[str, str] = {}
        self._spreads: dict[str, Spread] = {}
        """By partition, to which of its replicas what is sent goes, as of the cycle committed last."""
        self._assigned: dict[str, str] = {}
        """By partition, the replica that was recorded last in this run."""
        self._unassigned_s: dict[str, float] = {}
        self._acked = threading.Event()
        self._in_step: list[_Out] = []
        """The receivers that this run waits for after each cycle."""
        self._sends_itself = self._acknowledges_itself = False
        """Whether the cycles' thread puts what is sent, and acknowledges."""
        self._acknowledging = threading.Lock()
        self._is_held = False
        self._alone = contextlib.ExitStack()
        """Left when another process may be this one."""

    def peer_of(self, part: PartId) -> Peer:
        """How the wire names a process."""
        partition = next(it for it in self._spec.partitions if it.id == part.partition)
        number = partition.processes.index(part.instance)
        return Peer(part.partition, part.instance, partition.number, number)

    # -- the run ---------------------------------------------------------------------------------

    def start(self, tasks: Mapping[str, Started], *, threaded: bool = True) -> None:
        """Open the transport, and give the source tasks what they receive from; `pump` is then called
        by a thread, or by whoever moves the time by hand. `UsageError` where the
        transport cannot be opened, `LogError` where an earlier run's log cannot be read."""
        self._alone.enter_context(only_one(self._directory.parent, self._name, self._own))
        cursors = reached_before(self._plan, self._directory)
        transport = self._transport = self._open(self._spec)
        self._look_out(transport)
        for boundary in self._plan.graph.receives:
            task = tasks[boundary.source].task
            assert isinstance(task, LinkSource)
            self._ins[boundary.source] = self._receive(
                transport, boundary, cursors.get(boundary.source), task
            )
        self._send(transport)
        transport.declare_alive(Keys.of(self._name, self._own).alive)
        if threaded:
            self._tell(transport)
            self._thread = threading.Thread(target=self._work, name="flowrun-links", daemon=True)
            self._thread.start()

    @property
    def goes_in_step(self) -> bool:
        """Whether each cycle is to wait as `wait_in_step` does."""
        return bool(self._in_step)

    def look(self, cycle: Committed) -> None:
        """A cycle was committed. On the cycles' thread."""
        for it in self._ins.values():
            it.committed = it.incoming.published or it.committed
        if self._spreads and self._committed is not None:
            is_said = any(isinstance(event, Assigned) for event in cycle.events)
            if is_said or any(it.is_going_over for it in self._spreads.values()):
                logged = LoggedCycle(*self._committed.last())
                for spread in self._spreads.values():
                    spread.look(logged)
        for out in self._in_step:
            shared = self._spreads.get(out.peer.partition)
            is_for_it = shared is None or shared.at(cycle.time.cycle) == out.peer.instance
            if is_for_it and any(cycle.messages[slot].present for slot in out.slots):
                out.awaited = cycle.time.cycle + 1
        if self._acknowledges_itself:
            self._guarded(partial(self._acknowledge, self._now_s()))
        if not (self._sends_itself or self._acknowledges_itself):
            self._woken.set()

    def restate(self) -> list[Event]:
        """What records of the log up to the cycle that is being committed say of the links, for a reader
        who no longer has them. On the cycles' thread."""
        said: list[Event] = []
        for name, it in self._ins.items():
            cursor = it.incoming.published or it.committed
            if cursor != Cursor(0, 0):
                said.append(Reached(name, *cursor))
        for partition, spread in self._spreads.items():
            said += spread.restated(self._sending_tasks[partition])
        return said

    def wait_in_step(self, is_over: Callable[[], bool]) -> None:
        """Wait until receivers that go in lock-step have in their logs what was sent. On the cycles'
        thread.

        is_over: whether to wait no longer.
        """
        if self._sends_itself and self._shipper is not None:
            self._guarded(self._shipper.ship)
        for out in self._in_step:
            while not (self._is_in_step(out) or is_over() or self._hurried.is_set()):
                self._acked.wait(_LOOK_S)
                self._acked.clear()

    def is_in_step(self) -> bool:
        """Whether `wait_in_step` would not wait."""
        return all(map(self._is_in_step, self._in_step))

    def was_woken(self) -> bool:
        """Whether there is something for `pump` since this was last asked; for who calls it by hand."""
        if not self._woken.is_set():
            return False
        self._woken.clear()
        return True

    def _is_in_step(self, out: _Out) -> bool:
        assert self._shipper is not None
        said = self._shipper.acknowledged[out.peer]
        replica = self._shipper.replica_of(out.peer.partition)
        if replica not in (None, out.peer.instance):
            return True
        if not out.awaited or (said.run == self._run and said.cycle >= out.awaited):
            return True
        is_lost = out.was_there and not out.is_there
        return is_lost and self._spec.network.on_peer_lost == "continue"

    def say_end(self) -> bool:
        """The run has ended in order, and its log is finished: tell the receivers; whether each has
        said that it has all."""
        if self._shipper is None:
            return True
        self._shipper.end()
        self._shipper.say_end()
        return all(self._shipper.has_all(it.peer) for it in self._outs.values())

    def end(self, *, in_order: bool) -> None:
        """The run has ended, and its log is finished. Where it ended in order, this returns when each
        receiver that is there has said that it has all, or `hurry` was called.

        in_order: whether no other run follows, so that receivers may end too.
        """
        if self._transport is None:
            self._alone.close()
            return
        if in_order and self._shipper is not None:
            self._shipper.end()
            self._wait_for_receivers(self._shipper)
        self._stopped.set()
        self._woken.set()
        if self._lookout is not None:
            self._lookout.end()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
        self._acknowledge(self._now_s(), again=True)
        if self._news is not None:
            self._news.say(self._now_s())
        if self._shipper is not None:
            self._shipper.close()
        self._transport.close(timeout_s=_CLOSE_S)
        self._alone.close()

    def hurry(self) -> None:
        """Let `end` wait for nobody. From any thread."""
        self._hurried.set()

    def status(self) -> list[LinkStatus]:
        """How each link is doing; what is received first. From any thread."""
        return [self._status_in(it) for it in self._ins.values()] + [
            self._status_out(it) for it in self._outs.values()
        ]

    def fleet(self) -> list[PartStatus]:
        """How each process of the graph is doing, as far as is known here. From any thread."""
        return [] if self._news is None else self._news.all()

    def _tell(self, transport: Transport) -> None:
        """Have the processes of the graph know how each is doing."""
        parts = [self.peer_of(part) for it in self._spec.partitions for part in it.parts]
        if self.own_status is not None and len(parts) > 1:
            self._news = News(
                transport,
                graph=self._name,
                own=self._own,
                parts=parts,
                run=self._run,
                own_status=self.own_status,
                now_s=self._now_s,
            )

    def _look_out(self, transport: Transport) -> None:
        """Have it said why an address has no connection, where a transport does not say it itself."""
        if isinstance(transport, ZenohTransport):
            partition = next(it for it in self._spec.partitions if it.id == self._own.partition)
            self._lookout = Lookout(
                partition.connect,
                certificates_of(self._spec),
                linked=transport.linked,
                note=self._log.warning,
                unseen=self._unseen,
            )
            self._lookout.start()

    def _unseen(self) -> list[str]:
        """Processes that have not been there."""
        senders = [str(it.peer) for it in self._ins.values() if not it.was_there]
        receivers = [str(it.peer) for it in self._outs.values() if not it.was_there]
        return list(dict.fromkeys([*senders, *receivers]))

    # -- before the first cycle --------------------------------------------------------------------

    def _receive(
        self, transport: Transport, boundary: Boundary, cursor: Cursor | None, task: LinkSource
    ) -> _In:
        peer, streams = self.peer_of(boundary.peer), streams_of(boundary)
        receiver = Receiver(
            transport,
            graph=self._name,
            own=self._own,
            sender=peer,
            streams=streams,
            cursor=cursor,
            note=lambda text: self._log.warning(text, sender=str(peer)),
            run=self._run,
        )
        stops = any(it.link.on_gap == "stop" for it in boundary.streams)
        receiver.is_open = False
        incoming = Incoming(receiver, sender=peer, streams=streams, stops_at_gap=stops)
        task.receive_from(incoming)
        made = _In(peer, boundary, incoming, committed=cursor or Cursor(0, 0))
        transport.watch_alive(Keys.of(self._name, peer).alive, partial(self._sender_is, made))
        return made

    def _send(self, transport: Transport) -> None:
        sends = {self.peer_of(it.peer): it for it in self._plan.graph.sends}
        runs = Runs(self._directory.parent, graph=self._spec.name, partition=str(self._own))
        keys = Keys.of(self._name, self._own)
        for peer, boundary in sends.items():
            partition = next(it for it in self._spec.partitions if it.id == peer.partition)
            if not partition.instances and partition.replicas > 1:
                spread = boundary.streams[0].link.spread
                self._replicas[partition.id] = partition.processes
                self._spread_keys[partition.id] = spread_key(self._own, partition.id, spread)
                self._sending_tasks[partition.id] = boundary.streams[0].task
        if sends:
            tail = LogTail(self._directory, self._committed)
            found = {it: self._spread(it, tail.coded) for it in self._replicas}
            self._spreads = {it: spread for it, spread in found.items() if spread is not None}
            self._shipper = Shipper(
                tail,
                SentLogs(runs, self._run, self._own, spread=self._spread),
                transport,
                graph=self._name,
                own=self._own,
                run=self._run,
                receivers={peer: streams_of(it) for peer, it in sends.items()},
                wake=self._woken.set,
                on_ack=self._acked.set,
                note=self._log.warning,
            )
        for peer, boundary in sends.items():
            slots = [
                slot.index
                for slot in self._plan.slots
                for stream in boundary.streams
                if slot.topic == stream.topic and stream.link.deliver == "lockstep"
            ]
            out = self._outs[str(peer)] = _Out(peer, slots)
            transport.serve(keys.hello(peer), partial(self._say_hello, boundary))
            transport.watch_alive(Keys.of(self._name, peer).alive, partial(self._receiver_is, out))
        self._in_step = [it for it in self._outs.values() if it.slots]
        self._sends_itself = (
            not self._ins
            and not self._replicas
            and all(
                stream.link.deliver == "lockstep" for it in sends.values() for stream in it.streams
            )
        )
        sources = sum(step.task.is_source for step in self._plan.steps)
        self._acknowledges_itself = (
            not sends
            and len(self._ins) == sources == 1
            and all(
                stream.link.deliver == "lockstep"
                for it in self._ins.values()
                for stream in it.boundary.streams
            )
        )

    def _spread(self, partition: str, coded: frozenset[str]) -> Spread | None:
        if partition not in self._replicas:
            return None
        boundary = next(it for it in self._plan.graph.sends if it.peer.partition == partition)
        default = chosen(self._spread_keys[partition], self._replicas[partition])
        return Spread(partition, default, streams_of(boundary), coded)

    # -- from the transport, on any thread -----------------------------------------------------------

    def _say_hello(self, boundary: Boundary, query: Query) -> None:
        query.reply(Hello.of(boundary.streams, self._clock.now_ns()).pack(), b"")
        query.finish()

    def _take_hello(self, it: _In, sample: Sample) -> None:
        said = Hello.unpack(sample.payload)
        if said is None:
            return
        now_ns = self._clock.now_ns()
        it.offset_ns = said.now_ns - (now_ns + it.asked_ns) // 2
        it.refused = misfit(said, str(it.peer), it.boundary.streams) or ""
        if it.refused:
            self._fail(LinkError(it.refused))
            return
        misled = _misled(it)
        if misled is not None:
            self._log.warning(misled)
        self.note(Met(it.boundary.source, it.offset_ns))
        it.is_welcome = it.incoming.receiver.is_open = True
        it.incoming.receiver.reconnected()
        self._woken.set()

    def _sender_is(self, it: _In, is_there: bool) -> None:  # noqa: FBT001
        it.reconnects += is_there and it.was_there and not it.is_there
        it.is_there, it.was_there = is_there, it.was_there or is_there
        # It may have come back as another graph.
        it.is_welcome = it.incoming.receiver.is_open = False
        it.hello_at_s = -_AGAIN_S
        it.incoming.note_sender(is_there=is_there)
        if not is_there and self._spec.network.on_peer_lost == "stop" and not self._is_over(it):
            self._fail(LinkError(f"{it.peer} is lost, and the graph says on_peer_lost: stop"))
        self._woken.set()

    def _receiver_is(self, it: _Out, is_there: bool) -> None:  # noqa: FBT001
        it.reconnects += is_there and it.was_there and not it.is_there
        it.is_there, it.was_there = is_there, it.was_there or is_there
        if not is_there:
            it.left_at_s = self._now_s()
        self._woken.set()

    def _is_over(self, it: _In) -> bool:
        return it.incoming.receiver.ended

    def _fail(self, error: LinkError) -> None:
        if self.error is None:
            self.error = error
            self.on_error(str(error))

    # -- on the links' thread -------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(_LOOK_S)
            self._woken.clear()
            if not self._guarded(self.pump):
                return

    def _guarded(self, call: Callable[[], object]) -> bool:
        """Whether `call` has not failed. Where it has, the run ends."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  # a thread must not end in silence
            self._fail(LinkError(f"the links have failed: {worded(error)}"))
            return False
        return True

    def pump(self) -> None:
        """What there is to do now."""
        now_s = self._now_s()
        now_ns = int(now_s * 1e9)
        if self._shipper is not None:
            self._shipper.pump(now_ns)
            self._assign(self._shipper, now_s)
            if self._shipper.error is not None:
                self._fail(LinkError(f"nothing is sent any more: {self._shipper.error}"))
        for it in self._ins.values():
            if it.is_welcome:
                it.incoming.receiver.pump(now_ns)
            elif it.is_there and now_s - it.hello_at_s >= _AGAIN_S and not it.refused:
                self._ask_hello(it, now_s)
            self._look_for_rival(it)
        self._acknowledge(now_s)
        self._hold_or_go_on()
        if self._news is not None:
            self._news.pump(now_s)

    def _look_for_rival(self, it: _In) -> None:
        rival, it.incoming.receiver.rival = it.incoming.receiver.rival, None
        if rival is not None and rival.later == self._run:
            self._fail(
                LinkError(
                    f"another process runs as {self._own}, since {_date(rival.earlier)}: end that one, "
                    "or run this one as another instance"
                )
            )

    def _ask_hello(self, it: _In, now_s: float) -> None:
        assert self._transport is not None
        it.hello_at_s, it.asked_ns = now_s, self._clock.now_ns()
        self._transport.query(
            Keys.of(self._name, it.peer).hello(self._own),
            b"",
            partial(self._take_hello, it),
            lambda: None,
            timeout_s=_HELLO_TIMEOUT_S,
        )

    def _acknowledge(self, now_s: float, *, again: bool = False) -> None:
        with self._acknowledging:  # an older cursor must not be said after a newer one
            self._acknowledge_all(now_s, again=again)

    def _acknowledge_all(self, now_s: float, *, again: bool) -> None:
        for it in self._ins.values():
            ended = it.incoming.receiver.ended
            says = it.committed, ended
            if again or says != it.acknowledged or now_s - it.acknowledged_at_s >= _AGAIN_S:
                it.acknowledged, it.acknowledged_at_s = says, now_s
                it.incoming.receiver.acknowledge(it.committed)

    def _assign(self, shipper: Shipper, now_s: float) -> None:
        """Have what is sent go to another replica where the present one is gone, or a better one has
        come, for a while."""
        for partition, replicas in self._replicas.items():
            present = shipper.replica_of(partition)
            live = [it for it in replicas if self._outs[f"{partition}/{it}"].is_there]
            wanted = chosen(self._spread_keys[partition], live) if live else present
            if wanted == present or wanted is None or self._assigned.get(partition) == wanted:
                self._unassigned_s.pop(partition, None)
                continue
            since_s = self._unassigned_s.setdefault(partition, now_s)
            if now_s - since_s >= _REASSIGN_S:
                self._assigned[partition] = wanted
                self._log.info("what is sent goes to another replica", to=f"{partition}/{wanted}")
                self.note(Assigned(self._sending_tasks[partition], partition, wanted))

    def _hold_or_go_on(self) -> None:
        if self._spec.network.on_peer_lost != "hold":
            return
        lost = any(
            it.was_there and not it.is_there and not self._is_over(it) for it in self._ins.values()
        )
        if lost != self._is_held:
            self._is_held = lost
            self.hold(lost)

    def _wait_for_receivers(self, shipper: Shipper) -> None:
        """Until each has all, or is not there for a while."""
        if isinstance(self._clock, ManualClock):
            return
        began = self._now_s()
        told, said_at_s = False, -_AGAIN_S
        while not self._hurried.wait(_LOOK_S):
            now_s = self._now_s()
            if now_s - said_at_s >= _AGAIN_S:
                shipper.say_end()
                said_at_s = now_s
            lacking = [
                it
                for it in self._outs.values()
                if not shipper.has_all(it.peer)
                and (it.is_there or now_s - max(it.left_at_s, began) < _ABSENT_S)
            ]
            if not lacking:
                return
            if not told and now_s - began > 1:
                told = True
                self._log.info(
                    "waiting for receivers to take what was sent",
                    receivers=", ".join(str(it.peer) for it in lacking),
                )

    # -- status -----------------------------------------------------------------------------------------

    def _status_in(self, it: _In) -> LinkStatus:
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

    def _status_out(self, it: _Out) -> LinkStatus:
        assert self._shipper is not None
        state = "connected" if it.is_there else "lost" if it.was_there else "connecting"
        said, newest = self._shipper.acknowledged[it.peer], self._shipper.newest
        cursor = said.cycle if said.run == self._run else 0
        lag = max(0, newest + 1 - cursor)
        return LinkStatus(str(it.peer), "out", state, cursor, newest, lag, reconnects=it.reconnects)


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


def open_transport(spec: GraphSpec) -> Transport:
    """The transport that the graph names, for the process that it is run as."""
    assert spec.part is not None
    partition = next(it for it in spec.partitions if it.id == spec.part.partition)
    return open_zenoh(config_of(partition.listen, partition.connect, security_of(spec)))


def streams_of(boundary: Boundary) -> Sequence[Stream]:
    return [
        Stream(
            it.topic,
            it.name,
            is_picture=it.codec != "raw",
            deliver=it.link.deliver,
            carry=it.link.carry or "log",
            max_age_ms=it.link.max_age_ms,
        )
        for it in boundary.streams
    ]
