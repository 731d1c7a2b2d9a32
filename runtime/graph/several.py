"""A task that is written once for several sources -> one task for each, and one of each that follows.

`source_uri: [a, b]` of task `cam` makes `cam_0` and `cam_1`; `sources: [{id: gate, ...}, ...]`, each
with keys of its own, makes `cam_gate` and `cam_1`. A task that gets a message of `cam`, itself or
through others, is made as often, each with a connection to its own: `answer_gate`, `answer_1`. Where
one task should get several of them, its connections name them: `src: cam_gate`, `src: cam_1`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flowrun.runtime.errors import FlowrunError, Location, Problem
from flowrun.runtime.graph.find import find_task_class, given_class, task_types
from flowrun.runtime.graph.spec import ConnectionSpec, Endpoint, GraphSpec, TaskSpec
from flowrun.runtime.wording import described, listed

__all__ = ["ITEM_ID", "separated"]

ITEM_ID = "id"
"""The key of a mapping that says what is added to the task's id."""
_ID = re.compile(r"[A-Za-z0-9_]+")

_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _List:
    """A list in a task's config, which makes a task of each item.

    key: its key in the config.
    names: what is added to the task's id, for each item.
    of_configs: whether an item is a mapping of keys, and no value of `key`.
    """

    key: str
    names: tuple[str, ...]
    of_configs: bool


def separated(graph: GraphSpec) -> tuple[GraphSpec, list[Problem]]:
    """`graph` with one task for each item of a list that a task's class wants one of (`Task.several`,
    `Task.several_configs`), and what is wrong with the lists."""
    problems: list[Problem] = []
    lists = {task.id: found for task in graph.tasks if (found := _list_of(task, graph, problems))}
    if not lists:
        return graph, problems
    tasks = {task.id: task for task in graph.tasks}
    names = {task_id: found.names for task_id, found in lists.items()}
    problems += _note_followers(graph, tasks, names)
    taken = set(tasks)
    for task_id, parts in names.items():
        made = [f"{task_id}_{name}" for name in parts]
        if twice := [name for name in made if name in taken]:
            text = f"task {task_id!r} makes {listed(twice)}, and there is one already; rename it"
            problems.append(Problem(tasks[task_id].where, text))
        taken.update(made)
    separate: list[TaskSpec] = []
    for task in graph.tasks:
        if task.id in names:
            separate += [
                _part(task, lists.get(task.id), i, name) for i, name in enumerate(names[task.id])
            ]
        else:
            separate.append(task)
    connections = [part for cnx in graph.connections for part in _connections(cnx, names)]
    return replace(graph, tasks=tuple(separate), connections=tuple(connections)), problems


def _note_followers(
    graph: GraphSpec, tasks: Mapping[str, TaskSpec], names: dict[str, tuple[str, ...]]
) -> list[Problem]:
    """Add to `names` the tasks that follow those in it; what is wrong with their connections."""
    problems: dict[Problem, None] = {}
    grows = True
    while grows:
        grows = False
        for cnx in graph.connections:
            src, dst = cnx.src.task, cnx.dst.task
            if src not in names or dst not in tasks:
                continue
            if dst not in names:
                names[dst] = names[src]
                grows = True
            elif names[dst] != names[src] and names[src]:
                text = (
                    f"task {dst!r} is made as {_made(dst, names)}, and {src!r} as {_made(src, names)}; "
                    f"connect those that belong together, such as src: {src}_{names[src][0]}"
                )
                problems[Problem(cnx.where, text)] = None
    return list(problems)


def _made(task_id: str, names: Mapping[str, tuple[str, ...]]) -> str:
    return listed(f"{task_id}_{name}" for name in names[task_id])


