"""The text of a graph file -> GraphSpec: what it says, and where it says it.

Only the structure is judged here: keys, types of values, ids, `${ENV}`. Whether the tasks and
messages exist and fit is `bind`'s business. All mistakes are collected; `GraphError` lists them.

YAML is read by the 1.2 core schema, as editors do: `no` and `12:30` are texts. Anchors, aliases and
merge keys (`<<`) work; tags do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flowrun.runtime.errors import GraphError, Location, Problem, UsageError
from flowrun.runtime.wording import MASK, described, listed, mask_urls, nearest

__all__ = [
    "ConnectionSpec",
    "Endpoint",
    "GraphSpec",
    "LoggingSpec",
    "RuntimeSpec",
    "TaskLogging",
    "TaskSpec",
    "load_graph",
    "parse_graph",
]

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
"""Keys and values, with every alias counted as often as it is used."""
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a connection; `port` is None where the file names only the task."""

    task: str
    port: str | None

    def __str__(self) -> str:
        return self.task if self.port is None else f"{self.task}.{self.port}"


@dataclass(frozen=True, slots=True)
class TaskLogging:
    """What is kept of one task. enabled: whether its messages go into the log."""

    enabled: bool = True


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One entry of `tasks`.

    config: as in the file, with `${ENV}` resolved; not yet validated.
    where: the entry's own place; key_where: the places of the values of its keys.
    config_where: the place of each key and list item within `config`, by its path.
    secrets: texts that came from the environment. They never reach a log, a reply or an error text.
    masked_config: `config` as it may be shown.
    """

    id: str
    type: str
    config: dict[str, Any]
    background: bool
    logging: TaskLogging
    where: Location
    config_where: Mapping[tuple[str | int, ...], Location]
    secrets: frozenset[str]
    key_where: Mapping[str, Location] = field(default_factory=dict)
    masked_config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConnectionSpec:
    """One entry of `cnx`. key_where: the places of `src`, `dst` and `msg`."""

    src: Endpoint
    dst: Endpoint
    msg: str
    where: Location
    key_where: Mapping[str, Location] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoggingSpec:
    """`logging`: the size of the log's files, of the pieces they grow by; whether to log at all."""

    slab_size_mib: int = 1024
    section_size_mib: int = 100
    enable_task_logging: bool = True


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """`runtime`. ring_size: preallocated cycle records, at least 1. seed: that of `ctx.rng`."""

    ring_size: int = 4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """What a graph file says.

    name: the file's name without its suffix.
    path: as the user gave it. text: the file as it is, `${ENV}` unresolved.
    """

    name: str
    path: Path
    text: str
    tasks: tuple[TaskSpec, ...]
    connections: tuple[ConnectionSpec, ...]
    logging: LoggingSpec
    runtime: RuntimeSpec

    def masked(self) -> dict[str, Any]:
        """The graph as plain data with every default filled in, fit to be shown: values from the
        environment, and `user:password` in URLs, are `***`."""
        return {
            "tasks": [
                {
                    "id": task.id,
                    "type": task.type,
                    "config": task.masked_config,
                    "background": task.background,
                    "logging": {"enabled": task.logging.enabled},
                }
                for task in self.tasks
            ],
            "cnx": [
                {"src": str(cnx.src), "dst": str(cnx.dst), "msg": cnx.msg}
                for cnx in self.connections
            ],
            "logging": {
                "slab_size_mib": self.logging.slab_size_mib,
                "section_size_mib": self.logging.section_size_mib,
                "enable_task_logging": self.logging.enable_task_logging,
            },
            "runtime": {"ring_size": self.runtime.ring_size, "seed": self.runtime.seed},
        }


