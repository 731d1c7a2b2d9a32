"""In which order partitions end: senders first."""

from __future__ import annotations

from flowrun.runtime.graph.spec import GraphSpec, PartId

__all__ = ["ending_order"]


def ending_order(graph: GraphSpec) -> list[list[PartId]]:
    """The processes by partition, senders first: what they sent last is then still taken. Of those on
    a cycle, the first declared one is first."""
    before = _senders_of(graph)
    left = {it.id: it for it in graph.partitions}
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
