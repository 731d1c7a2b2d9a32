"""One recorded run of a fleet, run again cycle by cycle, after what its cycles received."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from flowrun.msgs.message import Message
from flowrun.runtime.errors import ReplayError, TaskError
from flowrun.runtime.fleet.deliveries import Arrivals, Delivery
from flowrun.runtime.fleet.found import PartReport
from flowrun.runtime.fleet.order import Need
from flowrun.runtime.fleet.record import FleetRun
from flowrun.runtime.graph.plan import Slot
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.compare import Difference, OnDifference, OnMessage, Recorded
from flowrun.runtime.replay.replay import Replay

__all__ = ["Changed", "RunLane"]


@dataclass(frozen=True, slots=True)
class Changed:
    """A message that differs. made: the one that is made now; None if none is."""

    was_recorded: bool
    made: Message | None


class Others(Protocol):
    """What a lane asks of the other ones."""

    def lane_of(self, delivery: Delivery, receiver: FleetRun) -> int | None:
        """The run from which something came; None if its log is not here."""

    def verify(self, delivery: Delivery, receiver: RunLane) -> None:
        """Compare what came with what the sender's log has."""

    def changed(
        self, delivery: Delivery, receiver: FleetRun
    ) -> Mapping[str, Mapping[int, Changed]]:
        """The messages of a sender that are other ones now, by topic and cycle."""


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
        self.changed: dict[str, dict[int, Changed]] = {}
        graph = replay.plan.graph
        numbers = {it.id: it for it in graph.spec.partitions}
        own = numbers[run.part.partition]
        self.rank = (own.number, own.processes.index(run.part.instance))
        self._others, self._first, self._last = others, first, last
        self._sent_topics = {it.topic for boundary in graph.sends for it in boundary.streams}
        self._arrivals = Arrivals(run, log, graph.receives)
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
            is_made = made is not None and made.present
            self.changed.setdefault(topic, {})[difference.cycle] = Changed(
                recorded is not None, made.copy() if made is not None and is_made else None
            )

    def apply(
        self, slots: Sequence[Slot], messages: Sequence[Message], cycle: int, time_ns: int
    ) -> None:
        """Put what senders make now in the place of what they had made; see `Changes`."""
        del time_ns
        if self._due is None or self._due[0] != cycle or not slots:
            return
        for delivery in self._due[1]:
            if delivery.boundary.source == slots[0].task_id:
                changed = self._others.changed(delivery, self.run_of)
                if changed:
                    _deliver(delivery, changed, {it.port: messages[it.index] for it in slots})


def _deliver(
    delivery: Delivery,
    changed: Mapping[str, Mapping[int, Changed]],
    outputs: Mapping[str, Message],
) -> None:
    for number, stream in enumerate(delivery.boundary.streams):
        others = changed.get(stream.topic)
        if not others:
            continue
        taken, output = delivery.taken[number], outputs[stream.name]
        more = [
            cycle
            for cycle in range(max(delivery.first, taken + 1), delivery.last + 1)
            if cycle in others and not others[cycle].was_recorded and others[cycle].made is not None
        ]
        cycle = max(more, default=taken)
        if cycle not in others:
            continue
        made = others[cycle].made
        output.clear()
        if made is not None:
            output.restore(made.all_fields(), tov_ns=made.tov_ns)
