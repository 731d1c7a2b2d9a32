"""What holds in a fleet whatever happened: each message came once, in order, and all of it replays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.fleet.ending import ending_order_of_plans
from flowrun.runtime.fleet.record import fleet_runs
from flowrun.runtime.fleet.replay import FleetReplay
from flowrun.runtime.fleet.simulation.sequences import Link, first_wrong
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.log.reader import Log

__all__ = ["Verdict", "links_of", "verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """broken: a sentence on each invariant that does not hold. came: number of deliveries whose bytes
    are those that were sent. compared: number of messages that a replay made again.
    traceback: of a defect of flowrun."""

    broken: list[str]
    came: int = 0
    compared: int = 0
    traceback: str = ""


def verdict(
    folder: Path,
    plans: Mapping[PartId, Plan],
    specs: Callable[[Log], GraphSpec],
    *,
    failed: Collection[PartId] = (),
) -> Verdict:
    """What holds in the folder of a fleet whose processes have ended, and had the time to get all that
    was sent.

    plans: of each process. specs: as `FleetReplay` takes it.
    failed: processes that have ended before they had all, as the graph says.
    """
    runs = fleet_runs(folder)
    broken: list[str] = []
    with ExitStack() as stack:
        logs = {run: stack.enter_context(Log(run.path)) for run in runs}
        for link in links_of(plans, failed):
            wrong = first_wrong(link, logs)
            if wrong is not None:
                broken.append(f"{link}: {wrong}")
    try:
        with FleetReplay(runs, specs=specs) as replay:
            report = replay.run()
    except FlowrunError as error:
        return Verdict([*broken, f"the fleet does not replay: {error}"])
    broken += [f"what came is not what was sent: {link}" for link in report.links]
    if report.unverified:
        broken.append(f"{report.unverified} deliveries came that the senders' logs lack")
    if report.first is not None:
        run, difference = report.first
        broken.append(f"the replay differs: {run}, {difference}")
    for part in report.parts:
        if part.report.missing:
            broken.append(f"the replay of {part.run} lacks {part.report.missing} messages")
    compared = sum(part.report.compared for part in report.parts)
    return Verdict(broken, report.delivered, compared)


def links_of(plans: Mapping[PartId, Plan], failed: Collection[PartId] = ()) -> list[Link]:
    """The links of a fleet; replicas that share what one sends have one together.

    On a cycle over partitions one ends before another that sends to it: what came last of that one is
    in the sender's log alone.
    """
    found: dict[tuple[PartId, str], Link] = {}
    order = ending_order_of_plans(plans)
    ends_at = {part: at for at, group in enumerate(order) for part in group}
    for part, plan in plans.items():
        partition = next(it for it in plan.graph.spec.partitions if it.id == part.partition)
        is_shared = not partition.instances and partition.replicas > 1
        for boundary in plan.graph.receives:
            key = boundary.peer, part.partition if is_shared else str(part)
            before = found.get(key)
            receivers = [*(before.receivers if before else ()), part]
            is_whole = ends_at[boundary.peer] < ends_at[part]
            is_whole = is_whole and not {boundary.peer, *receivers} & set(failed)
            found[key] = Link(boundary, partition, receivers, is_whole)
    return list(found.values())
