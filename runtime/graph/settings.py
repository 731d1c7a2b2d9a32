"""`task.key=value`: values of a graph file that are given elsewhere, such as on the command line.

| setting                           | what it changes                                            |
|-----------------------------------|------------------------------------------------------------|
| `cam.max_fps=5`                   | a key of a task's config                                   |
| `cam.reconnect.delay_s=2`         | a key within it; `cam.sources.0.max_fps=5`: item 0 of a list |
| `cam.rate_hz=5`                   | a key of the task itself, unless its config has such a key |
| `cam.config.rate_hz=5`            | a key of its config, in any case                           |
| `runtime.seed=7`                  | a key of a section: `runtime`, `logging`, `constants`,     |
|                                   | `partitions`, `network`                                    |

The value is YAML, and is checked as if it were in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import yaml

from flowrun.runtime.errors import GraphError, Location, Problem
from flowrun.runtime.graph import keys
from flowrun.runtime.graph.file import compose
from flowrun.runtime.graph.spec import PartId
from flowrun.runtime.graph.values import Origin, ValueReader, is_null
from flowrun.runtime.wording import listed, nearest

__all__ = [
    "Setting",
    "parse_settings",
    "settings_of_instances",
    "with_constants",
    "with_settings",
]

_PATH = re.compile(r"\w+(?:\.[\w-]+|\[\d+\])+")
_STEP = re.compile(r"[\w-]+")
_SECTIONS = ("runtime", "logging", "constants", "partitions", "network")
_OWN = frozenset(keys.key_names(keys.TASK)) - {"id"}
"""What a setting sets of a task itself, and not of its config."""

_MAP, _SEQ, _STR = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str")


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that is given elsewhere.

    name: as it was given, `cam.max_fps`.
    path: its parts.
    key: a node with the place of the setting.
    value: the value's node.
    """

    name: str
    path: tuple[str, ...]
    key: yaml.ScalarNode
    value: yaml.Node


def parse_settings(
    reader: ValueReader, texts: Iterable[str], *, set_by: str = "--set "
) -> list[Setting]:
    """The settings that `texts` say; what is wrong with one is noted.

    set_by: what precedes the name of one in an error text.
    """
    return [found for text in texts if (found := _parse(reader, text, set_by)) is not None]


def _parse(reader: ValueReader, text: str, set_by: str) -> Setting | None:
    name, equals, written = text.partition("=")
    place = f"{set_by}{name}"
    if not equals or not _PATH.fullmatch(name):
        got = "" if equals else "; got no '='"
        message = f"expected TASK.KEY=VALUE, such as cam.max_fps=5 or runtime.seed=7{got}"
        reader.problems[Problem(Location(place, 0, 0), message)] = None
        return None
    origin = reader.new_origin(Origin(place, has_lines=False))
    try:
        value = compose(written, place, origin=origin) if written.strip() else None
    except GraphError as error:
        for problem in error.problems:
            where = Location(place, 0, 0)
            reader.problems[Problem(where, f"{problem.message}; the value is YAML")] = None
        return None
    start = yaml.Mark(origin, 0, 0, 0, "", 0)
    key = yaml.ScalarNode(_STR, name, start, start)
    if value is None:
        value = yaml.ScalarNode(_STR, "", start, start)
    return Setting(name, tuple(_STEP.findall(name)), key, value)


def settings_of_instances(
    reader: ValueReader, root: yaml.Node, part: PartId | None
) -> list[Setting]:
    """What the file says of one of the `instances` of each partition: of the one that is `part`, or of
    the first, as tasks of a partition may have their values from there alone. Mistakes are noted
    elsewhere."""
    partitions = _items(reader, root).get("partitions")
    found: list[Setting] = []
    for name, (_, node) in (_items(reader, partitions[1]) if partitions else {}).items():
        listed_here = _items(reader, node).get("instances")
        instances = _items(reader, listed_here[1]) if listed_here else {}
        if not instances:
            continue
        chosen = part.instance if part is not None and part.partition == name else ""
        _, values = instances.get(chosen) or next(iter(instances.values()))
        found += _settings_of(reader, root, name, values)
    return found


def _settings_of(
    reader: ValueReader, root: yaml.Node, partition: str, node: yaml.Node
) -> list[Setting]:
    tasks = _items(reader, root).get("tasks")
    known = {
        _id(reader, task)
        for task in (tasks[1].value if tasks else ())
        if (own := _items(reader, task).get("partition")) and own[1].value == partition
    }
    return [
        Setting(name, tuple(_STEP.findall(name)), key, value)
        for name, (key, value) in _items(reader, node).items()
        if isinstance(key, yaml.ScalarNode)
        and _PATH.fullmatch(name)
        and name.partition(".")[0] in known
    ]


