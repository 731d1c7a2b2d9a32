"""A graph file and the files that it includes -> one tree of YAML nodes, each with its own place.

The tasks and connections of an included file come before those of the file that includes it, in the
order of `includes`; their ids are as they are written. Of `runtime` and `logging`, keys of the
including file go before those of an included one. A file may be included several times, with other
params, which give `{{NAME}}` in its values. What is included must be a file next to it or elsewhere on
the disk, and not include itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from flowrun.runtime.errors import FlowrunError, GraphError, Problem
from flowrun.runtime.graph import keys
from flowrun.runtime.graph.constants import Scope
from flowrun.runtime.graph.file import check_size, compose
from flowrun.runtime.graph.resolved import resolved_text
from flowrun.runtime.graph.settings import (
    parse_settings,
    settings_of_instances,
    with_constants,
    with_settings,
)
from flowrun.runtime.graph.spec import PartId
from flowrun.runtime.graph.values import Locate, Origin, ValueReader, is_null
from flowrun.runtime.wording import listed, nearest

__all__ = ["Composed", "compose_graph"]

_MOST_FILES = 500
"""How many files a graph may include, each as often as it does."""
_LISTS = ("missions", "tasks", "cnx")
_SECTIONS = ("logging", "runtime", "partitions", "network")
_SEQ, _MAP, _STR = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map", "tag:yaml.org,2002:str")


@dataclass(frozen=True, slots=True)
class Composed:
    """A graph's nodes.

    root: the mapping of the graph, without `includes` and `constants` unless it is as in the file.
    text: the graph as one file: what was given, if it includes, names and sets nothing.
    files: the included files, by their paths as error texts show them, with the SHA-256 of each.
    complete: whether all of them could be read.
    """

    root: yaml.Node
    text: str
    files: dict[str, str]
    complete: bool


def compose_graph(
    reader: ValueReader,
    text: str,
    *,
    path: Path,
    part: PartId | None = None,
    settings: Iterable[str] = (),
    set_by: str = "--set ",
    read: Callable[[Path, str], str],
    locate: Locate | None = None,
) -> Composed:
    """The graph in `text`, with the files that it includes, its constants and `settings` in their
    places. Mistakes are noted with `reader`; `GraphError` only if `text` is not YAML.

    path: where it is: paths of includes start at its folder.
    part: the process that is meant, whose instance may have other values; None: the whole graph, with
        the values of the first instance of each partition.
    settings: `task.key=value`; they go before the instance's.
    set_by: as in `parse_settings`.
    read: gives the text of an included file; see `read_text`.
    locate: where a program says what is in `text`; None for a file.
    """
    root = compose(text, str(path))
    if locate is not None:
        reader.note_places(root, locate)
    given = parse_settings(reader, settings, set_by=set_by)
    files = _Files(reader, read)
    scope = Scope(reader)
    made = files.file(with_constants(reader, root, given), path, scope, (_real(path),))
    made = with_settings(reader, made, settings_of_instances(reader, made, part), lambda it: it)
    made = with_settings(reader, made, given, scope.fill)
    if made is root:
        return Composed(root, text, {}, complete=True)
    check_size(made, str(path))
    if not reader.problems:
        text, spans = resolved_text(made)
        reader.spans.update(spans)
    return Composed(made, text, files.read_files, files.complete)


@dataclass(slots=True)
class _Parts:
    """What a file and those that it includes say, in order."""

    lists: dict[str, list[yaml.Node]] = field(default_factory=lambda: {it: [] for it in _LISTS})
    sections: dict[str, dict[str, tuple[yaml.Node, yaml.Node]]] = field(default_factory=dict)


@dataclass(slots=True)
class _Files:
    reader: ValueReader
    read: Callable[[Path, str], str]
    read_files: dict[str, str] = field(default_factory=dict)
    complete: bool = True
    count: int = 0

    def file(
        self, root: yaml.Node, path: Path, scope: Scope, around: tuple[Path, ...]
    ) -> yaml.Node:
        """The nodes of one file, with what it includes; `root` itself if it includes and names nothing.

        around: the file, and those that include it, as the system knows them.
        """
        if not isinstance(root, yaml.MappingNode):
            return root
        items = self.reader.items(root, "the graph")
        self._constants(items.get("constants"), scope)
        others = {name: it for name, it in items.items() if name not in ("constants", "includes")}
        filled = {name: (key, scope.fill(value)) for name, (key, value) in others.items()}
        if len(others) == len(items) and not scope.has_filled:
            return root
        includes = items.get("includes")
        if includes is None:
            return _mapping(root, filled.values())
        nodes = self.reader.sequence(scope.fill(includes[1]), "'includes'")
        found = [it for node in nodes if (it := self._included(node, path, around)) is not None]
        self.complete = self.complete and len(found) == len(nodes)
        return self._merged(root, filled, found)

    def _constants(self, item: tuple[yaml.Node, yaml.Node] | None, scope: Scope) -> None:
        """Add the constants to what `scope` has; a param of the same name goes before."""
        if item is None or is_null(item[1]):
            return
        for name, (_, value) in self._named(item[1], "'constants'").items():
            if name in scope.values:
                scope.used.add(name)
            else:
                scope.values[name] = scope.fill(value)

    def _named(self, node: yaml.Node, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key -> key node and value node, of keys that `{{NAME}}` can name."""
        items = self.reader.items(node, what)
        for name, (key, _) in items.items():
            if not name.isidentifier() or not name.isascii():
                self.reader.problem(
                    key,
                    f"{name!r} in {what} is not an identifier; use letters, digits and '_', not "
                    "beginning with a digit",
                )
        return items

    def _included(self, node: yaml.Node, path: Path, around: tuple[Path, ...]) -> yaml.Node | None:
        """The nodes of the file that an item of `includes` names; None after a problem."""
        reader = self.reader
        if isinstance(node, yaml.ScalarNode):
            reader.problem(
                node,
                f"an include must be a mapping; got {reader.shown(node)}; write - path: {node.value}",
            )
            return None
        names = keys.key_names(keys.INCLUDE)
        items = reader.known_items(node, "an include", keys=names, required=("path",))
        where = items.get("path")
        params = items.get("params")
        named: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        if params is not None and not is_null(params):
            named = self._named(params, "'params'")
        text = None if where is None else self._read(where, path, around)
        if text is None or where is None:
            return None
        file = path.parent / where.value
        place = reader.at(node)
        origin = reader.new_origin(Origin(str(file), (place, *place.included_at)))
        try:
            root = compose(text, str(file), origin=origin)
        except GraphError as error:
            self._note(error, origin)
            return None
        scope = Scope(reader, {name: value for name, (_, value) in named.items()})
        reader.known_items(root, f"the included file {file.name}", keys=keys.key_names(keys.GRAPH))
        if not isinstance(root, yaml.MappingNode):
            return None
        made = self.file(root, file, scope, (*around, _real(file)))
        for name, (key, _) in named.items():
            if name not in scope.used:
                reader.problem(
                    key,
                    f"unused param {name!r}: {file} has no {{{{{name}}}}}; it uses "
                    f"{listed(sorted(scope.used))}" + nearest(name, sorted(scope.used)),
                )
        if "missions" in items:
            made = self._in_missions(made, items["missions"], file)
        return made

    def _read(self, where: yaml.Node, path: Path, around: tuple[Path, ...]) -> str | None:
        """The text of the file that `where` names."""
        reader = self.reader
        if not isinstance(where, yaml.ScalarNode) or not where.value.strip():
            reader.problem(where, f"'path' must be a file's path; got {reader.shown(where)}")
            return None
        if "://" in where.value:
            message = (
                "'path' must be a file on this machine; got a URL: save what is there as a file"
            )
            reader.problem(where, message)
            return None
        if "\0" in where.value or "${" in where.value:
            reader.problem(where, "'path' must be a file's path, without environment variables")
            return None
        self.count += 1
        if self.count > _MOST_FILES:
            if self.count == _MOST_FILES + 1:
                reader.problem(where, f"more than {_MOST_FILES} files are included, all in all")
            return None
        file = path.parent / where.value
        real = _real(file)
        if real in around:
            chain = " -> ".join(it.name for it in (*around[around.index(real) :], real))
            reader.problem(where, f"the file includes itself: {chain}")
            return None
        try:
            text = self.read(file, "included file")
        except GraphError as error:
            place = reader.at(where)
            self._note(error, reader.new_origin(Origin(str(file), (place, *place.included_at))))
            return None
        except FlowrunError as error:
            reader.problem(where, str(error))
            return None
        self.read_files[str(file)] = hashlib.sha256(text.encode()).hexdigest()
        return text

    def _note(self, error: GraphError, origin: str) -> None:
        """Note the problems of a text that is not YAML, with the chain of its includes."""
        included_at = self.reader.origins[origin].included_at
        for problem in error.problems:
            where = type(problem.where)(
                problem.where.file, problem.where.line, problem.where.column, included_at
            )
            self.reader.problems[Problem(where, problem.message)] = None

    def _in_missions(self, root: yaml.Node, names: yaml.Node, file: Path) -> yaml.Node:
        """What was included, in these missions only."""
        wanted = self.reader.sequence(names, "'missions'")
        texts = [it.value for it in wanted if isinstance(it, yaml.ScalarNode)]
        items = dict(self.reader.items(root, "the graph"))
        for part in ("tasks", "cnx"):
            if part not in items or not isinstance(items[part][1], yaml.SequenceNode):
                continue
            key, node = items[part]
            nodes = wanted if part == "tasks" else None
            limited = [self._limited(it, nodes, texts, file) for it in node.value]
            items[part] = key, yaml.SequenceNode(_SEQ, limited, node.start_mark, node.end_mark)
        return _mapping(root, items.values())

    def _limited(
        self, node: yaml.Node, wanted: list[yaml.Node] | None, texts: list[str], file: Path
    ) -> yaml.Node:
        """A task or connection in the missions `texts` only. One that names none gets `wanted`: a task;
        a connection is where its tasks are."""
        items = self.reader.items(node, "an entry") if isinstance(node, yaml.MappingNode) else {}
        key, own = items.get("missions", (None, None))
        if key is None and wanted is None:
            return node
        allowed = wanted or []
        if isinstance(own, yaml.SequenceNode) and key is not None:
            allowed = [it for it in own.value if getattr(it, "value", None) in texts]
            if not allowed:
                self.reader.problem(
                    key,
                    f"{file} is included in missions {listed(texts)}, and this is in none of them",
                )
                return node
        name = yaml.ScalarNode(_STR, "missions", node.start_mark, node.end_mark)
        missions = yaml.SequenceNode(_SEQ, allowed, node.start_mark, node.end_mark)
        return _mapping(node, {**items, "missions": (key or name, missions)}.values())

    def _merged(
        self,
        root: yaml.Node,
        own: Mapping[str, tuple[yaml.Node, yaml.Node]],
        included: Iterable[yaml.Node],
    ) -> yaml.Node:
        """One mapping of a file's own items and what it includes."""
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        parts = [self.reader.items(it, "the graph") for it in included]
        for name in _LISTS:
            first, *_ = (
                (own, *parts) if name in own else (*[it for it in parts if name in it], None)
            )
            if first is None:
                continue
            key, node = first[name]
            of_own = self._list(own.get(name), name)
            of_parts = [it for part in parts for it in self._list(part.get(name), name)]
            nodes = [*of_own, *of_parts] if name == "missions" else [*of_parts, *of_own]
            merged[name] = key, yaml.SequenceNode(_SEQ, nodes, node.start_mark, node.end_mark)
        for name in _SECTIONS:
            found = [part[name] for part in (*parts, own) if name in part]
            if found:
                merged[name] = self._section(
                    name, [part.get(name) for part in parts], own.get(name)
                )
        if "tasks" not in merged and not self.complete:  # they may be in what could not be read
            key = yaml.ScalarNode(_STR, "tasks", root.start_mark, root.end_mark)
            merged["tasks"] = key, yaml.SequenceNode(_SEQ, [], root.start_mark, root.end_mark)
        others = {name: it for name, it in own.items() if name not in (*_LISTS, *_SECTIONS)}
        return _mapping(root, [*merged.values(), *others.values()])

    def _list(self, item: tuple[yaml.Node, yaml.Node] | None, name: str) -> list[yaml.Node]:
        return [] if item is None else self.reader.sequence(item[1], repr(name))

    def _section(
        self,
        name: str,
        parts: Iterable[tuple[yaml.Node, yaml.Node] | None],
        own: tuple[yaml.Node, yaml.Node] | None,
    ) -> tuple[yaml.Node, yaml.Node]:
        """A section of which the including file's keys go first; two that it includes may not both
        have one that it lacks."""
        said: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        whole: tuple[yaml.Node, yaml.Node] | None = own
        of_own = self._keys_of(own, name)
        for part in parts:
            whole = whole or part
            for key, item in self._keys_of(part, name).items():
                if key in said and key not in of_own:
                    first = self.reader.at(said[key][0]).seen_from(self.reader.at(item[0]))
                    self.reader.problem(
                        item[0], f"{key!r} of {name!r} is given twice; first {first}"
                    )
                said.setdefault(key, item)
        said |= of_own
        assert whole is not None
        return whole[0], _mapping(whole[1], said.values())

    def _keys_of(
        self, item: tuple[yaml.Node, yaml.Node] | None, name: str
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if item is None or is_null(item[1]):
            return {}
        return self.reader.items(item[1], repr(name))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike `resolve`, it raises nothing for a loop of links


def _mapping(node: yaml.Node, pairs: Iterable[tuple[yaml.Node, yaml.Node]]) -> yaml.MappingNode:
    return yaml.MappingNode(_MAP, list(pairs), node.start_mark, node.end_mark)
