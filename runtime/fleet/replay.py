"""All runs of a fleet again, each with its own log, cycle by cycle in causal order.

What one process received comes from its own log, as in a replay of that run alone. Two things more are
compared: what the receiver's log says it got with what the sender's log has, and, where a sender makes
another message now, what its receivers make of that: it goes into the cycles in which the recorded one
was delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

from flowrun.runtime.errors import LogError, ReplayError, UsageError
from flowrun.runtime.fleet.deliveries import Delivery
from flowrun.runtime.fleet.found import FleetReport, LinkDifference, PartReport
from flowrun.runtime.fleet.lane import RunLane
from flowrun.runtime.fleet.order import Cut, in_causal_order
from flowrun.runtime.fleet.record import FleetRun
from flowrun.runtime.fleet.substitutes import Substitutes
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.links.check import received, recorded_spread
from flowrun.runtime.links.spread import Spread
from flowrun.runtime.links.streams import streams_of
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.compare import Tolerance
from flowrun.runtime.replay.cycles import ReplayReport
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.wording import listed, nearest

__all__ = ["FleetReplay", "FleetReport", "LinkDifference", "PartReport", "Span"]

Span = Callable[[Log], tuple[int | None, int | None]]
"""The first and the last cycle of a log that are to run; None for those of the log."""


def _all(_log: Log) -> tuple[int | None, int | None]:
    return None, None


class FleetReplay:
    """The runs of a fleet, to run again.

    runs: see `fleet_runs`.
    specs: gives the graph of a run: the recorded one, or another. May raise `UntrustedRun`.
    config: "task.key" -> value in place of the recorded one, in whichever partition the task is.
    feed, only: as in `Replay`, of tasks of any partition.
    partial: whether logs that were received from may be missing.
    span: which cycles of a log run.
    options: others of `Replay`, for each run.

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
        span: Span = _all,
        **options: Any,
    ) -> None:
        self._stack = ExitStack()
        self._partial = partial
        self._senders: dict[tuple[PartId, int], int] = {}
        """The lane of each run, as the messages that it sent name it."""
        self.lanes: list[RunLane] = []
        self._spreads: dict[tuple[int, str], Spread | None] = {}
        """To which replicas of a partition the cycles of a lane went; None where all got all."""
        self.report = FleetReport([])
        config = dict(config or {})
        try:
            opened = [(run, self._stack.enter_context(Log(run.path))) for run in runs]
            graphs = [specs(log) for _, log in opened]
            _check_tasks([*feed, *(only or ()), *(it.partition(".")[0] for it in config)], graphs)
            self.report.notes += _absent(runs, graphs)
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
                    **options,
                )
                part = PartReport(run, replay.report, replay.notes)
                first, last = span(log)
                self._senders[run.part, run.number] = len(self.lanes)
                self.lanes.append(RunLane(self, part, log, replay, first=first, last=last))
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
        return sum(lane.replay.last_cycle + 1 for lane in self.lanes)

    def run(
        self,
        *,
        progress: Callable[[int], None] | None = None,
        pace: Callable[[int], None] | None = None,
    ) -> FleetReport:
        """Run all cycles of all runs. Differences are counted, not raised.

        progress: called after each cycle with the number of cycles done.
        pace: called before each cycle with its time.

        Raises `ReplayError`, naming the run, for an error that the recording does not have, and for
        logs that contradict each other.
        """
        done = 0
        with ExitStack() as finished:
            for lane in self.lanes:
                finished.callback(lane.finish)
                lane.pace = pace
            lanes = dict(enumerate(self.lanes))
            try:
                for at in in_causal_order(lanes, lambda it: (*self.lanes[it].rank, it)):
                    done += 1
                    if self.report.first is None and (first := self.lanes[at].first) is not None:
                        self.report.first = self.lanes[at].run_of, first
                    if progress is not None:
                        progress(done)
            except Cut as cut:
                names = listed(str(self.lanes[int(str(it))].run_of) for it in cut.lanes)
                raise ReplayError(
                    f"the logs contradict each other: each of {names} says that it received what "
                    "another one sent later"
                ) from None
        for lane in self.lanes:
            if (loss := lane.log.loss) is not None:
                lane.part.notes.insert(0, loss)
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

    def _shares(self, sender: int, delivery: Delivery, receiver: RunLane) -> Callable[[int], bool]:
        """Whether a cycle of the run `sender` went to the receiver, which may be a replica."""
        part, spec = receiver.run_of.part, receiver.replay.plan.graph.spec
        key = sender, part.partition
        if key not in self._spreads:
            partition = next(it for it in spec.partitions if it.id == part.partition)
            log = self.lanes[sender].log
            self._spreads[key] = recorded_spread(
                log, delivery.boundary, streams_of(delivery.boundary), partition
            )
        spread = self._spreads[key]
        return lambda cycle: spread is None or spread.at(cycle) == part.instance

    def verify(self, delivery: Delivery, receiver: RunLane) -> None:
        """Compare what came with what the sender's log has."""
        at = self.lane_of(delivery, receiver.run_of)
        if delivery.last < delivery.first:
            return  # cycles that never come
        if at is None:
            self.report.unverified += 1
            return
        sender = self.lanes[at]
        try:
            found = received(
                sender.log,
                receiver.log,
                delivery.origin,
                streams_of(delivery.boundary),
                is_for=self._shares(at, delivery, receiver),
            )
        except LogError:  # retention has removed it, or it is damaged
            self.report.unverified += 1
            return
        if found is None:
            self.report.delivered += 1
        else:
            link = LinkDifference(
                sender.run_of, receiver.run_of, delivery.first, delivery.last, found
            )
            self.report.links.append(link)

    def receivers_of(self, sender: FleetRun) -> list[tuple[int, Substitutes]]:
        """The lanes that received from a run, with what they are to take in place of that."""
        return [
            (at, it) for at, lane in enumerate(self.lanes) for it in lane.substitutes_for(sender)
        ]


def _check_tasks(names: Iterable[str], graphs: Sequence[GraphSpec]) -> None:
    known = dict.fromkeys(task.id for graph in graphs for task in graph.tasks)
    for name in names:
        if name not in known:
            raise UsageError(f"unknown task {name!r}; tasks: {listed(known)}{nearest(name, known)}")


def _absent(runs: Sequence[FleetRun], graphs: Sequence[GraphSpec]) -> list[str]:
    """A note where processes of the graphs have no run here."""
    known = dict.fromkeys(part for graph in graphs for it in graph.partitions for part in it.parts)
    lacking = [str(part) for part in known if part not in {run.part for run in runs}]
    return [f"no run of {listed(lacking)} is here"] if lacking else []
