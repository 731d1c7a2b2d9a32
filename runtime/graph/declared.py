"""A graph that a program declares, or has read from a file and changed -> its text -> `ReadGraph`.

The text is what a graph file would say. It is read as a file is, and all mistakes are found by the same
checks; only their places are those of the calls. So a graph in Python can be and say nothing that a
file cannot, and its log holds a graph file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from flowrun.runtime.callers import Caller
from flowrun.runtime.errors import GraphError, Location, Problem
from flowrun.runtime.graph.file import compose, read_text
from flowrun.runtime.graph.keys import TASK, key_names
from flowrun.runtime.graph.read import ReadGraph, parse_graph, read_graph
from flowrun.runtime.graph.values import ValueReader
from flowrun.runtime.graph.writing import Unwritable, plain, read_back, written

__all__ = ["Declared", "Item", "declared_in", "item_of", "said_in"]

_Path = tuple[str | int, ...]
_LISTS = ("tasks", "cnx")


@dataclass(slots=True)
class Item:
    """A task, a connection, or a section, as it is declared.

    said: what a file would say, as `plain` makes it.
    place: gives the place of what is at a path of it.
    given: the class, or the function, that its type or message names, where the program gave it.
    problems: mistakes that the text cannot show, by the path of what is wrong.
    """

    said: Any
    place: Callable[[_Path], Location]
    given: Any = None
    problems: dict[_Path, Problem] = field(default_factory=dict)

    def note(self, path: _Path, message: str, where: Location | None = None) -> None:
        self.problems[path] = Problem(where or self.place(path), message)


@dataclass(slots=True)
class Declared:
    """A graph, made of items.

    name: what its runs are called.
    path: of its file, or the one that a file would have: relative paths in configs start in its folder,
        and modules of tasks are looked for there.
    where: the place of the graph as a whole.
    sections: those other than `tasks` and `cnx`, by name.
    problems: mistakes of the graph as a whole that the text cannot show.
    text: that of the file, as long as nothing differs from it.
    """

    name: str
    path: Path
    where: Location
    tasks: list[Item] = field(default_factory=list)
    connections: list[Item] = field(default_factory=list)
    sections: dict[str, Item] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    text: str | None = None

    @property
    def noted(self) -> list[Problem]:
        """All mistakes that the text cannot show."""
        items = (*self.tasks, *self.connections, *self.sections.values())
        return [*self.problems, *(it for item in items for it in item.problems.values())]

    def written(self) -> str:
        """The graph file."""
        if self.text is not None:
            return self.text
        tasks = [
            {key: item.said[key] for key in key_names(TASK) if key in item.said}
            for item in self.tasks
        ]
        data: dict[str, Any] = {"tasks": tasks}
        if self.connections:
            data["cnx"] = [item.said for item in self.connections]
        return written(data | {name: item.said for name, item in self.sections.items()})

    def read(
        self,
        env: Mapping[str, str],
        *,
        mission: str | None = None,
        partition: str | None = None,
        settings: Sequence[str] = (),
        set_by: str = "",
    ) -> ReadGraph:
        """What a file of the same text says, at the places of the calls.

        env: the environment variables that it may name.
        mission, partition, settings, set_by: as in `read_graph`.
        """
        as_file = partial(
            read_graph,
            path=self.path,
            env=env,
            mission=mission,
            partition=partition,
            settings=settings,
            set_by=set_by,
        )
        if self.text is not None:
            return as_file(self.text)
        try:
            read = as_file(self.written(), locate=self._place)
        except GraphError as error:  # more than a graph file may hold
            raise GraphError([Problem(self.where, it.message) for it in error.problems]) from None
        problems = [*self.noted, *read.problems]
        classes = {_id(item.said): item.given for item in self.tasks}
        messages = {_ends(item.said): item.given for item in self.connections}
        graph = replace(
            read.graph,
            tasks=tuple(
                replace(it, given=classes.get((it.id, it.missions))) for it in read.graph.tasks
            ),
            connections=tuple(
                replace(it, given=messages.get((str(it.src), str(it.dst))))
                for it in read.graph.connections
            ),
        )
        return ReadGraph(graph, problems, read.complete)

    def _place(self, path: _Path) -> Location:
        match path:
            case ("tasks", int(i), *rest):
                return self.tasks[i].place(tuple(rest))
            case ("cnx", int(i), *rest):
                return self.connections[i].place(tuple(rest))
            case (str(name), *rest) if name in self.sections:
                return self.sections[name].place(tuple(rest))
        return self.where


def item_of(data: Mapping[str, Any], caller: Caller, where: Mapping[str, str | int]) -> Item:
    """An item whose values are arguments of a call. What a file cannot hold is noted, and left out.

    data: what it says.
    where: the argument that says a key, where it has not the key's name.
    """
    made = Item({}, partial(_place_in_call, caller, where))
    for key, value in data.items():
        made.said[key] = said_in(made, value, (key,))
    return made


def said_in(item: Item, value: Any, path: _Path) -> Any:
    """What a file would say for `value`, which is at `path` of an item; None where it cannot, which is
    noted."""
    if path == ("config",) and isinstance(value, Mapping):
        return {str(key): said_in(item, it, (*path, str(key))) for key, it in value.items()}
    try:
        return plain(value, path)
    except Unwritable as error:
        name = ".".join(map(str, error.path)).removeprefix("config.")
        item.note(error.path, f"{name!r}: {error}")
        return None


def _id(task: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """What tells a task from the others: of those that have one id, no two are of one mission."""
    missions = task.get("missions")
    return task["id"], tuple(missions) if isinstance(missions, list) else ()


def _ends(connection: Mapping[str, Any]) -> tuple[Any, Any]:
    return connection.get("src"), connection.get("dst")


def _place_in_call(caller: Caller, where: Mapping[str, str | int], path: _Path) -> Location:
    """The place of the argument that says what is at `path`."""
    match path:
        case ():
            return caller.place()
        case ("config", str(key), *_):
            return caller.place(key, where.get(key, key), "config")
    return caller.place(where.get(str(path[0]), path[0]))


def declared_in(path: Path, env: Mapping[str, str]) -> Declared:
    """The graph in the file at `path`, to be changed: each item with its place in the file.

    `UsageError` if there is no such file; `GraphError` lists the mistakes of one in which tasks and
    connections cannot be told apart. Others can be mended.
    """
    text = read_text(path)
    reader = ValueReader(file=str(path), env=env)
    root = compose(text, str(path))
    made = Declared(path.stem, path, Location(str(path), 1, 1), text=text)
    for name, (_, node) in reader.items(root, "the graph").items():
        if name not in _LISTS:
            made.sections[name] = Item(read_back(reader, node), partial(_place_of, reader, node))
            continue
        items = made.tasks if name == "tasks" else made.connections
        for item in reader.sequence(node, name):
            items.append(Item(read_back(reader, item), partial(_place_of, reader, item)))
    if reader.problems or not all(
        isinstance(item.said, dict) and item.said.keys() >= set(keys)
        for items, keys in ((made.tasks, ("id", "type")), (made.connections, ("src", "dst")))
        for item in items
    ):
        parse_graph(text, path=path, env=env)
    return made


def _place_of(reader: ValueReader, node: yaml.Node, path: _Path) -> Location:
    """The place of what is at `path` below `node`, or of the last part of it that is there: within
    `config` of the key, elsewhere of its value."""
    place = reader.at(node)
    for depth, key in enumerate(path):
        if isinstance(node, yaml.MappingNode) and key in (items := reader.items(node, "")):
            name, node = items[str(key)]
            place = reader.at(name if depth else node)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
            place = reader.at(node)
    return place