def load_graph(path: Path, *, env: Mapping[str, str]) -> GraphSpec:
    """The graph in the file at `path`, with `${NAME}` in its values resolved from `env`.

    `UsageError` if there is no such file; `GraphError` lists every mistake in its structure.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(_not_found(path)) from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; {_graph_files(path)}") from None
    except OSError as error:
        raise UsageError(f"cannot read graph file {path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        message = f"the file has {len(data)} bytes; a graph file has at most {MAX_BYTES}"
        raise GraphError([Problem(Location(str(path), 1, 1), message)])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode().split("\n")
        where = Location(str(path), len(before), len(before[-1]) + 1)
        message = f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise GraphError([Problem(where, message)]) from None
    return parse_graph(text, path=path, env=env)


def parse_graph(text: str, *, path: Path, env: Mapping[str, str]) -> GraphSpec:
    """The graph that `text` describes; `path` names it and says where relative paths start.

    `GraphError` lists every mistake in its structure.
    """
    reader = _Reader(file=str(path), env=env)
    root = _compose(text, str(path))
    graph = _read_graph(reader, root, text=text, path=path)
    if reader.problems:
        raise GraphError(list(reader.problems))
    return graph


def _not_found(path: Path) -> str:
    names = sorted(
        p.name for pattern in ("*.yaml", "*.yml") for p in path.parent.glob(pattern) if p.is_file()
    )
    folder = "the current folder" if path.parent == Path() else path.parent
    if not path.parent.is_dir():
        return f"graph file not found: {path}; there is no folder {folder}"
    if not names:
        return f"graph file not found: {path}; {folder} holds no .yaml file"
    return f"graph file not found: {path}; {folder} holds {listed(names)}" + nearest(
        path.name, names
    )


def _graph_files(folder: Path) -> str:
    names = sorted(p.name for pattern in ("*.yaml", "*.yml") for p in folder.glob(pattern))
    return f"name one of its graph files: {listed(names)}"


# -- text -> nodes -----------------------------------------------------------------------------

_YAML_WORDS = (
    # What PyYAML says -> what to mend. The first that occurs in its text is taken.
    ("mapping values are not allowed", "unexpected ':'; check the indentation, or quote the text"),
    ("found character '\\t'", "a tab; indent with spaces"),
    ("cannot start any token", "a text that begins with a special character; quote it"),
    ("could not find expected ':'", "expected ':' after the key"),
    ("expected <block end>", "unexpected here; check the indentation, or quote the text"),
    ("expected the node content", "expected a value"),
    ("expected ',' or ']'", "expected ',' or ']'; quote a text that holds { } [ ] or ,"),
    ("expected ',' or '}'", "expected ',' or '}'; quote a text that holds { } [ ] or ,"),
    ("while scanning a quoted scalar", "the quotes are not closed"),
    ("expected a single document", "a second document ('---'); a graph file holds one"),
)


class _Refused(Exception):  # noqa: N818  # never leaves this module
    def __init__(self, mark: yaml.Mark, message: str) -> None:
        self.mark = mark
        super().__init__(message)


class _Loader(yaml.SafeLoader):
    """Composes nodes with marks, and refuses what would grow without bound before it has grown."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # plain scalars: see _typed
    count = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self.count += 1
        self.depth += 1
        if self.count > MAX_NODES:
            raise _Refused(mark, f"more than {MAX_NODES} keys and values")
        if self.depth > MAX_DEPTH:
            raise _Refused(mark, f"nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str, file: str) -> yaml.Node:
    """The root node. `GraphError` for a text that is not one YAML document of a sane size."""
    start = Location(file, 1, 1)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is not None:
            _measure(root, {}, ())
    except _Refused as error:
        where = Location(file, error.mark.line + 1, error.mark.column + 1)
        raise GraphError([Problem(where, str(error))]) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        where = Location(file, len(before), len(before[-1]) + 1)
        message = f"not valid YAML: unprintable character U+{int(error.character):04X}"
        raise GraphError([Problem(where, message)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Location(file, mark.line + 1, mark.column + 1) if mark else start
        raise GraphError([Problem(where, f"not valid YAML: {_in_words(error)}")]) from None
    if root is None:
        raise GraphError([Problem(start, "the file is empty; a graph needs 'tasks'")])
    return root


def _in_words(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    undefined = re.search(r"undefined alias '(.*)'", problem)
    if undefined:
        return f"alias '*{undefined[1]}' has no anchor '&{undefined[1]}' before it"
    said = f"{error.context} {problem}"
    return next((words for sign, words in _YAML_WORDS if sign in said), problem)


def _measure(
    node: yaml.Node, known: dict[int, tuple[int, int]], above: tuple[int, ...]
) -> tuple[int, int]:
    """How many nodes `node` is, and how deep, with aliases expanded; refuses too many."""
    if id(node) in above:
        raise _Refused(node.start_mark, "an alias inside its own anchor; it would have no end")
    if id(node) not in known:
        count, depth = 1, 1
        for child in _children(node):
            below = _measure(child, known, (*above, id(node)))
            count += below[0]
            depth = max(depth, below[1] + 1)
        if count > MAX_NODES:
            message = f"more than {MAX_NODES} keys and values when its aliases are expanded"
            raise _Refused(node.start_mark, message)
        if depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} deep when its aliases are expanded"
            raise _Refused(node.start_mark, message)
        known[id(node)] = count, depth
    return known[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


# -- nodes -> values ---------------------------------------------------------------------------

_TAG = "tag:yaml.org,2002:"
_VARIABLE = re.compile(
    r"(?P<literal>\$\$\{)|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?"
)
_INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def _typed(text: str) -> Any:
    """What the plain scalar `text` means in YAML 1.2's core schema."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


@dataclass(frozen=True, slots=True)
class _Value:
    """A value, and the same as it may be shown."""

    value: Any
    masked: Any


@dataclass(slots=True)
class _Reader:
    """Reads nodes; collects problems, each once even where aliases lead to it twice."""

    file: str
    env: Mapping[str, str]
    problems: dict[Problem, None] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    _scalars: dict[int, tuple[_Value | None, frozenset[str]]] = field(default_factory=dict)

    def at(self, node: yaml.Node) -> Location:
        return Location(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def problem(self, node: yaml.Node, message: str) -> None:
        self.problems[Problem(self.at(node), message)] = None

    def items(self, node: yaml.Node, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key -> (key node, value node) of a mapping, its merge keys followed."""
        if not isinstance(node, yaml.MappingNode) or not self._untagged(node, "map"):
            self.problem(node, f"{what} must be a mapping (key: value); got {self.shown(node)}")
            return {}
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None or not self._untagged(key, "str"):
                self.problem(key, f"a key of {what} must be a text; got {self.shown(key)}")
            elif name == "<<" and _is_plain(key):
                sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for source in sources:
                    merged = self.items(source, "what '<<' merges") | merged
            elif name in found:
                first = found[name][0].start_mark.line + 1
                self.problem(key, f"duplicate key {name!r}; first on line {first}")
            else:
                found[name] = key, value
        return merged | found

    def known_items(
        self, node: yaml.Node, what: str, *, keys: tuple[str, ...], required: tuple[str, ...] = ()
    ) -> dict[str, yaml.Node]:
        """Key -> value node of a mapping that has only `keys`, and all of `required`."""
        items = self.items(node, what)
        for name, (key, _) in items.items():
            if name not in keys:
                self.problem(
                    key,
                    f"unknown key {name!r} in {what}; valid keys: {listed(keys)}"
                    + nearest(name, keys),
                )
        if isinstance(node, yaml.MappingNode):
            for name in required:
                if name not in items:
                    self.problem(node, f"{what} lacks {name!r}; it needs {listed(required)}")
        return {name: value for name, (_, value) in items.items() if name in keys}

    def sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode) and self._untagged(node, "seq"):
            return list(node.value)
        if _is_null(node):
            return []
        self.problem(node, f"{what} must be a list (- ...); got {self.shown(node)}")
        return []

    def text(self, node: yaml.Node | None, what: str) -> str | None:
        """A text; None after a problem, which has been noted."""
        found = self._scalar_or_problem(node, what, "a text")
        if found is None or isinstance(found.value, str):
            return None if found is None else found.value
        assert node is not None
        self.problem(node, f"{what} must be a text; got {described(found.masked)}")
        return None

    def boolean(self, node: yaml.Node | None, what: str, *, default: bool) -> bool:
        found = self._scalar_or_problem(node, what, "true or false")
        if found is None or isinstance(found.value, bool):
            return default if found is None else found.value
        assert node is not None
        self.problem(node, f"{what} must be true or false; got {described(found.masked)}")
        return default

    def integer(self, node: yaml.Node | None, what: str, *, default: int, minimum: int) -> int:
        expected = f"a whole number of at least {minimum}"
        found = self._scalar_or_problem(node, what, expected)
        if found is None or (type(found.value) is int and found.value >= minimum):
            return default if found is None else found.value
        assert node is not None
        self.problem(node, f"{what} must be {expected}; got {described(found.masked)}")
        return default

    def _scalar_or_problem(self, node: yaml.Node | None, what: str, expected: str) -> _Value | None:
        if node is None:
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        self.problem(node, f"{what} must be {expected}; got {self.shown(node)}")
        return None

    def value(
        self, node: yaml.Node, path: tuple[str | int, ...], where: dict[Any, Location]
    ) -> _Value:
        """Any value; `where` takes the place of each key and item below it, by its path."""
        plain: Any
        masked: Any
        if isinstance(node, yaml.MappingNode):
            plain, masked = {}, {}
            for name, (key, child) in self.items(node, _path_in_words(path)).items():
                where[*path, name] = self.at(key)
                found = self.value(child, (*path, name), where)
                plain[name], masked[name] = found.value, found.masked
        elif isinstance(node, yaml.SequenceNode):
            plain, masked = [], []
            self._untagged(node, "seq")
            for i, child in enumerate(node.value):
                where[*path, i] = self.at(child)
                found = self.value(child, (*path, i), where)
                plain.append(found.value)
                masked.append(found.masked)
        else:
            return self.scalar(node) or _Value(None, None)
        return _Value(plain, masked)

    def scalar(self, node: yaml.Node) -> _Value | None:
        """The scalar's value with `${NAME}` resolved; None after a problem, which has been noted.

        Kept by node: a long text behind many aliases is resolved once.
        """
        if id(node) not in self._scalars:
            outside, self.secrets = self.secrets, set()
            found = self._resolve(node) if self._untagged(node, "str") else None
            self._scalars[id(node)] = found, frozenset(self.secrets)
            self.secrets = outside
        found, secrets = self._scalars[id(node)]
        self.secrets |= secrets
        return found

    def _resolve(self, node: yaml.Node) -> _Value | None:
        text: str = node.value
        plain = _is_plain(node)
        if "${" not in text:
            value = _typed(text) if plain else text
            return _Value(value, mask_urls(value) if isinstance(value, str) else value)
        values, shown, end, known_problems = [], [], 0, len(self.problems)
        for match in _VARIABLE.finditer(text):
            before = text[end : match.start()]
            end = match.end()
            value, masked = self._variable(node, match)
            values += [before, value]
            shown += [before, masked]
        if len(self.problems) > known_problems:
            return None
        whole = len(values) == 2 and not values[0] and end == len(text)
        resolved = "".join([*values, text[end:]])
        masked = mask_urls("".join([*shown, text[end:]]))
        if whole and plain:
            return _Value(_typed(resolved), _typed(masked))
        return _Value(resolved, masked)

    def _variable(self, node: yaml.Node, match: re.Match[str]) -> tuple[str, str]:
        if match["literal"]:
            return "${", "${"
        name, default = match["name"], match["default"]
        if name is None:
            self.problem(
                node, "'${' must begin ${NAME} or ${NAME:-default}; write '$${' for the text '${'"
            )
            return "", ""
        value = self.env.get(name, "")
        if value or (default is None and name in self.env):
            self.secrets |= {value} if value else set()
            return value, MASK
        if default is not None:
            return default, default
        self.problem(
            node,
            f"environment variable {name!r} is not set; set it, or write ${{{name}:-default}}",
        )
        return "", ""

    def _untagged(self, node: yaml.Node, kind: str) -> bool:
        if node.tag == _TAG + kind:
            return True
        tag = node.tag.replace(_TAG, "!!")
        self.problem(node, f"the tag {tag!r} has no meaning in a graph file; leave it out")
        return kind != "str"

    def shown(self, node: yaml.Node) -> str:
        """What stands at `node`, for an error text; `${NAME}` unresolved."""
        if isinstance(node, yaml.ScalarNode):
            return described(_typed(node.value) if _is_plain(node) else node.value)
        return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def _is_plain(node: yaml.Node) -> bool:
    """Whether `node` is a scalar without quotes, whose text YAML gives a type."""
    return isinstance(node, yaml.ScalarNode) and node.style is None


def _is_null(node: yaml.Node) -> bool:
    return _is_plain(node) and _typed(node.value) is None


def _path_in_words(path: tuple[str | int, ...]) -> str:
    return repr(".".join(map(str, ("config", *path))))


# -- values -> GraphSpec -----------------------------------------------------------------------

GRAPH_KEYS = ("tasks", "cnx", "logging", "runtime")
TASK_KEYS = ("id", "type", "config", "background", "logging")
CONNECTION_KEYS = ("src", "dst", "msg")
LOGGING_KEYS = ("slab_size_mib", "section_size_mib", "enable_task_logging")
RUNTIME_KEYS = ("ring_size", "seed")

IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_ID = re.compile(IDENTIFIER)
_ENDPOINT = re.compile(rf"({IDENTIFIER})(?:\.({IDENTIFIER}))?")
_RESERVED_ID = "flowrun"  # its topics, /flowrun/steps and others, are the runtime's own


def _read_graph(reader: _Reader, root: yaml.Node, *, text: str, path: Path) -> GraphSpec:
    items = reader.known_items(root, "the graph", keys=GRAPH_KEYS, required=("tasks",))
    tasks: list[TaskSpec] = []
    if "tasks" in items:
        nodes = reader.sequence(items["tasks"], "'tasks'")
        if not nodes and not reader.problems:
            reader.problem(items["tasks"], "'tasks' is empty; a graph needs at least one task")
        tasks = [task for node in nodes if (task := _read_task(reader, node))]
    _check_ids(reader, tasks)
    connections: list[ConnectionSpec] = []
    if "cnx" in items:
        nodes = reader.sequence(items["cnx"], "'cnx'")
        connections = [cnx for node in nodes if (cnx := _read_connection(reader, node))]
    return GraphSpec(
        name=path.stem,
        path=path,
        text=text,
        tasks=tuple(tasks),
        connections=tuple(connections),
        logging=_read_logging(reader, items.get("logging")),
        runtime=_read_runtime(reader, items.get("runtime")),
    )


def _read_task(reader: _Reader, node: yaml.Node) -> TaskSpec | None:
    items = reader.known_items(node, "a task", keys=TASK_KEYS, required=("id", "type"))
    task_id = reader.text(items.get("id"), "'id'")
    if task_id is not None and not _ID.fullmatch(task_id):
        reader.problem(
            items["id"],
            f"task id {task_id!r} is not an identifier; use letters, digits and '_', "
            "not beginning with a digit",
        )
        task_id = None
    type_name = reader.text(items.get("type"), "'type'")
    reader.secrets = set()
    where: dict[tuple[str | int, ...], Location] = {}
    config = _Value({}, {})
    if "config" in items and not _is_null(items["config"]):
        where[()] = reader.at(items["config"])
        if isinstance(items["config"], yaml.MappingNode):
            config = reader.value(items["config"], (), where)
        else:
            reader.items(items["config"], "'config'")
    secrets = frozenset(reader.secrets)
    background = reader.boolean(items.get("background"), "'background'", default=False)
    logging = TaskLogging()
    if "logging" in items and not _is_null(items["logging"]):
        switches = reader.known_items(items["logging"], "a task's 'logging'", keys=("enabled",))
        logging = TaskLogging(reader.boolean(switches.get("enabled"), "'enabled'", default=True))
    if task_id is None or type_name is None:
        return None
    return TaskSpec(
        id=task_id,
        type=type_name,
        config=config.value,
        background=background,
        logging=logging,
        where=reader.at(node),
        config_where=where,
        secrets=secrets,
        key_where={name: reader.at(value) for name, value in items.items()},
        masked_config=config.masked,
    )


def _check_ids(reader: _Reader, tasks: list[TaskSpec]) -> None:
    first: dict[str, TaskSpec] = {}
    for task in tasks:
        where = task.key_where["id"]
        if task.id == _RESERVED_ID:
            message = f"task id {task.id!r} is the runtime's own; choose another"
            reader.problems[Problem(where, message)] = None
        elif task.id in first:
            line = first[task.id].key_where["id"].line
            message = f"duplicate task id {task.id!r}; first on line {line}"
            reader.problems[Problem(where, message)] = None
        else:
            first[task.id] = task


def _read_connection(reader: _Reader, node: yaml.Node) -> ConnectionSpec | None:
    items = reader.known_items(node, "a connection", keys=CONNECTION_KEYS, required=CONNECTION_KEYS)
    src = _read_endpoint(reader, items.get("src"), "'src'")
    dst = _read_endpoint(reader, items.get("dst"), "'dst'")
    msg = reader.text(items.get("msg"), "'msg'")
    if src is None or dst is None or msg is None:
        return None
    where = {name: reader.at(value) for name, value in items.items()}
    return ConnectionSpec(src, dst, msg, reader.at(node), where)


def _read_endpoint(reader: _Reader, node: yaml.Node | None, what: str) -> Endpoint | None:
    text = reader.text(node, what)
    if text is None or node is None:
        return None
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        reader.problem(node, f"{what} must be a task id, or task.port; got {text!r}")
        return None
    return Endpoint(match[1], match[2])


def _read_logging(reader: _Reader, node: yaml.Node | None) -> LoggingSpec:
    default = LoggingSpec()
    if node is None or _is_null(node):
        return default
    items = reader.known_items(node, "'logging'", keys=LOGGING_KEYS)
    known_problems = len(reader.problems)
    slab, section = (
        reader.integer(items.get(name), f"{name!r}", default=getattr(default, name), minimum=1)
        for name in LOGGING_KEYS[:2]
    )
    if section > slab and "section_size_mib" in items and len(reader.problems) == known_problems:
        reader.problem(
            items["section_size_mib"],
            f"'section_size_mib' must not exceed 'slab_size_mib'; got {section} and {slab}",
        )
    enabled = reader.boolean(
        items.get("enable_task_logging"),
        "'enable_task_logging'",
        default=default.enable_task_logging,
    )
    return LoggingSpec(slab, min(section, slab), enabled)


def _read_runtime(reader: _Reader, node: yaml.Node | None) -> RuntimeSpec:
    default = RuntimeSpec()
    if node is None or _is_null(node):
        return default
    items = reader.known_items(node, "'runtime'", keys=RUNTIME_KEYS)
    return RuntimeSpec(
        reader.integer(items.get("ring_size"), "'ring_size'", default=default.ring_size, minimum=1),
        reader.integer(items.get("seed"), "'seed'", default=default.seed, minimum=0),
    )
