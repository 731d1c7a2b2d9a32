"""The missions of a graph: named subsets of its tasks, of which a run chooses one.

A task is part of the missions that it names, or of all. A connection is part of those that it names, or
of all that have both of its tasks. Two tasks may have one id if no mission has both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from flowrun.runtime.errors import Problem, UsageError
from flowrun.runtime.graph.spec import ConnectionSpec, Endpoint, GraphSpec, TaskSpec
from flowrun.runtime.wording import listed, nearest

__all__ = ["of_mission", "share_a_mission"]


def share_a_mission(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two entries that name these missions are both part of some mission."""
    return not one or not other or not set(one).isdisjoint(other)


def of_mission(graph: GraphSpec, mission: str | None) -> tuple[GraphSpec, list[Problem]]:
    """`graph` with the tasks and connections of one mission, and what is wrong with the missions of all.

    mission: None chooses the first one that the graph declares.

    `UsageError` if the graph has no such mission.
    """
    problems = _unknown_names(graph)
    if mission is not None and mission not in graph.missions:
        if not graph.missions:
            raise UsageError(f"unknown mission {mission!r}: {graph.path} has no missions")
        raise UsageError(
            f"unknown mission {mission!r}; missions of {graph.path}: {listed(graph.missions)}"
            + nearest(mission, graph.missions)
        )
    if not graph.missions:
        return graph, problems
    mission = mission or graph.missions[0]
    tasks = tuple(task for task in graph.tasks if not task.missions or mission in task.missions)
    if graph.tasks and not tasks:
        problems.append(Problem(graph.where, f"no task is part of mission {mission!r}"))
    connections, cut = [], []
    for cnx in graph.connections:
        if cnx.missions and mission not in cnx.missions:
            continue
        lacking = [
            (end, task)
            for end, at in (("src", cnx.src), ("dst", cnx.dst))
            if (task := _elsewhere(at, graph.tasks, tasks)) is not None
        ]
        if not lacking:
            connections.append(cnx)
        elif not cnx.missions:
            cut.append(cnx)
        for end, task in lacking if cnx.missions else ():
            problems.append(
                Problem(
                    cnx.key_where.get(end, cnx.where),
                    f"mission {mission!r} has no task {task.id!r}, which is part of "
                    f"{_missions_of(task.id, graph)}; leave 'missions' of the connection out, and it "
                    "is part of all that have both tasks",
                )
            )
    return replace(
        graph, tasks=tasks, connections=tuple(connections), mission=mission, cut=tuple(cut)
    ), problems


def _missions_of(task_id: str, graph: GraphSpec) -> str:
    return listed(
        dict.fromkeys(name for task in graph.tasks if task.id == task_id for name in task.missions)
    )


def _elsewhere(
    end: Endpoint, all_tasks: Iterable[TaskSpec], tasks: Iterable[TaskSpec]
) -> TaskSpec | None:
    """The task that `end` of a connection means, if only other missions have it."""
    there = [task for task in all_tasks if task.id == end.task]
    if not there:  # `cam_0` is what a list of sources makes of `cam`
        there = [task for task in all_tasks if end.task.startswith(f"{task.id}_")]
    here = {task.id for task in tasks}
    return there[0] if there and not any(task.id in here for task in there) else None


def _unknown_names(graph: GraphSpec) -> list[Problem]:
    problems = []
    entries: list[TaskSpec | ConnectionSpec] = [*graph.tasks, *graph.connections]
    for entry in entries:
        where = entry.key_where.get("missions", entry.where)
        for name in entry.missions:
            if name in graph.missions:
                continue
            if graph.missions:
                text = f"unknown mission {name!r}; missions: {listed(graph.missions)}"
                text += nearest(name, graph.missions)
            else:
                text = f"mission {name!r} is not declared; write missions: [{name}] in the graph"
            problems.append(Problem(where, text))
    return problems
