"""All links of a run that is one process of a partition: what it sends, and what it receives.

One thread follows the log, asks senders' logs and acknowledges; a cycle only tells it that it is over.
Where all that a run sends or receives goes in lock-step, its cycles wait for the other side anyway: then
their thread does it between two of them, which spares a change of threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowrun.runtime.clock import Clock, monotonic_s
from flowrun.runtime.errors import FlowrunError, worded
from flowrun.runtime.events import Assigned, Event, Met
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.spec import GraphSpec
from flowrun.runtime.links.inbound import Inbound, Started
from flowrun.runtime.links.lookout import Lookout
from flowrun.runtime.links.news import News
from flowrun.runtime.links.outbound import Committed, Outbound
from flowrun.runtime.links.own import LOOK_S, REST_S, OwnProcess, peer_of
from flowrun.runtime.links.reached import reached_before
from flowrun.runtime.links.rest import Rest, have_ended
from flowrun.runtime.links.rivals import only_one
from flowrun.runtime.links.security import certificates_of, security_of
from flowrun.runtime.links.status import LinkStatus, PartStatus
from flowrun.runtime.links.told import Told
from flowrun.runtime.links.transport import Transport
from flowrun.runtime.links.zenoh import ZenohTransport, config_of, open_zenoh
from flowrun.runtime.log.committed import CommittedCycles
from flowrun.runtime.wakeup import Wakeup

__all__ = ["LinkError", "Links", "open_transport"]

_CLOSE_S = 2.0


class LinkError(FlowrunError):
    """What another partition sends does not fit, or it is lost and the graph says to stop."""


class Links:
    """The links of the run of `plan` whose log is at `directory`.

    started_ns: when the run began, as its log says. clock: the run's.
    committed: the cycles that the run commits to its log.
    transport: opens the transport.
    log: a logger of the run.
    now_s: monotonic seconds, for what is said again and again.
    told: what is heard of the others' ends; None where nobody says it.
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
        told: Told | None = None,
    ) -> None:
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
        self._plan, self._spec, self._directory = plan, plan.graph.spec, directory
        self._log, self._now_s = log, now_s
        self._woken, self._stopped, self._hurried = Wakeup(), threading.Event(), threading.Event()
        assert self._spec.part is not None
        self._own = own = OwnProcess(
            self._spec,
            peer_of(self._spec, self._spec.part),
            started_ns,
            clock=clock,
            log=log,
            now_s=now_s,
            wake=self._woken.set,
            fail=self._fail,
            note=self._note,
            told=told,
        )
        self._told = told
        if told is not None:
            told.on_change = self._heed
            self._heed()
        self._inbound = Inbound(own)
        self._outbound = Outbound(own, plan, directory, committed=committed, hurried=self._hurried)
        self._open = open_transport if transport is None else transport
        self._transport: Transport | None = None
        self._news: News | None = None
        self._thread: threading.Thread | None = None
        self._lookout: Lookout | None = None
        self._sends_itself = self._acknowledges_itself = False
        """Whether the cycles' thread puts what is sent, and acknowledges."""
        self._is_held = False
        self._ring = frozenset(map(str, plan.graph.ring))
        self._rested: tuple[int, dict[str, tuple[int, int]]] | None = None
        self._rest: Rest | None = None
        self._alone = contextlib.ExitStack()
        """Left when another process may be this one."""

    # -- the run ---------------------------------------------------------------------------------

    def start(self, tasks: Mapping[str, Started], *, threaded: bool = True) -> None:
        """Open the transport, and give the source tasks what they receive from; `pump` is then called
        by a thread, or by whoever moves the time by hand. `UsageError` where the
        transport cannot be opened, `LogError` where an earlier run's log cannot be read."""
        own = self._own
        self._alone.enter_context(only_one(self._directory.parent, own.graph, own.peer))
        cursors = reached_before(self._plan, self._directory)
        transport = self._transport = self._open(self._spec)
        self._look_out(transport)
        for boundary in self._plan.graph.receives:
            cursor = cursors.get(boundary.source)
            self._inbound.receive(transport, boundary, cursor, tasks[boundary.source])
        self._outbound.open(transport)
        sends, receives = self._plan.graph.sends, self._plan.graph.receives
        sources = sum(step.task.is_source for step in self._plan.steps)
        self._sends_itself = not receives and self._outbound.is_all_in_step
        self._acknowledges_itself = (
            not sends and len(receives) == sources == 1 and self._inbound.is_all_in_step
        )
        transport.declare_alive(own.keys_of(own.peer).alive)
        if threaded:
            self._tell(transport)
            self._thread = threading.Thread(target=self._work, name="flowrun-links", daemon=True)
            self._thread.start()

    @property
    def ring_sources(self) -> list[str]:
        """The source tasks on which what a ring of partitions sends appears, which this process is in.
        Where there are some, `rest` is to be called."""
        return self._inbound.sources(self._ring)

    def rest(self, cycles: int) -> None:
        """Nothing comes any more but from `ring_sources`; `cycles` have run. On the cycles' thread,
        between two cycles."""
        took = self._inbound.took(self._ring)
        if took is not None:
            self._rested = cycles, took

    @property
    def is_last(self) -> bool:
        """Whether it is known that no other run follows one that ends without an error: who runs all
        processes would start none, and has not asked all to end."""
        return self._told is not None and not self._told.is_over

    @property
    def goes_in_step(self) -> bool:
        """Whether each cycle is to wait as `wait_in_step` does."""
        return self._outbound.goes_in_step

    def look(self, cycle: Committed) -> None:
        """A cycle was committed. On the cycles' thread."""
        self._inbound.look()
        self._outbound.look(cycle)
        if self._acknowledges_itself:
            self._guarded(lambda: self._inbound.acknowledge(self._now_s()))
        if not (self._sends_itself or self._acknowledges_itself):
            self._woken.set()

    def restate(self) -> list[Event]:
        """What records of the log up to the cycle that is being committed say of the links, for a reader
        who no longer has them. On the cycles' thread."""
        return [*self._inbound.restate(), *self._outbound.restate()]

    def wait_in_step(self, is_over: Callable[[], bool]) -> None:
        """Wait until receivers that go in lock-step have in their logs what was sent. On the cycles'
        thread.

        is_over: whether to wait no longer.
        """
        if self._sends_itself:
            self._guarded(self._outbound.ship)
        self._outbound.wait_in_step(is_over)

    def is_in_step(self) -> bool:
        """Whether `wait_in_step` would not wait."""
        return self._outbound.is_in_step()

    def was_woken(self) -> bool:
        """Whether there is something for `pump` since this was last asked; for who calls it by hand."""
        if not self._woken.is_set():
            return False
        self._woken.clear()
        return True

    def say_end(self) -> list[str]:
        """The run has ended in order, and its log is finished: tell the receivers; those that have not
        said that they have all."""
        return self._outbound.say_end()

    def end(self, *, in_order: bool) -> None:
        """The run has ended, and its log is finished. Where it ended in order, this returns when each
        receiver that is there has said that it has all, or `hurry` was called.

        in_order: whether no other run follows, so that receivers may end too.
        """
        if self._transport is None:
            self._alone.close()
            return
        if in_order:
            self._inbound.end()
            self._outbound.end()
        self._stopped.set()
        self._woken.set()
        if self._lookout is not None:
            self._lookout.end()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
        self._inbound.acknowledge(self._now_s(), again=True)
        if self._news is not None:
            self._news.say(self._now_s())
        self._outbound.close()
        self._transport.close(timeout_s=_CLOSE_S)
        self._alone.close()

    def hurry(self) -> None:
        """Let `end` wait for nobody. From any thread."""
        self._hurried.set()

    @property
    def waits_at_end(self) -> bool:
        """Whether `end` waits for receivers. From any thread."""
        return self._outbound.waits and not self._hurried.is_set()

    def _heed(self) -> None:
        """Something was heard of the others' ends."""
        if self._told is not None and self._told.is_over:
            self._hurried.set()
        self._woken.set()

    def status(self) -> list[LinkStatus]:
        """How each link is doing; what is received first. From any thread."""
        return [*self._inbound.status(), *self._outbound.status()]

    def fleet(self) -> list[PartStatus]:
        """How each process of the graph is doing, as far as is known here. From any thread."""
        return [] if self._news is None else self._news.all()

    def _tell(self, transport: Transport) -> None:
        """Have the processes of the graph know how each is doing."""
        own = self._own
        parts = [peer_of(own.spec, part) for it in self._spec.partitions for part in it.parts]
        if self.own_status is not None and len(parts) > 1:
            self._news = News(
                transport,
                graph=own.graph,
                own=own.peer,
                parts=parts,
                run=own.run,
                own_status=self.own_status,
                now_s=self._now_s,
                own_rest=lambda: self._rest,
            )

    def _look_out(self, transport: Transport) -> None:
        """Have it said why an address has no connection, where a transport does not say it itself."""
        if isinstance(transport, ZenohTransport):
            partition = next(
                it for it in self._spec.partitions if it.id == self._own.peer.partition
            )
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
        return list(dict.fromkeys([*self._inbound.unseen(), *self._outbound.unseen()]))

    def _note(self, event: Assigned | Met) -> None:
        self.note(event)

    def _fail(self, why: str) -> None:
        if self.error is None:
            self.error = LinkError(why)
            self.on_error(why)

    # -- on the links' thread -------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(LOOK_S if self._inbound.is_behind else REST_S)
            if not self._guarded(self.pump):
                return

    def _guarded(self, call: Callable[[], object]) -> bool:
        """Whether `call` has not failed. Where it has, the run ends."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  # a thread must not end in silence
            self._fail(f"the links have failed: {worded(error)}")
            return False
        return True

    def pump(self) -> None:
        """What there is to do now."""
        now_s, rested = self._now_s(), self._rested
        self._outbound.pump(now_s)
        if rested is not None:
            self._end_ring(*rested)
        self._inbound.pump(now_s)
        self._hold_or_go_on()
        if self._news is not None:
            self._news.pump(now_s)

    def _end_ring(self, cycles: int, took: dict[str, tuple[int, int]]) -> None:
        """Let the ring end that this process is in, where none of it has anything to do."""
        newest, sent = self._outbound.sent(self._ring)
        if newest < cycles:  # else there was another cycle since
            self._rest = Rest(self._own.run, sent, took)
        if self._news is not None and have_ended(self._ring, self._news.rests()):
            self._inbound.finish(self._ring)

    def _hold_or_go_on(self) -> None:
        if self._spec.network.on_peer_lost != "hold":
            return
        lost = self._inbound.lost
        if lost != self._is_held:
            self._is_held = lost
            self.hold(lost)


def open_transport(spec: GraphSpec) -> Transport:
    """The transport that the graph names, for the process that it is run as."""
    assert spec.part is not None
    partition = next(it for it in spec.partitions if it.id == spec.part.partition)
    return open_zenoh(config_of(partition.listen, partition.connect, security_of(spec)))
