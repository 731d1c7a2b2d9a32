"""The bound graph of all partitions -> that of one process: its own tasks, and one source for each
process that sends to it.

Where a partition has several processes, messages of one are never mixed with those of another: the
tasks that follow it in other partitions are made once for each, with its name after their ids. So
`camera` in `dock`, which has the instances `a` and `b`, makes `from_dock_a`, `from_dock_b`, `infer_a`
and `infer_b` where `infer` runs. What `infer_a` sends back to `dock` goes to its instance `a`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from flowrun.runtime.errors import Problem
from flowrun.runtime.graph.bind import BoundConnection, BoundGraph, BoundTask
from flowrun.runtime.graph.boundary import Boundary, Stream
from flowrun.runtime.graph.config import check_config
from flowrun.runtime.graph.find import find_task_class
from flowrun.runtime.graph.ports import Port, ports_of
from flowrun.runtime.graph.spec import ConnectionSpec, Endpoint, PartId, TaskSpec
from flowrun.runtime.wording import listed

__all__ = ["ALL_LANES", "SOURCE_TYPE", "Parts", "boundaries_of", "copy_name", "part_of"]

SOURCE_TYPE = "flowrun.runtime.links.source.LinkSource"
"""The class of the tasks on which messages of other processes appear."""

Lane = tuple[tuple[str, str], ...]
"""The processes, of those partitions on the way that have several, from which something comes."""
ALL_LANES: tuple[Lane, ...] = ((),)


def part_of(bound: BoundGraph, part: PartId) -> BoundGraph:
    """The graph that process `part` runs: what it receives first, then its own tasks."""
    return Parts(bound).part(part)


def boundaries_of(bound: BoundGraph, sender: PartId, receiver: PartId) -> tuple[Stream, ...]:
    """What goes from one process to another, in the order that both have; empty if nothing."""
    return Parts(bound).streams(sender, receiver)


@dataclass(slots=True)
class Parts:
    """The streams of a whole graph."""

    bound: BoundGraph
    problems: list[Problem] = field(default_factory=list)
    tasks: dict[str, BoundTask] = field(init=False)
    processes: dict[str, tuple[str, ...]] = field(init=False)
    lanes: dict[str, tuple[Lane, ...]] = field(init=False)

    def __post_init__(self) -> None:
        spec = self.bound.spec
        self.tasks = {task.id: task for task in self.bound.tasks}
        self.processes = {it.id: it.processes for it in spec.partitions}
        self.lanes = {}
        for task in _in_order(self.bound):
            self.lanes[task] = self._lanes_of(task)

    def _lanes_of(self, task: str) -> tuple[Lane, ...]:
        found, first = ALL_LANES, None
        for cnx, said in self.connections():
            if cnx.dst_task != task:
                continue
            arriving = tuple(
                dict.fromkeys(
                    self.arrived(lane, cnx, process)
                    for process in self.processes_of(cnx.src_task)
                    for lane in self.lanes[cnx.src_task]
                )
            )
            if arriving in (ALL_LANES, found):
                continue
            if found != ALL_LANES and first is not None:
                self.problems.append(
                    Problem(
                        said.where,
                        f"task {task!r} is made once for each of {_in_words(found)}, since "
                        f"{first.src_task!r} is, and {cnx.src_task!r} for each of "
                        f"{_in_words(arriving)}; a task cannot follow both",
                    )
                )
                continue
            found, first = arriving, cnx
        return found

    def connections(self) -> Iterator[tuple[BoundConnection, ConnectionSpec]]:
        return zip(self.bound.connections, self.bound.spec.connections, strict=True)

    def partition(self, task: str) -> str:
        return self.tasks[task].spec.partition or ""

    def processes_of(self, task: str) -> tuple[str, ...]:
        return self.processes[self.partition(task)]

    def arrived(self, lane: Lane, cnx: BoundConnection, process: str) -> Lane:
        """The lane of what comes by `cnx` from `lane` of a process."""
        src, dst = self.partition(cnx.src_task), self.partition(cnx.dst_task)
        if src == dst or len(self.processes[src]) == 1 or any(name == src for name, _ in lane):
            return lane
        return (*lane, (src, process))

    def lanes_in(self, task: str, part: PartId) -> list[Lane]:
        """Those of the task that process `part` of its own, or another, partition has."""
        return [
            lane
            for lane in self.lanes[task]
            if all(name != part.partition or process == part.instance for name, process in lane)
        ]

    def streams(self, sender: PartId, receiver: PartId) -> tuple[Stream, ...]:
        found: dict[tuple[str, str], Stream] = {}
        for cnx, said in self.connections():
            task = self.tasks[cnx.src_task]
            if self.partition(cnx.src_task) != sender.partition:
                continue
            if self.partition(cnx.dst_task) != receiver.partition:
                continue
            for lane in self.lanes_in(cnx.src_task, sender):
                if any(name == receiver.partition and it != receiver.instance for name, it in lane):
                    continue
                made = copy_name(cnx.src_task, lane, sender.partition)
                named = _name(cnx, lane, sender.partition, receiver.partition)
                port = next(it for it in task.ports if it.is_output and it.name == cnx.src_port)
                link = replace(said.link, carry=said.link.carry or _carried(task, port))
                codec = task.codec_of(port)
                stream = Stream(
                    made, cnx.src_port, named, port.message_type, codec, link, said.where
                )
                found.setdefault((made, cnx.src_port), stream)
        return tuple(found.values())

    def part(self, part: PartId) -> BoundGraph:
        spec = self.bound.spec
        receives, sends = [], []
        for other in spec.partitions:
            for peer in other.parts:
                if other.id == part.partition:
                    continue
                if streams := self.streams(peer, part):
                    receives.append(Boundary(peer, self.source(peer), streams))
                if streams := self.streams(part, peer):
                    sends.append(Boundary(peer, self.source(part), streams))
        tasks = [self._source(boundary, part) for boundary in receives]
        for task in self.bound.tasks:
            if task.spec.partition == part.partition:
                tasks += [
                    _with_id(task, copy_name(task.id, lane, part.partition))
                    for lane in self.lanes_in(task.id, part)
                ]
        joined = [it for pair in self.connections() for it in self._joined(*pair, part)]
        return replace(
            self.bound,
            spec=replace(
                spec,
                tasks=tuple(task.spec for task in tasks),
                connections=tuple(said for _, said in joined),
            ),
            tasks=tuple(tasks),
            connections=tuple(cnx for cnx, _ in joined),
            receives=tuple(receives),
            sends=tuple(sends),
            ring=self._ring(part),
        )

    def _ring(self, part: PartId) -> tuple[PartId, ...]:
        after: dict[str, set[str]] = {}
        for cnx in self.bound.connections:
            src, dst = self.partition(cnx.src_task), self.partition(cnx.dst_task)
            after.setdefault(src, set()).update({dst} - {src})
        behind = _reached(after, part.partition)
        if part.partition not in behind:
            return ()
        on = {name for name in behind if part.partition in _reached(after, name)}
        return tuple(it for one in self.bound.spec.partitions if one.id in on for it in one.parts)

    def source(self, sender: PartId) -> str:
        several = len(self.processes[sender.partition]) > 1
        return f"from_{sender.partition}{_suffix(sender.instance) if several else ''}"

    def _joined(
        self, cnx: BoundConnection, said: ConnectionSpec, part: PartId
    ) -> Iterator[tuple[BoundConnection, ConnectionSpec]]:
        """The connections that `cnx` makes in process `part`."""
        if self.partition(cnx.dst_task) != part.partition:
            return
        src = self.partition(cnx.src_task)
        targets = self.lanes_in(cnx.dst_task, part)
        for process in self.processes[src] if src != part.partition else (part.instance,):
            sender = PartId(src, process)
            for lane in self.lanes_in(cnx.src_task, sender):
                if any(name == part.partition and it != part.instance for name, it in lane):
                    continue
                if src == part.partition:
                    task, port = copy_name(cnx.src_task, lane, src), cnx.src_port
                else:
                    task = self.source(sender)
                    port = _name(cnx, lane, src, part.partition)
                to = self.arrived(lane, cnx, process)
                for target in targets:
                    if to not in (target, ()):
                        continue
                    made = copy_name(cnx.dst_task, target, part.partition)
                    yield (
                        replace(cnx, src_task=task, src_port=port, dst_task=made),
                        replace(said, src=Endpoint(task, port), dst=Endpoint(made, cnx.dst_port)),
                    )

    def _source(self, boundary: Boundary, part: PartId) -> BoundTask:
        task_class = find_task_class(SOURCE_TYPE, folder=Path(), types={})
        config = {"partition": boundary.peer.partition, "instance": boundary.peer.instance}
        where = boundary.streams[0].where
        spec = TaskSpec(
            id=boundary.source,
            type=task_class.__name__,
            given=task_class,
            config=config,
            where=where,
            config_where={},
            secrets=frozenset(),
            masked_config=config,
            partition=part.partition,
        )
        found = check_config(spec, task_class)
        assert not isinstance(found, list), found
        origin = ports_of(task_class)[0]  # type: ignore[arg-type]  # a class is hashable
        streams = [
            Port(it.name, "output", it.message_type, required=True) for it in boundary.streams
        ]
        return BoundTask(spec, task_class, found, (origin, *streams))


def _in_order(bound: BoundGraph) -> list[str]:
    """The tasks, those that feed others before them; none where there is a loop, which is reported."""
    sorter: TopologicalSorter[str] = TopologicalSorter({task.id: () for task in bound.tasks})
    for cnx in bound.connections:
        sorter.add(cnx.dst_task, cnx.src_task)
    try:
        return list(sorter.static_order())
    except CycleError:
        return []


def _reached(after: Mapping[str, Collection[str]], start: str) -> set[str]:
    """What can be reached from `start`; itself only by a way back."""
    found: set[str] = set()
    ways = [start]
    while ways:
        new = set(after.get(ways.pop(), ())) - found
        found |= new
        ways += new
    return found


def _suffix(process: str) -> str:
    return "_" + process.replace("-", "_")


def copy_name(task: str, lane: Lane, partition: str) -> str:
    """The id of what `task` is made as for `lane`, in a process of `partition`."""
    return task + "".join(_suffix(process) for name, process in lane if name != partition)


def _name(cnx: BoundConnection, lane: Lane, sender: str, receiver: str) -> str:
    """The port on which a stream appears."""
    own = tuple(it for it in lane if it[0] != sender)
    return f"{copy_name(cnx.src_task, own, receiver)}_{cnx.src_port}"


def _with_id(task: BoundTask, made: str) -> BoundTask:
    return task if made == task.id else replace(task, spec=replace(task.spec, id=made))


def _carried(task: BoundTask, port: Port) -> str:
    return "packets" if task.codec_of(port) == "packets" else "log"


def _in_words(lanes: Sequence[Lane]) -> str:
    return listed("/".join(process for _, process in lane) for lane in lanes)
