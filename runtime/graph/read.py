"""The text of a graph file -> GraphSpec: what it says, and where it says it.

Only the structure is judged here: keys, types of values, ids. Whether the tasks and messages exist
and fit is `bind`'s business. All mistakes are collected; `GraphError` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from flowrun.runtime.errors import GraphError, Location, Problem
from flowrun.runtime.graph.file import compose, read_text
from flowrun.runtime.graph.spec import (
    CODECS,
    IDENTIFIER,
    TASK_POLICIES,
    ConnectionSpec,
    Endpoint,
    GraphSpec,
    KeepSpec,
    LoggingSpec,
    RuntimeSpec,
    TaskLogging,
    TaskSpec,
)
from flowrun.runtime.graph.values import Value, ValueReader, is_null

__all__ = ["ReadGraph", "load_graph", "parse_graph", "read_graph"]

GRAPH_KEYS = ("tasks", "cnx", "logging", "runtime")
TASK_KEYS = ("id", "type", "config", "background", "every", "rate_hz", "on_error", "logging")
CONNECTION_KEYS = ("src", "dst", "msg")
LOGGING_KEYS = (
    "slab_size_mib",
    "section_size_mib",
    "enable_task_logging",
    "on_error",
    "keep",
    "mode",
    "keep_slabs",
    "keyframe_interval",
)
KEEP_KEYS = ("gib", "runs")
TASK_LOGGING_KEYS = ("enabled", "payload", "codec")
RUNTIME_KEYS = ("ring_size", "seed", "rate_hz")

_ID = re.compile(IDENTIFIER)
_ENDPOINT = re.compile(rf"({IDENTIFIER})(?:\.({IDENTIFIER}))?")
_RESERVED_ID = "flowrun"  # its topics, /flowrun/steps and others, are the runtime's own


def load_graph(path: Path, *, env: Mapping[str, str]) -> GraphSpec:
    """The graph in the file at `path`, with `${NAME}` in its values resolved from `env`.

    `UsageError` if there is no such file; `GraphError` lists every mistake in its structure.
    """
    return parse_graph(read_text(path), path=path, env=env)


def parse_graph(text: str, *, path: Path, env: Mapping[str, str]) -> GraphSpec:
    """The graph that `text` describes; `path` names it and says where relative paths start.

    `GraphError` lists every mistake in its structure.
    """
    read = read_graph(text, path=path, env=env)
    if read.problems:
        raise GraphError(read.problems)
    return read.graph


@dataclass(frozen=True, slots=True)
class ReadGraph:
    """What could be read of a graph file, for checks that go on after the first mistakes.

    complete: whether no task and no connection was left out of `graph`.
    """

    graph: GraphSpec
    problems: list[Problem]
    complete: bool


def read_graph(text: str, *, path: Path, env: Mapping[str, str]) -> ReadGraph:
    """As `parse_graph`, but what is wrong is returned. `GraphError` where it is not even YAML."""
    reader = ValueReader(file=str(path), env=env)
    root = compose(text, str(path))
    graph, complete = _read_graph(reader, root, text=text, path=path)
    return ReadGraph(graph, list(reader.problems), complete)


def _read_graph(
    reader: ValueReader, root: yaml.Node, *, text: str, path: Path
) -> tuple[GraphSpec, bool]:
    items = reader.known_items(root, "the graph", keys=GRAPH_KEYS, required=("tasks",))
    tasks: list[TaskSpec] = []
    complete = "tasks" in items
    if "tasks" in items:
        nodes = reader.sequence(items["tasks"], "'tasks'")
        if not nodes and not reader.problems:
            reader.problem(items["tasks"], "'tasks' is empty; a graph needs at least one task")
        tasks = [task for node in nodes if (task := _read_task(reader, node))]
        complete = bool(nodes) and len(tasks) == len(nodes)
    _check_ids(reader, tasks)
    connections: list[ConnectionSpec] = []
    if "cnx" in items:
        nodes = reader.sequence(items["cnx"], "'cnx'")
        connections = [cnx for node in nodes if (cnx := _read_connection(reader, node))]
        complete = complete and len(connections) == len(nodes)
    complete = complete and ("cnx" in items or not reader.problems)
    graph = GraphSpec(
        name=path.stem,
        path=path,
        text=text,
        tasks=tuple(tasks),
        connections=tuple(connections),
        logging=_read_logging(reader, items.get("logging")),
        runtime=_read_runtime(reader, items.get("runtime")),
    )
    return graph, complete


def _read_task(reader: ValueReader, node: yaml.Node) -> TaskSpec | None:
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
    reader.secrets, reader.scalars = set(), {}
    where: dict[tuple[str | int, ...], Location] = {}
    config = Value({}, {})
    if "config" in items and not is_null(items["config"]):
        where[()] = reader.at(items["config"])
        if isinstance(items["config"], yaml.MappingNode):
            config = reader.value(items["config"], (), where)
        else:
            reader.items(items["config"], "'config'")
    secrets = frozenset(reader.secrets)
    background = reader.boolean(items.get("background"), "'background'", default=False)
    every = reader.integer(items.get("every"), "'every'", default=1, minimum=1)
    rate_hz = reader.rate(items.get("rate_hz"), "'rate_hz'")
    on_error = reader.choice(
        items.get("on_error"), "'on_error'", choices=TASK_POLICIES, default="stop"
    )
    logging = _read_task_logging(reader, items.get("logging"))
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
        scalars=reader.scalars,
        key_where={name: reader.at(value) for name, value in items.items()},
        masked_config=config.masked,
        on_error=on_error,
        every=every,
        rate_hz=rate_hz,
    )


def _read_task_logging(reader: ValueReader, node: yaml.Node | None) -> TaskLogging:
    default = TaskLogging()
    if node is None or is_null(node):
        return default
    items = reader.known_items(node, "a task's 'logging'", keys=TASK_LOGGING_KEYS)
    return TaskLogging(
        reader.boolean(items.get("enabled"), "'enabled'", default=default.enabled),
        reader.choice(
            items.get("payload"), "'payload'", choices=("all", "none"), default=default.payload
        ),
        _read_codec(reader, items.get("codec")),
    )


def _read_codec(reader: ValueReader, node: yaml.Node | None) -> str | None:
    if node is None or is_null(node):
        return None
    return reader.choice(node, "'codec'", choices=CODECS, default=CODECS[0])


def _check_ids(reader: ValueReader, tasks: list[TaskSpec]) -> None:
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


def _read_connection(reader: ValueReader, node: yaml.Node) -> ConnectionSpec | None:
    items = reader.known_items(node, "a connection", keys=CONNECTION_KEYS, required=CONNECTION_KEYS)
    src = _read_endpoint(reader, items.get("src"), "'src'")
    dst = _read_endpoint(reader, items.get("dst"), "'dst'")
    msg = reader.text(items.get("msg"), "'msg'")
    if src is None or dst is None or msg is None:
        return None
    where = {name: reader.at(value) for name, value in items.items()}
    return ConnectionSpec(src, dst, msg, reader.at(node), where)


def _read_endpoint(reader: ValueReader, node: yaml.Node | None, what: str) -> Endpoint | None:
    text = reader.text(node, what)
    if text is None or node is None:
        return None
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        reader.problem(node, f"{what} must be a task id, or task.port; got {text!r}")
        return None
    return Endpoint(match[1], match[2])


def _read_logging(reader: ValueReader, node: yaml.Node | None) -> LoggingSpec:
    default = LoggingSpec()
    if node is None or is_null(node):
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
    on_error = reader.choice(
        items.get("on_error"), "'on_error'", choices=("stop", "continue"), default=default.on_error
    )
    mode = reader.choice(items.get("mode"), "'mode'", choices=("all", "ring"), default=default.mode)
    keep_slabs = reader.integer(
        items.get("keep_slabs"), "'keep_slabs'", default=default.keep_slabs, minimum=2
    )
    if mode != "ring" and "keep_slabs" in items:
        reader.problem(items["keep_slabs"], "'keep_slabs' needs 'mode: ring'")
    keep = _read_keep(reader, items.get("keep"))
    interval = reader.integer(
        items.get("keyframe_interval"),
        "'keyframe_interval'",
        default=default.keyframe_interval,
        minimum=0,
    )
    return LoggingSpec(
        slab, min(section, slab), enabled, on_error, keep, mode, keep_slabs, interval
    )


def _read_keep(reader: ValueReader, node: yaml.Node | None) -> KeepSpec:
    if node is None or is_null(node):
        return KeepSpec()
    items = reader.known_items(node, "'keep'", keys=KEEP_KEYS)
    runs = reader.integer(items.get("runs"), "'runs'", default=1, minimum=1)
    return KeepSpec(reader.rate(items.get("gib"), "'gib'"), runs if "runs" in items else None)


def _read_runtime(reader: ValueReader, node: yaml.Node | None) -> RuntimeSpec:
    default = RuntimeSpec()
    if node is None or is_null(node):
        return default
    items = reader.known_items(node, "'runtime'", keys=RUNTIME_KEYS)
    return RuntimeSpec(
        reader.integer(items.get("ring_size"), "'ring_size'", default=default.ring_size, minimum=1),
        reader.integer(items.get("seed"), "'seed'", default=default.seed, minimum=0),
        reader.rate(items.get("rate_hz"), "'rate_hz'"),
    )
