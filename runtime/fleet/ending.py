"""In which order partitions end: senders first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.spec import GraphSpec, PartId, PartitionSpec

__all__ = ["ending_order", "ending_order_of_plans"]


def ending_order(graph: GraphSpec) -> list[list[PartId]]:
    """The processes of a whole graph by partition, senders first: what they sent last is then still
    taken. Of those on a cycle, the first declared one is first."""
    return _ordered(graph.partitions, _senders_of(graph))


def ending_order_of_plans(plans: Mapping[PartId, Plan]) -> list[list[PartId]]:
    """The same, of the plans of all processes: each knows its own senders alone."""
    partitions = next(iter(plans.values())).graph.spec.partitions
    before: dict[str, set[str]] = {it.id: set() for it in partitions}
    for part, plan in plans.items():
        before[part.partition] |= {it.peer.partition for it in plan.graph.receives}
    return _ordered(partitions, before)


def _ordered(
    partitions: Sequence[PartitionSpec], before: Mapping[str, AbstractSet[str]]
) -> list[list[PartId]]:
    left = {it.id: it for it in partitions}
    order = []
    while left:
        free = [name for name in left if not before[name] & left.keys()] or list(left)
        order.append(list(left.pop(free[0]).parts))
    return order


def _senders_of(graph: GraphSpec) -> dict[str, set[str]]:
    """By partition, those that send to it."""
    of_task = {task.id: task.partition for task in graph.tasks}
    found: dict[str, set[str]] = {it.id: set() for it in graph.partitions}
    for cnx in graph.connections:
        src, dst = of_task.get(cnx.src.task), of_task.get(cnx.dst.task)
        if src and dst and src != dst:
            found[dst].add(src)
    return found
