"""BoundGraph -> Plan: the order in which the tasks run, and the slot of each port.

Slots and steps are numbered in the order of execution. Only this module knows networkx.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from pathlib import Path

from flowrun.msgs.message import Message
from flowrun.runtime.errors import GraphError, InternalError, Problem
from flowrun.runtime.graph.bind import BoundGraph, BoundTask, bind
from flowrun.runtime.graph.file import read_text
from flowrun.runtime.graph.parts import part_of
from flowrun.runtime.graph.ports import Port
from flowrun.runtime.graph.read import ReadGraph, read_graph
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.graph.stream_problems import stream_problems
from flowrun.runtime.wording import listed

__all__ = [
    "Argument",
    "Plan",
    "Slot",
    "Step",
    "load_plan",
    "load_plans",
    "plan_graph",
    "plan_read",
]


@dataclass(frozen=True, slots=True)
class Slot:
    """One output port: the place of its message in every cycle record.

    topic: its name in the log, "/<task id>/<port>".
    logged: whether its messages go into the log.
    payload: whether their contents do, too.
    codec: how the log stores them; anything but "raw" is for pictures only.
    """

    index: int
    task_id: str
    port: str
    topic: str
    message_type: type[Message]
    logged: bool
    payload: bool = True
    codec: str = "raw"

    @property
    def stores_pixels(self) -> bool:
        """Whether the log will hold the pixels of its pictures, and nothing that gives more."""
        return self.logged and self.payload and self.codec != "packets"


@dataclass(frozen=True, slots=True)
class Argument:
    """What one parameter of `process` gets; slot None: an optional input that is not connected."""

    port: Port
    slot: int | None


@dataclass(frozen=True, slots=True)
class Step:
    """One call of one task's `process`, its arguments in the order of the signature."""

    task: BoundTask
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cycle does. The first `source_count` steps are the sources."""

    graph: BoundGraph
    slots: tuple[Slot, ...]
    steps: tuple[Step, ...]
    source_count: int


def load_plan(
    path: Path,
    *,
    env: Mapping[str, str],
    ready: bool = True,
    mission: str | None = None,
    partition: str | None = None,
    settings: Sequence[str] = (),
) -> Plan:
    """The plan of the graph file at `path`, ready to run. `GraphError` lists all mistakes of the file,
    be they in its structure, in the names it uses or in its connections.

    ready: as in `bind`.
    mission, partition, settings: as in `read_graph`.
    """
    read = read_graph(
        read_text(path),
        path=path,
        env=env,
        mission=mission,
        partition=partition,
        settings=settings,
    )
    return plan_read(read, ready=ready)


def load_plans(
    path: Path, *, env: Mapping[str, str], ready: bool = True, settings: Sequence[str] = ()
) -> dict[str | None, Plan]:
    """The plan of each mission of the graph file at `path`; of a graph without missions, that of None.
    `GraphError` lists the mistakes of all missions, and names the mission of what is wrong in some;
    also those of the values that the instances of partitions have.
    """
    text = read_text(path)
    whole = read_graph(text, path=path, env=env, settings=settings).graph
    missions = whole.missions or (None,)
    plans: dict[str | None, Plan] = {}
    problems: dict[Problem, list[str]] = {}
    for mission in missions:
        try:
            read = read_graph(text, path=path, env=env, mission=mission, settings=settings)
            plans[mission] = plan_read(read, ready=ready)
        except GraphError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(str(mission))
    for part in _parts_with_values(whole):
        try:
            read = read_graph(text, path=path, env=env, partition=str(part), settings=settings)
            plan_read(read, ready=ready)
        except GraphError as error:
            for problem in error.problems:
                problems.setdefault(problem, list(map(str, missions)))
    if problems:
        raise GraphError(
            [
                problem
                if len(names) == len(missions) or repr(names[0]) in problem.message
                else Problem(problem.where, f"{problem.message} (in mission {listed(names)})")
                for problem, names in problems.items()
            ]
        )
    return plans


def _parts_with_values(graph: GraphSpec) -> Iterator[PartId]:
    for partition in graph.partitions:
        for instance in partition.instances:
            if instance.values:
                yield PartId(partition.id, instance.name)


def plan_read(read: ReadGraph, *, ready: bool = True) -> Plan:
    """The plan of what was read; see `load_plan`."""
    problems = dict.fromkeys(read.problems)
    bound = None
    try:
        bound = bind(read.graph, complete=read.complete, ready=ready)
    except GraphError as error:
        problems |= dict.fromkeys(error.problems)
    problems |= dict.fromkeys(_loops(read.graph))
    if bound is None or problems:
        raise GraphError(list(problems))
    return plan_graph(bound)


def plan_graph(bound: BoundGraph) -> Plan:
    """The plan of `bound`, or of the part of it that its process runs: sources first, then
    topological order, ties by declaration order.

    `GraphError` names each cycle of the graph, or says that no task is a source.
    """
    problems = _loops(bound.spec)
    if bound.spec.partitions and not problems:
        problems += stream_problems(bound)
        if bound.spec.part is not None and not problems:
            bound = part_of(bound, bound.spec.part)
    if not problems and not any(task.is_source for task in bound.tasks):
        problems.append(
            Problem(
                bound.spec.where, "no task is a source (a task without inputs): nothing would run"
            )
        )
    if problems:
        raise GraphError(problems)
    order = _choose_order(bound)
    _check_order(bound, order)
    return _build(bound, order)


def _loops(spec: GraphSpec) -> list[Problem]:
    """One problem for each set of tasks that feed each other: the shortest loop through the one that
    is declared first."""
    rank = {task.id: i for i, task in enumerate(spec.tasks)}
    edges = [
        (cnx.src.task, cnx.dst.task)
        for cnx in spec.connections
        if cnx.src.task in rank and cnx.dst.task in rank
    ]
    try:
        _sorter(rank, edges).prepare()
    except CycleError:
        return _shortest_loops(spec, rank, edges)
    return []


def _shortest_loops(
    spec: GraphSpec, rank: Mapping[str, int], edges: Iterable[tuple[str, str]]
) -> list[Problem]:
    import networkx as nx  # 11 MiB, which a graph without loops does not need

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(rank)
    graph.add_edges_from(edges)
    problems = []
    for group in nx.strongly_connected_components(graph):
        first = min(group, key=rank.__getitem__)
        loops = [
            [first, *nx.shortest_path(graph.subgraph(group), after, first)]
            for after in sorted(graph.successors(first), key=rank.__getitem__)
            if after in group
        ]
        if loops:
            loop = min(loops, key=len)
            where = next(
                cnx.where for cnx in spec.connections if [cnx.src.task, cnx.dst.task] == loop[:2]
            )
            problems.append(
                Problem(
                    where,
                    f"cycle: {' -> '.join(loop)}; a task cannot feed itself in a cycle: leave one of "
                    "these connections out (what a task needs of earlier cycles, it keeps itself)",
                )
            )
    return problems


def _choose_order(bound: BoundGraph) -> list[str]:
    """The sources in declaration order; then, again and again, the first declared task all of whose
    inputs are made."""
    rank = {task.id: (not task.is_source, i) for i, task in enumerate(bound.tasks)}
    sorter = _sorter(rank, ((cnx.src_task, cnx.dst_task) for cnx in bound.connections))
    sorter.prepare()
    order: list[str] = []
    ready: list[tuple[tuple[bool, int], str]] = []
    while sorter.is_active():
        for task_id in sorter.get_ready():
            heappush(ready, (rank[task_id], task_id))
        _, first = heappop(ready)
        order.append(first)
        sorter.done(first)
    return order


def _sorter(tasks: Iterable[str], edges: Iterable[tuple[str, str]]) -> TopologicalSorter[str]:
    """edges: from a task to one that it feeds."""
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(tasks, ()))
    for source, target in edges:
        sorter.add(target, source)
    return sorter


def _check_order(bound: BoundGraph, order: list[str]) -> None:
    """`InternalError` unless `order` holds every task once, after those that feed it."""
    place = {task_id: i for i, task_id in enumerate(order)}
    if len(order) != len(place) or place.keys() != {task.id for task in bound.tasks}:
        raise InternalError(f"plan of {bound.spec.path}: not every task once: {order}")
    for cnx in bound.connections:
        if place[cnx.src_task] >= place[cnx.dst_task]:
            raise InternalError(
                f"plan of {bound.spec.path}: {cnx.dst_task} before {cnx.src_task} in {order}"
            )


def _build(bound: BoundGraph, order: list[str]) -> Plan:
    tasks = {task.id: task for task in bound.tasks}
    logging = bound.spec.logging.enable_task_logging
    slots: list[Slot] = []
    made: dict[tuple[str, str], int] = {}
    for task_id in order:
        task = tasks[task_id]
        for port in task.ports:
            if port.is_output:
                made[task_id, port.name] = len(slots)
                slots.append(
                    Slot(
                        index=len(slots),
                        task_id=task_id,
                        port=port.name,
                        topic=f"/{task_id}/{port.name}",
                        message_type=port.message_type,
                        logged=logging and task.spec.logging.enabled,
                        payload=task.spec.logging.payload == "all",
                        codec=task.codec_of(port),
                    )
                )
    fed = {
        (cnx.dst_task, cnx.dst_port): made[cnx.src_task, cnx.src_port] for cnx in bound.connections
    }
    steps = tuple(
        Step(
            tasks[task_id],
            tuple(
                Argument(
                    port,
                    made[task_id, port.name] if port.is_output else fed.get((task_id, port.name)),
                )
                for port in tasks[task_id].ports
            ),
        )
        for task_id in order
    )
    source_count = sum(task.is_source for task in bound.tasks)
    return Plan(bound, tuple(slots), steps, source_count)
