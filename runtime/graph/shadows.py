"""A task with a shadow -> two tasks: itself, and another that is asked the same and acted on by nobody.

`shadow: {backend: new}` in the config of task `vlm` makes `vlm_shadow`: with the config of `vlm` but for
what the shadow says otherwise, on the same inputs, in the background. Its messages are logged; a
connection from it is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flowrun.runtime.errors import FlowrunError, Problem
from flowrun.runtime.graph.find import find_task_class, given_class, task_types
from flowrun.runtime.graph.spec import ConnectionSpec, Endpoint, GraphSpec, TaskSpec
from flowrun.runtime.task import Task
from flowrun.runtime.wording import described

__all__ = ["with_shadows"]

_KEY = "shadow"
"""The key of a config that describes a shadow, of classes that may have one."""

_Path = tuple[str | int, ...]


def with_shadows(graph: GraphSpec) -> tuple[GraphSpec, list[Problem]]:
    """`graph` with a task for each shadow (`Task.shadow_type`), and what is wrong with them."""
    problems: list[Problem] = []
    tasks: list[TaskSpec] = []
    shadows: dict[str, str] = {}
    taken = {task.id for task in graph.tasks}
    for task in graph.tasks:
        task_class = _class_with_shadow(task, graph)
        if task_class is None:
            tasks.append(task)
            continue
        tasks.append(_without(task))
        own, made = task.config[_KEY], f"{task.id}_shadow"
        where = task.config_where.get((_KEY,), task.where)
        if own is None:
            continue
        if not isinstance(own, dict):
            text = (
                f"{_KEY!r} of task {task.id!r} must be a mapping of what is other than in the task; "
                f"got {described(task.masked_config[_KEY])}"
            )
            problems.append(Problem(where, text))
        elif made in taken:
            text = f"task {task.id!r} makes {made!r}, and there is one already; rename it"
            problems.append(Problem(where, text))
        else:
            tasks.append(_shadow_of(task, made, task_class))
            shadows[made] = task.id
    connections = [made for cnx in graph.connections for made in _connections(cnx, shadows)]
    for cnx in graph.connections:
        for end in sorted({cnx.src.task, cnx.dst.task} & shadows.keys()):
            text = (
                f"task {end!r} is the shadow of {shadows[end]!r}: nobody acts on what it says; leave "
                "this connection out"
            )
            problems.append(Problem(cnx.where, text))
    return replace(graph, tasks=tuple(tasks), connections=tuple(connections)), problems


def _class_with_shadow(task: TaskSpec, graph: GraphSpec) -> type[Task] | None:
    """The task's class, where its config describes a shadow; None for others."""
    if task.shadow_of or _KEY not in task.config:
        return None
    try:
        if task.given is not None:
            found = given_class(task.given)
        else:
            found = find_task_class(task.type, folder=graph.path.parent, types=task_types())
    except FlowrunError:  # reported when the graph is bound
        return None
    return found if found.shadow_type is not None else None


def _shadow_of(task: TaskSpec, made: str, task_class: type[Task]) -> TaskSpec:
    assert task_class.shadow_type is not None
    own = task.config[_KEY]
    where = _moved(task.config_where, own)
    names = {name: name for name in task_class.Config.model_fields if name != _KEY}
    inherited = task_class.shadow_config(names, own)
    return replace(
        task,
        id=made,
        type=task_class.shadow_type,
        given=None,
        config=task_class.shadow_config(_but_key(task.config), own),
        masked_config=task_class.shadow_config(
            _but_key(task.masked_config), task.masked_config[_KEY]
        ),
        config_where=where,
        scalars=_moved(task.scalars, own),
        key_where={**task.key_where, "config": where.get((), task.where)},
        background=True,
        on_error="skip",
        every=1,
        rate_hz=None,
        shadow_of=task.id,
        follows=frozenset(it for it in names if it not in own and it in inherited),
    )


def _connections(cnx: ConnectionSpec, shadows: Mapping[str, str]) -> list[ConnectionSpec]:
    """A connection, and that of the shadow of the task to which it leads."""
    also = [made for made, task in shadows.items() if task == cnx.dst.task]
    return [cnx, *(replace(cnx, dst=Endpoint(made, cnx.dst.port)) for made in also)]


def _without(task: TaskSpec) -> TaskSpec:
    """The task as if its config described no shadow."""
    return replace(
        task,
        config=_but_key(task.config),
        masked_config=_but_key(task.masked_config),
        config_where=_not_below_key(task.config_where),
        scalars=_not_below_key(task.scalars),
    )


def _but_key(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != _KEY}


def _not_below_key(by_path: Mapping[_Path, Any]) -> dict[_Path, Any]:
    return {path: it for path, it in by_path.items() if path[:1] != (_KEY,)}


def _moved(by_path: Mapping[_Path, Any], own: Mapping[str, Any]) -> dict[_Path, Any]:
    """The places of a shadow's keys, and of those that it has from its task."""
    others = {
        path: it for path, it in _not_below_key(by_path).items() if not path or path[0] not in own
    }
    return others | {path[1:]: it for path, it in by_path.items() if path[:1] == (_KEY,)}
