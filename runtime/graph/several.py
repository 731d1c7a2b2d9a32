"""A task that is written once for several sources -> one task for each, and one of each that follows.

`source_uri: [a, b]` of task `cam` makes `cam_0` and `cam_1`. A task that gets a message of `cam`, itself
or through others, is made as often, each with a connection to its own: `answer_0`, `answer_1`. Where one
task should get several of them, its connections name them: `src: cam_0`, `src: cam_1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flowrun.runtime.errors import FlowrunError, Problem
from flowrun.runtime.graph.find import find_task_class, task_types
from flowrun.runtime.graph.spec import ConnectionSpec, Endpoint, GraphSpec, TaskSpec
from flowrun.runtime.wording import listed

__all__ = ["separated"]

_Path = tuple[str | int, ...]


def separated(graph: GraphSpec) -> tuple[GraphSpec, list[Problem]]:
    """`graph` with one task for each item of a list that a task's class wants one of (`Task.several`),
    and what is wrong with the lists."""
    keys = {task.id: key for task in graph.tasks if (key := _listed_key(task, graph))}
    if not keys:
        return graph, []
    tasks = {task.id: task for task in graph.tasks}
    sizes = {name: len(tasks[name].config[key]) for name, key in keys.items()}
    problems: list[Problem] = []
    for name, key in keys.items():
        if not sizes[name]:
            where = tasks[name].config_where.get((key,), tasks[name].where)
            problems.append(Problem(where, f"{key!r} of task {name!r} is an empty list"))
    problems += _note_followers(graph, tasks, sizes)
    for name, size in sizes.items():
        taken = [f"{name}_{i}" for i in range(size) if f"{name}_{i}" in tasks]
        if taken:
            text = f"task {name!r} makes {listed(taken)}, and there is one already; rename it"
            problems.append(Problem(tasks[name].where, text))
    made: list[TaskSpec] = []
    for task in graph.tasks:
        if task.id in sizes:
            made += [_part(task, keys.get(task.id), i) for i in range(sizes[task.id])]
        else:
            made.append(task)
    connections = [part for cnx in graph.connections for part in _connections(cnx, sizes)]
    return replace(graph, tasks=tuple(made), connections=tuple(connections)), problems


def _note_followers(
    graph: GraphSpec, tasks: Mapping[str, TaskSpec], sizes: dict[str, int]
) -> list[Problem]:
    """Add to `sizes` the tasks that follow those in it; what is wrong with their connections."""
    problems: dict[Problem, None] = {}
    grows = True
    while grows:
        grows = False
        for cnx in graph.connections:
            src, dst = cnx.src.task, cnx.dst.task
            if src not in sizes or dst not in tasks:
                continue
            if dst not in sizes:
                sizes[dst] = sizes[src]
                grows = True
            elif sizes[dst] != sizes[src]:
                text = (
                    f"task {dst!r} is made {sizes[dst]} times, and {src!r} {sizes[src]} times; connect "
                    f"those that belong together, such as src: {src}_0"
                )
                problems[Problem(cnx.where, text)] = None
    return list(problems)


def _listed_key(task: TaskSpec, graph: GraphSpec) -> str | None:
    """The key of the task's config that holds a list, where its class wants one item."""
    if not any(isinstance(value, list) for value in task.config.values()):
        return None
    try:
        found = find_task_class(task.type, folder=graph.path.parent, types=task_types())
    except FlowrunError:  # reported when the graph is bound
        return None
    return found.several if isinstance(task.config.get(found.several or ""), list) else None


def _part(task: TaskSpec, key: str | None, i: int) -> TaskSpec:
    """Number `i` of what `task` makes; `key` is that of its list, if it has one."""
    name = f"{task.id}_{i}"
    if key is None:
        return replace(task, id=name)
    return replace(
        task,
        id=name,
        config=_picked(task.config, key, i),
        masked_config=_picked(task.masked_config, key, i),
        config_where=_moved(task.config_where, key, i),
        scalars=_moved(task.scalars, key, i),
    )


def _picked(config: Mapping[str, Any], key: str, i: int) -> dict[str, Any]:
    value = config[key]
    return {**config, key: value[i] if isinstance(value, list) else value}


def _moved(by_path: Mapping[_Path, Any], key: str, i: int) -> dict[_Path, Any]:
    """What is at the list's item `i`, at the key itself, without the other items."""
    others = {path: it for path, it in by_path.items() if path[:1] != (key,) or len(path) == 1}
    own = {(key, *path[2:]): it for path, it in by_path.items() if path[:2] == (key, i)}
    return others | own


def _connections(cnx: ConnectionSpec, sizes: Mapping[str, int]) -> list[ConnectionSpec]:
    size = sizes.get(cnx.dst.task)
    if size is None:
        return [cnx]
    return [
        replace(cnx, src=_end(cnx.src, sizes, i), dst=_end(cnx.dst, sizes, i)) for i in range(size)
    ]


def _end(end: Endpoint, sizes: Mapping[str, int], i: int) -> Endpoint:
    return replace(end, task=f"{end.task}_{i}") if end.task in sizes else end