def with_constants(reader: ValueReader, root: yaml.Node, settings: Iterable[Setting]) -> yaml.Node:
    """The graph's own file with its constants set; what is wrong with a setting is noted."""
    for setting in settings:
        if setting.path[0] != "constants":
            continue
        section = _items(reader, root).get("constants")
        known = {} if section is None else _items(reader, section[1])
        if setting.path[1] in known:
            root = _set(reader, root, setting.path, setting)
        else:
            name = setting.path[1]
            message = f"unknown constant {name!r}; constants: {listed(known)}{nearest(name, known)}"
            reader.problem(setting.key, message)
    return root


def with_settings(
    reader: ValueReader,
    root: yaml.Node,
    settings: Iterable[Setting],
    fill: Callable[[yaml.Node], yaml.Node],
) -> yaml.Node:
    """The whole graph with all other values set; what is wrong with a setting is noted.

    fill: puts values in the places of their names.
    """
    for setting in settings:
        first = setting.path[0]
        if first == "constants":
            continue
        filled = replace(setting, value=fill(setting.value))
        if first in _SECTIONS:
            root = _set(reader, root, setting.path, filled)
        else:
            root = _with_task_set(reader, root, filled)
    return root


def _with_task_set(reader: ValueReader, root: yaml.Node, setting: Setting) -> yaml.Node:
    task_id, *path = setting.path
    items = _items(reader, root)
    if "tasks" not in items or not isinstance(items["tasks"][1], yaml.SequenceNode):
        return root
    key, tasks = items["tasks"]
    nodes, ids = [], []
    for node in tasks.value:
        id_ = _id(reader, node)
        ids += [] if id_ is None else [id_]
        if id_ != task_id:
            nodes.append(node)
            continue
        of_task = path if _is_own(reader, node, path[0]) else ("config", *path)
        nodes.append(_set(reader, node, tuple(of_task), setting))
    if task_id not in ids:
        known = list(dict.fromkeys([*ids, *_SECTIONS]))
        reader.problem(
            setting.key,
            f"unknown task {task_id!r}; tasks: {listed(dict.fromkeys(ids))}; sections: "
            f"{listed(_SECTIONS)}" + nearest(task_id, known),
        )
        return root
    return _with_item(items, root, "tasks", (key, _sequence(tasks, nodes)))


def _is_own(reader: ValueReader, task: yaml.Node, key: str) -> bool:
    """Whether `key` is one of the task itself, and not of its config."""
    config = _items(reader, task).get("config")
    return key in _OWN and (config is None or key not in _items(reader, config[1]))


def _id(reader: ValueReader, task: yaml.Node) -> str | None:
    found = _items(reader, task).get("id")
    return found[1].value if found and isinstance(found[1], yaml.ScalarNode) else None


def _set(
    reader: ValueReader, node: yaml.Node, path: tuple[str, ...], setting: Setting
) -> yaml.Node:
    """`node` with the value of `setting` at `path` below it."""
    if not path:
        return setting.value
    step, rest = path[0], path[1:]
    if isinstance(node, yaml.SequenceNode):
        if not step.isdecimal() or int(step) >= len(node.value):
            last = len(node.value) - 1
            which = f"an item from 0 to {last}" if node.value else "no item: the list is empty"
            reader.problem(setting.key, f"expected {which} of the list; got {step!r}")
            return node
        nodes = list(node.value)
        nodes[int(step)] = _set(reader, nodes[int(step)], rest, setting)
        return _sequence(node, nodes)
    if not isinstance(node, yaml.MappingNode) and not is_null(node):
        reader.problem(
            setting.key,
            f"{step!r} is a key of a mapping, and the file has {reader.shown(node)} there",
        )
        return node
    items, start = _items(reader, node), setting.key.start_mark
    key: yaml.Node = yaml.ScalarNode(_STR, step, start, start)
    if rest and step in items:
        key = items[step][0]
    below = items[step][1] if step in items else yaml.ScalarNode(_STR, "", start, start)
    where = setting.key if is_null(node) else node
    return _with_item(items, where, step, (key, _set(reader, below, rest, setting)))


def _items(reader: ValueReader, node: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return dict(reader.items(node, "a mapping in which a value is set"))


def _with_item(
    items: dict[str, tuple[yaml.Node, yaml.Node]],
    place: yaml.Node,
    name: str,
    item: tuple[yaml.Node, yaml.Node],
) -> yaml.Node:
    """The mapping with another value for one key; what merge keys brought is written out."""
    pairs = list({**items, name: item}.values())
    return yaml.MappingNode(_MAP, pairs, place.start_mark, place.end_mark)


def _sequence(node: yaml.Node, items: list[yaml.Node]) -> yaml.Node:
    return yaml.SequenceNode(_SEQ, items, node.start_mark, node.end_mark)