def _list_of(task: TaskSpec, graph: GraphSpec, problems: list[Problem]) -> _List | None:
    """The list in the task's config, where its class wants one item; what is wrong with it is added to
    `problems`."""
    if not any(isinstance(value, list) for value in task.config.values()):
        return None
    try:
        if task.given is not None:
            found = given_class(task.given)
        else:
            found = find_task_class(task.type, folder=graph.path.parent, types=task_types())
    except FlowrunError:  # reported when the graph is bound
        return None
    for key in (found.several_configs, found.several):
        items = task.config.get(key or "")
        if key is None or not isinstance(items, list):
            continue
        if not items:
            text = f"{key!r} of task {task.id!r} is an empty list"
            problems.append(Problem(_place(task, (key,)), text))
        if key == found.several:
            return _List(key, tuple(str(i) for i in range(len(items))), of_configs=False)
        if found.several in task.config:
            text = f"task {task.id!r} has both {found.several!r} and {key!r}; leave one out"
            problems.append(Problem(_place(task, (found.several,)), text))
        wrong = [i for i, item in enumerate(items) if not isinstance(item, dict)]
        for i in wrong:
            text = (
                f"'{key}.{i}' of task {task.id!r} must be a mapping, such as {{{found.several}: ...}}; "
                f"got {described(task.masked_config[key][i])}"
            )
            problems.append(Problem(_place(task, (key, i)), text))
        return _List(key, () if wrong else _names(task, key, problems), of_configs=True)
    return None


def _names(task: TaskSpec, key: str, problems: list[Problem]) -> tuple[str, ...]:
    """The ids of the mappings in a list; their numbers where they have none, or a wrong one."""
    names: list[str] = []
    known = len(problems)
    for i, item in enumerate(task.config[key]):
        said = item.get(ITEM_ID, i)
        where = _place(task, (key, i, ITEM_ID), (key, i))
        if isinstance(said, bool) or not _ID.fullmatch(str(said)):
            text = (
                f"'{key}.{i}.{ITEM_ID}' of task {task.id!r} must be letters, digits and '_'; "
                f"got {described(said)}"
            )
            problems.append(Problem(where, text))
        elif str(said) in names:
            text = (
                f"{key!r} of task {task.id!r} has two items with the {ITEM_ID} '{said}'; rename one"
            )
            problems.append(Problem(where, text))
        names.append(str(said))
    return tuple(names if len(problems) == known else map(str, range(len(names))))


def _place(task: TaskSpec, *paths: _Path) -> Location:
    """The place in the file of the first of `paths` that it holds."""
    return next((task.config_where[it] for it in paths if it in task.config_where), task.where)


def _part(task: TaskSpec, found: _List | None, i: int, name: str) -> TaskSpec:
    """Number `i` of what `task` makes; `found` is its list, if it has one."""
    made = replace(task, id=f"{task.id}_{name}")
    if found is None:
        return made
    root = (found.key, i)
    to: _Path = () if found.of_configs else (found.key,)
    replaced = {found.key, *(task.config[found.key][i] if found.of_configs else ())}
    where = _moved(task.config_where, root, to, replaced)
    return replace(
        made,
        config=_with_item(task.config, found, i),
        masked_config=_with_item(task.masked_config, found, i),
        config_where=where,
        scalars=_moved(task.scalars, root, to, replaced),
        key_where={**task.key_where, "config": where[()]},
    )


def _with_item(config: Mapping[str, Any], found: _List, i: int) -> dict[str, Any]:
    item = config[found.key][i]
    if not found.of_configs:
        return {**config, found.key: item}
    own = {key: value for key, value in item.items() if key != ITEM_ID}
    return {key: value for key, value in config.items() if key != found.key} | own


def _moved(
    by_path: Mapping[_Path, Any], root: _Path, to: _Path, replaced: Collection[str | int]
) -> dict[_Path, Any]:
    """What is below `root`, below `to`, and what is below other keys than those `replaced`."""
    others = {path: it for path, it in by_path.items() if path[:1] == () or path[0] not in replaced}
    own = {(*to, *path[2:]): it for path, it in by_path.items() if path[:2] == root}
    return others | own


def _connections(cnx: ConnectionSpec, names: Mapping[str, tuple[str, ...]]) -> list[ConnectionSpec]:
    if cnx.dst.task not in names:
        return [cnx]
    return [
        replace(cnx, src=_end(cnx.src, names, i), dst=_end(cnx.dst, names, i))
        for i in range(len(names[cnx.dst.task]))
    ]


def _end(end: Endpoint, names: Mapping[str, tuple[str, ...]], i: int) -> Endpoint:
    parts = names.get(end.task, ())
    return replace(end, task=f"{end.task}_{parts[i]}") if i < len(parts) else end
