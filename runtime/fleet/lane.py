"""One recorded run of a fleet, run again cycle by cycle, after what its cycles received."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol

from flowrun.msgs.message import Message
from flowrun.runtime.errors import ReplayError, TaskError
from flowrun.runtime.fleet.deliveries import Arrivals, Delivery
from flowrun.runtime.fleet.found import PartReport
from flowrun.runtime.fleet.order import Need
from flowrun.runtime.fleet.record import FleetRun
from flowrun.runtime.fleet.substitutes import Substitutes
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.graph.plan import Slot
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.compare import Difference, OnDifference, OnMessage, Recorded
from flowrun.runtime.replay.replay import Replay

__all__ = ["RunLane"]


_MOST_KEPT = 32
"""Number of messages that one receiver keeps of a sender, made in place of recorded ones, before it goes
first where it can. They may be pictures."""


class Others(Protocol):
    """What a lane asks of the other ones."""

    def lane_of(self, delivery: Delivery, receiver: FleetRun) -> int | None:
        """The run from which something came; None if its log is not here."""

    def verify(self, delivery: Delivery, receiver: RunLane) -> None:
        """Compare what came with what the sender's log has."""

    def receivers_of(self, sender: FleetRun) -> list[tuple[int, Substitutes]]:
        """The lanes that received from a run, with what they are to take in place of that. To be asked
        for once."""


class RunLane:
    """One run, as a lane of the order. Its tasks run from its first cycle to its last: runs of one
    process, each with a model, are not in memory at the same time.

    first, last: the cycles to run; None for those of the log.
    """

    def __init__(
        self,
        others: Others,
        part: PartReport,
        log: Log,
        replay: Replay,
        *,
        first: int | None = None,
        last: int | None = None,
    ) -> None:
        self.part, self.replay, self.log = part, replay, log
        run = self.run_of = part.run
        graph = replay.plan.graph
        numbers = {it.id: it for it in graph.spec.partitions}
        own = numbers[run.part.partition]
        self.rank = (own.number, own.processes.index(run.part.instance))
        self._others, self._first, self._last = others, first, last
        self._sent_topics = {it.topic for boundary in graph.sends for it in boundary.streams}
        self._receives = graph.receives
        self._arrivals = Arrivals(run, log, graph.receives)
        self._receivers: list[tuple[int, Substitutes]] | None = None
        """Those of what this lane sends; None before something is another message now."""
        self._instead: dict[tuple[str, int], Substitutes] = {}
        """What comes in place of what was received, by source task and the sender's run."""
        self._due: tuple[int, list[Delivery]] | None = None
        self._started = ExitStack()
        self._awaited: tuple[int, int] | None = None
        """Before the tasks are started: the time and the number of what is taken for the first cycle."""
        record = next(log.cycles(first), None)
        if record is not None:
            self._awaited = record.time_ns, record.cycle
        self.pace: Callable[[int], None] | None = None
        """Called before each cycle with its time."""
        self._watch: OnDifference | None = None
        self.watch(None, None)

    def watch(self, on_difference: OnDifference | None, on_message: OnMessage | None) -> None:
        """Have both called as `Replay.hook` says."""
        self._watch = on_difference
        self.replay.hook(on_difference=self._note_difference, on_message=on_message, faults=self)

    @property
    def first(self) -> Difference | None:
        """The first difference so far."""
        return self.replay.report.first

    def finish(self) -> None:
        """Stop the tasks; what they made stays."""
        self._awaited = None
        self._started.close()
        self.part.report, self.part.notes = self.replay.report, self.replay.notes

    # -- as a lane -----------------------------------------------------------------------------

    @property
    def next(self) -> tuple[int, int] | None:
        found = self._awaited
        if found is None:
            cycle, time_ns = self.replay.cycle, self.replay.time_ns
            found = None if cycle is None or time_ns is None else (time_ns, cycle)
        return (
            None if found is None or (self._last is not None and found[1] > self._last) else found
        )

    def needs(self) -> Iterable[Need[int]]:
        found = []
        for delivery in self._deliveries():
            at = self._others.lane_of(delivery, self.run_of)
            if at is not None:
                found.append(Need(at, delivery.last))
        return found

    def goes_after(self) -> Iterable[int]:
        return [at for at, kept in self._receivers or () if len(kept) >= _MOST_KEPT]

    def run(self) -> None:
        try:
            if self._awaited is not None and not self._start():
                return
            for delivery in self._deliveries():
                self._others.verify(delivery, self)
            if self.pace is not None and self.replay.time_ns is not None:
                self.pace(self.replay.time_ns)
            self.replay.next_cycle()
        except (TaskError, ReplayError) as error:
            raise ReplayError(f"{self.run_of}: {error}") from error
        if self.next is None:
            self.finish()

    def _start(self) -> bool:
        """Start the tasks; whether the next cycle is the one that was taken for it. It is a later one
        where the log begins in the middle of its run."""
        awaited, self._awaited = self._awaited, None
        self._started.enter_context(self.replay)
        if self._first is not None and awaited is not None:
            self.replay.seek(awaited[1])
        return awaited is not None and self.replay.cycle == awaited[1]

    def _deliveries(self) -> list[Delivery]:
        upcoming = self.next
        if upcoming is None:
            return []
        cycle = upcoming[1]
        if self._due is None or self._due[0] != cycle:
            self._due = cycle, self._arrivals.of(cycle)
        return self._due[1]

    # -- what is made now ------------------------------------------------------------------------

    def _note_difference(
        self, difference: Difference, recorded: Recorded | None, made: Message | None
    ) -> None:
        if self._watch is not None:
            self._watch(difference, recorded, made)
        topic = f"/{difference.task}/{difference.port}"
        if topic in self._sent_topics:
            if self._receivers is None:
                self._receivers = self._others.receivers_of(self.run_of)
            for _, substitutes in self._receivers:
                substitutes.offer(
                    topic,
                    difference.cycle,
                    was_recorded=recorded is not None,
                    made=made if made is not None and made.present else None,
                )

    def substitutes_for(self, sender: FleetRun) -> Iterator[Substitutes]:
        """One for each source task on which something of a run of a sender came."""
        for boundary in self._receives:
            if boundary.peer == sender.part:
                made = Substitutes(self._taken(boundary, sender.number))
                self._instead[boundary.source, sender.number] = made
                yield made

    def _taken(self, boundary: Boundary, run: int) -> Iterator[Delivery]:
        """What the cycles that run took of a run of a sender."""
        for it in Arrivals(self.run_of, self.log, (boundary,)).all():
            is_run = (self._first is None or self._first <= it.at) and (
                self._last is None or it.at <= self._last
            )
            if it.run == run and is_run:
                yield it

    def apply(
        self, slots: Sequence[Slot], messages: Sequence[Message], cycle: int, time_ns: int
    ) -> None:
        """Put what senders make now in the place of what they had made; see `Changes`."""
        del time_ns
        if self._due is None or self._due[0] != cycle or not slots:
            return
        for delivery in self._due[1]:
            substitutes = self._instead.get((delivery.boundary.source, delivery.run))
            if delivery.boundary.source == slots[0].task_id and substitutes is not None:
                substitutes.take(cycle, {it.port: messages[it.index] for it in slots})
