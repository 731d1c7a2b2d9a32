"""All runs of a fleet again, each with its own log, cycle by cycle in causal order.

What one process received comes from its own log, as in a replay of that run alone. Two things more are
compared: what the receiver's log says it got with what the sender's log has, and, where a sender makes
another message now, what its receivers make of that: it goes into the cycles in which the recorded one
was delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from flowrun.msgs.message import Message
from flowrun.runtime.errors import LogError, ReplayError, TaskError, UsageError
from flowrun.runtime.fleet.deliveries import Arrivals, Delivery
from flowrun.runtime.fleet.order import Cut, Need, in_causal_order
from flowrun.runtime.fleet.record import FleetRun
from flowrun.runtime.graph.plan import Slot
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.links.check import received
from flowrun.runtime.links.links import streams_of
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.compare import Difference, Recorded, Tolerance
from flowrun.runtime.replay.cycles import ReplayReport
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.wording import listed, nearest

__all__ = ["FleetReplay", "FleetReport", "LinkDifference", "PartReport"]

_Sender = tuple[PartId, int]
"""A run, as the messages that it sent name it."""


@dataclass(frozen=True, slots=True)
class LinkDifference:
    """What a receiver's log says it got is not what the sender's log has.

    first, last: the sender's cycles.
    what: the receiver's cycle, the topic, and what differs.
    """

    sender: FleetRun
    receiver: FleetRun
    first: int
    last: int
    what: str

    def __str__(self) -> str:
        several = f"s {self.first} to" if self.first != self.last else ""
        return (
            f"link {self.sender.part} -> {self.receiver.part}, cycle{several} {self.last} of "
            f"{self.sender.path.name}, got in {self.receiver.path.name}:\n  {self.what}"
        )


@dataclass(slots=True)
class PartReport:
    """What the replay of one run found."""

    run: FleetRun
    report: ReplayReport
    notes: list[str]


@dataclass(slots=True)
class FleetReport:
    """What the replay of a fleet found.

    parts: of each run, in the order in which they began.
    first: the run whose message was the first to differ, and how.
    delivered: number of deliveries whose bytes are those that the sender's log has.
    unverified: number of those of which the sender's log, or a part of it, is not there.
    links: the deliveries that are others than were sent.
    """

    parts: list[PartReport]
    first: tuple[FleetRun, Difference] | None = None
    delivered: int = 0
    unverified: int = 0
    links: list[LinkDifference] = field(default_factory=list)

    @property
    def is_identical(self) -> bool:
        """Whether nothing differs."""
        return not self.links and not any(
            it.report.first is not None or it.report.missing for it in self.parts
        )


class FleetReplay:
    """The runs of a fleet, to run again.

    runs: see `fleet_runs`.
    specs: gives the graph of a run: the recorded one, or another. May raise `UntrustedRun`.
    config: "task.key" -> value in place of the recorded one, in whichever partition the task is.
    feed, only: as in `Replay`, of tasks of any partition.
    partial: whether logs that were received from may be missing.

    `UsageError` for a task that no partition has, and for a missing log.
    """

    def __init__(
        self,
        runs: Sequence[FleetRun],
        *,
        specs: Callable[[Log], GraphSpec],
        config: Mapping[str, Any] | None = None,
        feed: Collection[str] = (),
        only: Collection[str] | None = None,
        tolerance: Tolerance | None = None,
        partial: bool = False,
    ) -> None:
        self._stack = ExitStack()
        self._partial = partial
        self._senders: dict[_Sender, int] = {}
        self._lanes: list[_Lane] = []
        self.report = FleetReport([])
        config = dict(config or {})
        try:
            opened = [(run, self._stack.enter_context(Log(run.path))) for run in runs]
            graphs = [specs(log) for _, log in opened]
            _check_tasks([*feed, *(only or ()), *(it.partition(".")[0] for it in config)], graphs)
            for (run, log), spec in zip(opened, graphs, strict=True):
                if next(log.cycles(), None) is None:
                    note = f"{run.path.name} holds no cycle: the process ended before its first"
                    self.report.parts.append(PartReport(run, ReplayReport(), [note]))
                    continue
                own = {it.id for it in spec.tasks if it.partition == run.part.partition}
                replay = Replay(
                    log,
                    graph=spec,
                    feed=[it for it in feed if it in own],
                    only=None if only is None else [it for it in only if it in own],
                    config={k: v for k, v in config.items() if k.partition(".")[0] in own},
                    tolerance=tolerance,
                )
                part = PartReport(run, replay.report, replay.notes)
                self._senders[run.part, run.number] = len(self._lanes)
                self._lanes.append(_Lane(self, part, log, replay))
                self.report.parts.append(part)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def cycles(self) -> int:
        """Number of recorded cycles."""
        return sum(lane.replay.last_cycle + 1 for lane in self._lanes)

    def run(self, *, progress: Callable[[int], None] | None = None) -> FleetReport:
        """Run all cycles of all runs. Differences are counted, not raised.

        progress: called after each cycle with the number of cycles done.

        Raises `ReplayError`, naming the run, for an error that the recording does not have, and for
        logs that contradict each other.
        """
        done = 0
        with ExitStack() as started:
            for lane in self._lanes:
                started.enter_context(lane.replay)
            lanes = dict(enumerate(self._lanes))
            try:
                for at in in_causal_order(lanes, lambda it: (*self._lanes[it].rank, it)):
                    done += 1
                    if self.report.first is None and (first := self._lanes[at].first) is not None:
                        self.report.first = self._lanes[at].run_of, first
                    if progress is not None:
                        progress(done)
            except Cut as cut:
                names = listed(str(self._lanes[int(str(it))].run_of) for it in cut.lanes)
                raise ReplayError(
                    f"the logs contradict each other: each of {names} says that it received what "
                    "another one sent later"
                ) from None
            for lane in self._lanes:
                lane.part.report, lane.part.notes = lane.replay.report, lane.replay.notes
        return self.report

    # -- for the lanes -------------------------------------------------------------------------

    def lane_of(self, delivery: Delivery, receiver: FleetRun) -> int | None:
        """The run from which something came; None if its log is not here."""
        found = self._senders.get((delivery.sender, delivery.run))
        if found is None and not self._partial:
            raise UsageError(
                f"cycle {delivery.at} of {receiver} received from {delivery.sender}, run "
                f"{delivery.run}, whose log is not here; --partial replays what there is"
            )
        return found

    def verify(self, delivery: Delivery, receiver: _Lane) -> None:
        """Compare what came with what the sender's log has."""
        at = self.lane_of(delivery, receiver.run_of)
        if delivery.last < delivery.first:
            return  # cycles that never come
        if at is None:
            self.report.unverified += 1
            return
        sender = self._lanes[at]
        try:
            found = received(
                sender.log, receiver.log, delivery.origin, streams_of(delivery.boundary)
            )
        except LogError:  # what retention has removed
            self.report.unverified += 1
            return
        if found is None:
            self.report.delivered += 1
        else:
            link = LinkDifference(
                sender.run_of, receiver.run_of, delivery.first, delivery.last, found
            )
            self.report.links.append(link)

    def changed(self, delivery: Delivery, receiver: FleetRun) -> dict[str, dict[int, _Changed]]:
        """The messages of a sender that are other ones now, by topic and cycle."""
        at = self.lane_of(delivery, receiver)
        return {} if at is None else self._lanes[at].changed


