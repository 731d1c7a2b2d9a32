"""The text of a graph file -> GraphSpec: what it says, and where it says it.

Only the structure is checked here: keys, types of values, ids. `bind` checks whether tasks and
messages exist and fit. All mistakes are collected; `GraphError` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from flowrun.runtime.errors import GraphError, Location, Problem
from flowrun.runtime.graph import keys
from flowrun.runtime.graph.file import read_text
from flowrun.runtime.graph.includes import compose_graph
from flowrun.runtime.graph.missions import of_mission, share_a_mission
from flowrun.runtime.graph.partitions import chosen_part, part_id, read_network, read_partitions
from flowrun.runtime.graph.sections import (
    items_of,
    names_of,
    places_of,
    section_items,
    values_of,
)
from flowrun.runtime.graph.spec import (
    IDENTIFIER,
    ConnectionSpec,
    Endpoint,
    GraphSpec,
    LoggingSpec,
    PartId,
    RuntimeSpec,
    TaskSpec,
)
from flowrun.runtime.graph.values import Locate, ValueReader
from flowrun.runtime.wording import mask_within

__all__ = ["ReadGraph", "load_graph", "parse_graph", "read_graph"]

_ID = re.compile(IDENTIFIER)
_ENDPOINT = re.compile(rf"({IDENTIFIER})(?:\.({IDENTIFIER}))?")
_RESERVED_ID = "flowrun"  # topics such as /flowrun/steps are the runtime's own


def load_graph(
    path: Path,
    *,
    env: Mapping[str, str],
    mission: str | None = None,
    partition: str | None = None,
    settings: Sequence[str] = (),
) -> GraphSpec:
    """The graph in the file at `path`, with `${NAME}` in its values resolved from `env`.

    mission, partition, settings: as in `read_graph`.

    `UsageError` if there is no such file or mission; `GraphError` lists every mistake in its structure.
    """
    text = read_text(path)
    return parse_graph(
        text, path=path, env=env, mission=mission, partition=partition, settings=settings
    )


def parse_graph(
    text: str,
    *,
    path: Path,
    env: Mapping[str, str],
    mission: str | None = None,
    partition: str | None = None,
    settings: Sequence[str] = (),
) -> GraphSpec:
    """The graph that `text` describes; `path` names it and says where relative paths start.

    `GraphError` lists every mistake in its structure.
    """
    read = read_graph(
        text, path=path, env=env, mission=mission, partition=partition, settings=settings
    )
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


_JOINS = ("id", "type", "partition", "missions")
"""Keys of a task that all partitions read."""


def read_graph(
    text: str,
    *,
    path: Path,
    env: Mapping[str, str],
    mission: str | None = None,
    partition: str | None = None,
    settings: Sequence[str] = (),
    set_by: str = "--set ",
    locate: Locate | None = None,
) -> ReadGraph:
    """As `parse_graph`, but mistakes are returned. `GraphError` only if the text is not YAML.

    mission: the mission to choose; None chooses the first one that the graph declares.
        `UsageError` if the graph has no such mission.
    partition: the process that is meant, such as "gpu/0"; None means the whole graph. `UsageError` if
        the graph has no such partition or instance.
    settings: values in place of those of the file, `task.key=value`; see `settings`.
    set_by: as in `parse_settings`.
    locate: where a program says what the text does; None for a file.
    """
    part = None if partition is None else part_id(partition)
    node = {"NODE": "NODE" if part is None else part.node}
    reader = ValueReader(file=str(path), env=env, known=node)
    composed = compose_graph(
        reader,
        text,
        path=path,
        part=part,
        settings=settings,
        set_by=set_by,
        read=read_text,
        locate=locate,
    )
    made_at = None if locate is None else locate(())
    graph, complete = _read_graph(
        reader, composed.root, path=path, mission=mission, part=part, made_at=made_at
    )
    complete = complete and composed.complete
    graph = replace(graph, text=composed.text, settings=tuple(settings), includes=composed.files)
    return ReadGraph(graph, list(reader.problems), complete)


def _read_graph(
    reader: ValueReader,
    root: yaml.Node,
    *,
    path: Path,
    mission: str | None,
    part: PartId | None,
    made_at: Location | None,
) -> tuple[GraphSpec, bool]:
    items = items_of(reader, keys.GRAPH, root, "the graph")
    tasks: list[TaskSpec] = []
    complete = "tasks" in items
    if "tasks" in items:
        nodes = reader.sequence(items["tasks"], "'tasks'")
        if not nodes and not reader.problems:
            reader.problem(items["tasks"], "'tasks' is empty; a graph needs at least one task")
        tasks = [task for node in nodes if (task := _read_task(reader, node, part))]
        complete = bool(nodes) and len(tasks) == len(nodes)
    _check_ids(reader, tasks)
    connections: list[ConnectionSpec] = []
    if "cnx" in items:
        nodes = reader.sequence(items["cnx"], "'cnx'")
        connections = [cnx for node in nodes if (cnx := _read_connection(reader, node))]
        complete = complete and len(connections) == len(nodes)
    complete = complete and ("cnx" in items or not reader.problems)
    runtime = section_items(reader, keys.RUNTIME, items.get("runtime"))
    missions = () if "missions" not in items else names_of(reader, keys.MISSIONS, items["missions"])
    graph = GraphSpec(
        name=path.stem,
        path=path,
        text="",
        tasks=tuple(tasks),
        connections=tuple(connections),
        logging=_read_logging(reader, items.get("logging")),
        runtime=RuntimeSpec(**values_of(reader, keys.RUNTIME, runtime)),
        runtime_where=_places(reader, runtime),
        missions=missions,
        made_at=made_at,
        partitions=read_partitions(reader, items.get("partitions"), part),
        network=read_network(reader, items.get("network")),
    )
    graph = replace(graph, part=chosen_part(graph, part))
    plain = reader.plain_variables - reader.secret_variables
    hidden = frozenset(map(reader.variables.__getitem__, reader.secret_variables)) - {""}
    graph = replace(
        graph,
        tasks=tuple(
            replace(task, masked_config=mask_within(task.masked_config, hidden)) for task in tasks
        ),
        environment={it: reader.variables[it] for it in sorted(plain & reader.variables.keys())},
    )
    graph, problems = of_mission(graph, mission)
    reader.problems |= dict.fromkeys(problems)
    return graph, complete


def _better_id(text: str) -> str:
    better = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")
    return f" (did you mean {better!r}?)" if _ID.fullmatch(better) else ""


def _read_task(reader: ValueReader, node: yaml.Node, part: PartId | None) -> TaskSpec | None:
    """part: the process that is meant: tasks that run in other partitions are for machines on which
    other variables are set. What joins all partitions must be known on each."""
    items = items_of(reader, keys.TASK, node, "a task")
    joins = {name: items[name] for name in _JOINS if name in items}
    values = values_of(reader, keys.TASK, joins, owner="a task's ")
    reader.is_elsewhere = part is not None and values["partition"] != part.partition
    others = {name: it for name, it in items.items() if name not in _JOINS}
    values = {
        **values_of(reader, keys.TASK, others, owner="a task's "),
        **{name: values[name] for name in _JOINS},
    }
    if values["id"] is not None and not _ID.fullmatch(values["id"]):
        reader.problem(
            items["id"],
            f"task id {values['id']!r} is not an identifier; use letters, digits and '_', "
            "not beginning with a digit" + _better_id(values["id"]),
        )
        values["id"] = None
    config = reader.config(items.get("config"))
    reader.is_elsewhere = False
    if values["id"] is None or values["type"] is None:
        return None
    return TaskSpec(
        **values,
        config=config.value,
        where=reader.at(node),
        config_where=config.where,
        secrets=frozenset(config.secrets),
        scalars=config.scalars,
        key_where=places_of(reader, items),
        masked_config=config.masked,
    )


def _places(reader: ValueReader, items: Mapping[str, yaml.Node]) -> dict[tuple[str, ...], Location]:
    """The place of each value of `runtime`, and of each of its `background`."""
    found: dict[tuple[str, ...], Location] = {
        (name,): reader.at(node) for name, node in items.items()
    }
    inner = items.get("background")
    if isinstance(inner, yaml.MappingNode):
        for name, (_, node) in reader.items(inner, "'background'").items():
            found["background", name] = reader.at(node)
    return found


def _check_ids(reader: ValueReader, tasks: list[TaskSpec]) -> None:
    of_id: dict[str, list[TaskSpec]] = {}
    for task in tasks:
        where = task.key_where["id"]
        if task.id == _RESERVED_ID:
            message = f"task id {task.id!r} is the runtime's own; choose another"
            reader.problems[Problem(where, message)] = None
        for other in of_id.setdefault(task.id, []):
            if share_a_mission(other.missions, task.missions):
                place = other.key_where["id"].seen_from(where)
                message = f"duplicate task id {task.id!r}; first {place}"
                reader.problems[Problem(where, message)] = None
                break
        of_id[task.id].append(task)


def _read_connection(reader: ValueReader, node: yaml.Node) -> ConnectionSpec | None:
    items = items_of(reader, keys.CONNECTION, node, "a connection")
    values = values_of(reader, keys.CONNECTION, items)
    src = _endpoint(reader, items.get("src"), "src", values["src"])
    dst = _endpoint(reader, items.get("dst"), "dst", values["dst"])
    if src is None or dst is None or values["msg"] is None:
        return None
    link = section_items(reader, keys.LINK, items.get("link"))
    return ConnectionSpec(
        src,
        dst,
        values["msg"],
        reader.at(node),
        places_of(reader, items),
        values["missions"],
        link=values["link"],
        link_where=places_of(reader, link),
    )


def _endpoint(
    reader: ValueReader, node: yaml.Node | None, name: str, text: str | None
) -> Endpoint | None:
    if text is None or node is None:
        return None
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        reader.problem(node, f"{name!r} must be a task id, or task.port; got {text!r}")
        return None
    return Endpoint(match[1], match[2])


def _read_logging(reader: ValueReader, node: yaml.Node | None) -> LoggingSpec:
    items = section_items(reader, keys.LOGGING, node)
    known_problems = len(reader.problems)
    logging = LoggingSpec(**values_of(reader, keys.LOGGING, items))
    slab, section = logging.slab_size_mib, logging.section_size_mib
    if section > slab and "section_size_mib" in items and len(reader.problems) == known_problems:
        reader.problem(
            items["section_size_mib"],
            f"'section_size_mib' must not exceed 'slab_size_mib'; got {section} and {slab}",
        )
    if logging.mode != "ring" and "keep_slabs" in items:
        reader.problem(items["keep_slabs"], "'keep_slabs' needs 'mode: ring'")
    return replace(logging, section_size_mib=min(section, slab))
