"""What was sent over a link and what came, over all runs of both ends, as their logs say it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flowrun.runtime.fleet.deliveries import Arrivals, Delivery
from flowrun.runtime.fleet.record import FleetRun
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.graph.spec import PartId, PartitionSpec
from flowrun.runtime.links.check import recorded_spread
from flowrun.runtime.links.sent import picker_of
from flowrun.runtime.links.streams import streams_of
from flowrun.runtime.log.reader import Log

__all__ = ["Link", "Logs", "Sent", "first_wrong"]

Logs = Mapping[FleetRun, Log]
"""Those of a fleet, in the order in which they began."""


class Sent(NamedTuple):
    """A cycle of the sender that has something for the receiver.

    streams: of which it has a message. to: the replica to which it belongs, of several.
    """

    run: int
    cycle: int
    streams: frozenset[int]
    to: str | None = None

    def __str__(self) -> str:
        return f"cycle {self.cycle} of run {self.run}"


@dataclass(frozen=True, slots=True)
class Link:
    """What one process sends to one other, or to the replicas that share it.

    boundary: of one of the receivers; they differ in nothing else than who receives.
    partition: theirs.
    receivers: one, or the replicas.
    is_whole: whether all that was sent must have come.
    """

    boundary: Boundary
    partition: PartitionSpec
    receivers: Sequence[PartId]
    is_whole: bool = True

    def __str__(self) -> str:
        names = ", ".join(map(str, self.receivers))
        return f"link {self.boundary.peer} -> {names}"

    def sent(self, logs: Logs) -> list[Sent]:
        """In order."""
        streams, found = streams_of(self.boundary), []
        for run, log in logs.items():
            if run.part == self.boundary.peer:
                picker = picker_of(log, streams)
                spread = recorded_spread(log, self.boundary, streams, self.partition)
                for cycle in log.cycles():
                    messages = picker.messages(cycle)
                    if messages:
                        numbers = frozenset(it.stream for it in messages)
                        to = None if spread is None else spread.at(cycle.cycle)
                        found.append(Sent(run.number, cycle.cycle, numbers, to))
        return found

    def deliveries(self, receiver: PartId, logs: Logs) -> list[tuple[FleetRun, Delivery]]:
        """What one receiver's logs say it took, in order."""
        return [
            (run, delivery)
            for run, log in logs.items()
            if run.part == receiver
            for delivery in Arrivals(run, log, (self.boundary,)).all()
        ]


def first_wrong(link: Link, logs: Logs) -> str | None:
    """The first cycle of the sender that came twice, out of order, not at all, or not as `deliver` says;
    None if all came once and in order."""
    sent = link.sent(logs)
    order = {(it.run, it.cycle): at for at, it in enumerate(sent)}
    took: dict[int, PartId] = {}
    for receiver in link.receivers:
        last = -1
        for run, delivery in link.deliveries(receiver, logs):
            where = f"in cycle {delivery.at} of {run}"
            gap = delivery.origin.fields["gap"]
            if gap:
                return f"a gap {where}: {gap}"
            cycles = _within(delivery, sent, order)
            if len(cycles) > 1:  # those of another replica may lie between
                cycles = [at for at in cycles if sent[at].to in (None, receiver.instance)]
            for at in cycles:
                if at in took:
                    return f"{sent[at]} came twice, the second time {where}"
                if at < last:
                    return f"{sent[at]} came out of order, after {sent[last]}, {where}"
                if at != last + 1 and len(link.receivers) == 1:
                    return f"{sent[last + 1]} was passed over: {sent[at]} came {where}"
                took[at], last = receiver, at
            wrong = _wrongly_shown(link, delivery, [sent[at] for at in cycles])
            if wrong is not None:
                return f"{wrong}, {where}"
    missing = [at for at in range(len(sent)) if at not in took]
    if missing and link.is_whole:
        return f"{sent[missing[0]]} never came, nor did {len(missing) - 1} others"
    return None


def _within(
    delivery: Delivery, sent: Sequence[Sent], order: Mapping[tuple[int, int], int]
) -> list[int]:
    """The places in `sent` of the cycles that a delivery stands for."""
    at = order.get((delivery.run, delivery.first))
    if at is None:
        first = Sent(delivery.run, delivery.first, frozenset())
        at = bisect_left(sent, first[:2], key=lambda it: it[:2])
    found = []
    while at < len(sent) and sent[at].run == delivery.run and sent[at].cycle <= delivery.last:
        found.append(at)
        at += 1
    return found


def _wrongly_shown(link: Link, delivery: Delivery, cycles: Sequence[Sent]) -> str | None:
    """Of each stream the newest message is shown: with `deliver: every` that of the one cycle. One that
    is too old may be left out. Cycles come together only if nothing that they bring is to be delivered
    otherwise than as the latest."""
    shown = 0
    for number, stream in enumerate(link.boundary.streams):
        newest = max((it.cycle for it in cycles if number in it.streams), default=-1)
        taken = delivery.taken[number]
        shown += taken >= 0
        may_lack = stream.link.max_age_ms is not None
        if taken != newest and not (taken < 0 and may_lack):
            says = "nothing" if taken < 0 else f"cycle {taken}"
            return f"{stream.topic}: {says} is shown, where cycle {newest} is the newest that came"
    brought = frozenset[int]().union(*(it.streams for it in cycles))
    deliver = {link.boundary.streams[it].link.deliver for it in brought} - {"latest"}
    if len(cycles) > 1 and deliver:
        return f"{cycles[0]} to {cycles[-1].cycle} came in one cycle, with deliver: {min(deliver)}"
    came = sum(len(it.streams) for it in cycles)
    if delivery.origin.fields["skipped"] != came - shown:
        said = delivery.origin.fields["skipped"]
        return f"origin says that {said} messages were skipped; {came} came, {shown} are shown"
    return None