@dataclass(frozen=True, slots=True)
class _Changed:
    """A message that differs. made: the one that is made now; None if none is."""

    was_recorded: bool
    made: Message | None


class _Lane:
    """One run, as a lane of the order."""

    def __init__(self, fleet: FleetReplay, part: PartReport, log: Log, replay: Replay) -> None:
        self.part, self.replay = part, replay
        run = self.run_of = part.run
        self.changed: dict[str, dict[int, _Changed]] = {}
        graph = replay.plan.graph
        numbers = {it.id: it for it in graph.spec.partitions}
        own = numbers[run.part.partition]
        self.rank = (own.number, own.processes.index(run.part.instance))
        self._fleet, self.log = fleet, log
        self._sent_topics = {it.topic for boundary in graph.sends for it in boundary.streams}
        self._arrivals = Arrivals(run, log, graph.receives)
        self._due: tuple[int, list[Delivery]] | None = None
        replay.hook(on_difference=self._note_difference, faults=self)

    @property
    def first(self) -> Difference | None:
        """The first difference so far."""
        return self.replay.report.first

    # -- as a lane -----------------------------------------------------------------------------

    @property
    def next(self) -> tuple[int, int] | None:
        cycle, time_ns = self.replay.cycle, self.replay.time_ns
        return None if cycle is None or time_ns is None else (time_ns, cycle)

    def needs(self) -> Iterable[Need[int]]:
        found = []
        for delivery in self._deliveries():
            at = self._fleet.lane_of(delivery, self.run_of)
            if at is not None:
                found.append(Need(at, delivery.last))
        return found

    def run(self) -> None:
        for delivery in self._deliveries():
            self._fleet.verify(delivery, self)
        try:
            self.replay.next_cycle()
        except TaskError as error:
            raise ReplayError(f"{self.run_of}: {error}") from error
        except ReplayError as error:
            raise ReplayError(f"{self.run_of}: {error}") from error

    def _deliveries(self) -> list[Delivery]:
        cycle = self.replay.cycle
        assert cycle is not None
        if self._due is None or self._due[0] != cycle:
            self._due = cycle, self._arrivals.of(cycle)
        return self._due[1]

    # -- what is made now ------------------------------------------------------------------------

    def _note_difference(
        self, difference: Difference, recorded: Recorded | None, made: Message | None
    ) -> None:
        topic = f"/{difference.task}/{difference.port}"
        if topic in self._sent_topics:
            is_made = made is not None and made.present
            self.changed.setdefault(topic, {})[difference.cycle] = _Changed(
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
                changed = self._fleet.changed(delivery, self.run_of)
                if changed:
                    _deliver(delivery, changed, {it.port: messages[it.index] for it in slots})


def _deliver(
    delivery: Delivery,
    changed: Mapping[str, Mapping[int, _Changed]],
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


def _check_tasks(names: Iterable[str], graphs: Sequence[GraphSpec]) -> None:
    known = dict.fromkeys(task.id for graph in graphs for task in graph.tasks)
    for name in names:
        if name not in known:
            raise UsageError(f"unknown task {name!r}; tasks: {listed(known)}{nearest(name, known)}")
