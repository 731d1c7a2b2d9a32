"""What holds in a fleet whatever happened: each message came once, in order, and all of it replays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.fleet.deliveries import Arrivals, Delivery
from flowrun.runtime.fleet.record import FleetRun, fleet_runs
from flowrun.runtime.fleet.replay import FleetReplay
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.log.reader import Log

__all__ = ["broken_invariants"]

_Sent = tuple[int, int]
"""A run and a cycle of it."""


def broken_invariants(
    folder: Path, plans: Mapping[PartId, Plan], specs: Callable[[Log], GraphSpec]
) -> list[str]:
    """A sentence on each invariant that does not hold in the folder of a fleet whose processes have
    ended, and had the time to get all that was sent.

    plans: of each process. specs: as `FleetReplay` takes it.
    """
    runs = fleet_runs(folder)
    found: list[str] = []
    with ExitStack() as stack:
        logs = {run: stack.enter_context(Log(run.path)) for run in runs}
        for part, plan in plans.items():
            for boundary in plan.graph.receives:
                sent = list(_sent(boundary, runs, logs))
                got = list(_got(part, boundary, runs, logs, sent))
                wrong = _first_wrong(sent, got)
                if wrong is not None:
                    found.append(f"link {boundary.peer} -> {part}: {wrong}")
    try:
        with FleetReplay(runs, specs=specs) as replay:
            report = replay.run()
    except FlowrunError as error:
        return [*found, f"the fleet does not replay: {error}"]
    found += [f"what came is not what was sent: {link}" for link in report.links]
    if report.first is not None:
        run, difference = report.first
        found.append(f"the replay differs: {run}, {difference}")
    return found


def _sent(
    boundary: Boundary, runs: Sequence[FleetRun], logs: Mapping[FleetRun, Log]
) -> Iterator[_Sent]:
    """The sender's cycles that have something for the receiver."""
    topics = {stream.topic for stream in boundary.streams}
    for run in runs:
        if run.part == boundary.peer:
            for cycle in logs[run].cycles():
                if any(topic in topics for topic, _, _ in cycle.entries):
                    yield run.number, cycle.cycle


def _got(
    receiver: PartId,
    boundary: Boundary,
    runs: Sequence[FleetRun],
    logs: Mapping[FleetRun, Log],
    sent: Sequence[_Sent],
) -> Iterator[_Sent | str]:
    """Those that the receiver's logs say it took, over all its runs; a text for what never came."""
    for run in runs:
        if run.part == receiver:
            for delivery in Arrivals(run, logs[run], (boundary,)).all():
                gap = delivery.origin.fields["gap"]
                if gap:
                    yield f"a gap: {gap}"
                yield from _within(delivery, sent)


def _within(delivery: Delivery, sent: Sequence[_Sent]) -> Iterator[_Sent]:
    for run, cycle in sent:
        if run == delivery.run and delivery.first <= cycle <= delivery.last:
            yield run, cycle


def _first_wrong(sent: Sequence[_Sent], got: Sequence[_Sent | str]) -> str | None:
    for at, it in enumerate(got):
        if isinstance(it, str):
            return it
        if at >= len(sent) or it != sent[at]:
            seen = it in got[:at]
            how = "came twice" if seen else "came out of order"
            return f"cycle {it[1]} of run {it[0]} {how}"
    if len(got) < len(sent):
        run, cycle = sent[len(got)]
        return f"cycle {cycle} of run {run} never came, nor did {len(sent) - len(got) - 1} after it"
    return None
