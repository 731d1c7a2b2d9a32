"""What of a graph is simulated: its links, its tasks' code and their memory; nothing outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.bind import BoundTask, bind
from flowrun.runtime.graph.plan import Plan, plan_graph
from flowrun.runtime.graph.spec import GraphSpec, KeepSpec

__all__ = ["check_simulates", "left_out", "plan_of", "simulated"]


def simulated(graph: GraphSpec) -> GraphSpec:
    """A process's graph as it is simulated: one thread, no source that waits for another, and every log
    is kept.

    Shadows are left out: nobody acts on what they say.
    """
    shadows = {task.id for task in graph.tasks if task.shadow_of}
    tasks = tuple(task for task in graph.tasks if task.id not in shadows)
    connections = tuple(cnx for cnx in graph.connections if cnx.dst.task not in shadows)
    logging = replace(
        graph.logging, slab_size_mib=4, section_size_mib=1, sync_s=1e6, mode="all", keep=KeepSpec()
    )
    runtime = replace(
        graph.runtime,
        executor="serial",
        affinity=None,
        nice=None,
        collect_timeout_ms=0,
    )
    return replace(graph, tasks=tasks, connections=connections, logging=logging, runtime=runtime)


def plan_of(graph: GraphSpec) -> Plan:
    """The plan of a graph that `simulated` gave."""
    return plan_graph(bind(graph, ready=False))


def check_simulates(plans: Iterable[Plan]) -> None:
    """`UsageError` where a task waits for something outside: names each such task, and what to use
    instead."""
    found = dict.fromkeys(
        f"task {task.id!r} {why}"
        for plan in plans
        for task in plan.graph.tasks
        if not task.task_class.acts_outside and (why := task.task_class.simulates(task.config))
    )
    if found:
        raise UsageError("not simulated: " + "; ".join(found))


def left_out(plans: Iterable[Plan]) -> list[BoundTask]:
    """The tasks that act outside, which a simulation neither starts nor calls; each once."""
    found = {
        task.id: task for plan in plans for task in plan.graph.tasks if task.task_class.acts_outside
    }
    return list(found.values())
