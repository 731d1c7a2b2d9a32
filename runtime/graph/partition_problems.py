"""What is wrong with the partitions of a graph, as far as the file alone says it.

Streams between partitions, which depend on the classes of tasks, are in `stream_problems`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowrun.runtime.errors import Location, Problem
from flowrun.runtime.graph.addresses import is_anywhere, is_loopback, protocol_of
from flowrun.runtime.graph.spec import ConnectionSpec, GraphSpec
from flowrun.runtime.wording import listed, nearest

__all__ = ["partition_problems"]

_LONGEST_NAME = 255
"""Bytes in a name: of ext4, XFS, Btrfs and most others."""
_STAMP = "-20260101T000000Z-9999"
"""How the name of a run's folder ends, at its longest."""


def partition_problems(graph: GraphSpec) -> list[Problem]:
    """What is wrong with the partitions of a graph, its connections and addresses."""
    problems = [*_of_tasks(graph), *_of_connections(graph)]
    if graph.partitions:
        checks: tuple[Callable[[GraphSpec], Iterator[Problem]], ...] = (
            _of_names,
            _of_case,
            _of_instances,
            _of_addresses,
            _of_network,
            _of_lockstep,
        )
        for check in checks:
            problems += check(graph)
    elif graph.network.key_where:
        where = min(graph.network.key_where.values())
        problems.append(Problem(where, "'network' is for graphs with 'partitions'; leave it out"))
    return list(dict.fromkeys(problems))


def _of_tasks(graph: GraphSpec) -> Iterator[Problem]:
    names = [it.id for it in graph.partitions]
    for task in graph.tasks:
        where = task.key_where.get("partition", task.where)
        if task.partition is None and names:
            text = f"task {task.id!r} has no 'partition'; partitions: {listed(names)}"
            yield Problem(where, text)
        elif task.partition is not None and not names:
            text = (
                f"partition {task.partition!r} is not declared; write partitions: "
                f"{{{task.partition}: {{}}}} in the graph"
            )
            yield Problem(where, text)
        elif task.partition is not None and task.partition not in names:
            text = f"unknown partition {task.partition!r}; partitions: {listed(names)}"
            yield Problem(where, text + nearest(task.partition, names))
    used = {task.partition for task in graph.tasks}
    for partition in graph.partitions:
        if partition.id not in used and graph.tasks:
            yield Problem(partition.where, f"partition {partition.id!r} has no task; leave it out")


def _of_connections(graph: GraphSpec) -> Iterator[Problem]:
    of_task = {task.id: task.partition for task in graph.tasks}
    agreed: dict[tuple[str, str, str | None], ConnectionSpec] = {}
    for cnx in graph.connections:
        src, dst = of_task.get(cnx.src.task), of_task.get(cnx.dst.task)
        if src is None or dst is None or src == dst:
            if "link" in cnx.key_where and {cnx.src.task, cnx.dst.task} <= of_task.keys():
                same = "" if src is None else f": both are in partition {src!r}"
                yield Problem(
                    cnx.key_where["link"],
                    f"'link' is for connections between partitions; {cnx.src.task!r} and "
                    f"{cnx.dst.task!r} are not{same or ' in any'}; leave it out",
                )
            continue
        first = agreed.setdefault((str(cnx.src), src, dst), cnx)
        if first.link != cnx.link:
            yield Problem(
                cnx.key_where.get("link", cnx.where),
                f"{str(cnx.src)!r} goes to partition {dst!r} once, and its 'link' is another "
                f"{first.where.seen_from(cnx.where)}; say the same",
            )


def _of_names(graph: GraphSpec) -> Iterator[Problem]:
    """Names that a file system does not take: the folder of a run has those of graph, partition and
    instance."""
    for partition in graph.partitions:
        places = {it.name: it.where for it in partition.instances}
        for name in partition.processes if places else partition.processes[-1:]:
            folder = f"{graph.name}-{partition.id}-{name}{_STAMP}"
            size = len(folder.encode())
            if size > _LONGEST_NAME:
                yield Problem(
                    places.get(name, partition.where),
                    f"the folder of a run of {partition.id}/{name} would have a name of {size} bytes, "
                    f"with that of the graph, {graph.name!r}, in it; a file system takes at most "
                    f"{_LONGEST_NAME}: shorten the names",
                )


def _of_case(graph: GraphSpec) -> Iterator[Problem]:
    """Names that are one on a disk that ignores case, to which a fleet may be copied."""
    named = [("partition", [(it.id, it.where) for it in graph.partitions])]
    for partition in graph.partitions:
        instances = [(it.name, it.where) for it in partition.instances]
        named.append((f"instance of partition {partition.id!r}:", instances))
    for what, names in named:
        first: dict[str, tuple[str, Location]] = {}
        for name, where in names:
            other, place = first.setdefault(name.casefold(), (name, where))
            if other != name:
                yield Problem(
                    where,
                    f"{what} {name!r} differs only in case from {other!r} "
                    f"{place.seen_from(where)}; on a disk that ignores case their runs would be in "
                    "one folder: rename one of the two",
                )


def _of_instances(graph: GraphSpec) -> Iterator[Problem]:
    of_task = {task.id: task.partition for task in graph.tasks}
    for partition in graph.partitions:
        own = [task for task, it in of_task.items() if it == partition.id]
        for instance in partition.instances:
            for name, where in instance.key_where.items():
                task = name.partition(".")[0]
                if task not in own and not any(it.startswith(f"{task}_") for it in own):
                    text = f"{name!r}: partition {partition.id!r} has no task {task!r}"
                    if of_task.get(task):
                        text += f", which is in {of_task[task]!r}"
                    yield Problem(where, f"{text}; its tasks: {listed(own)}" + nearest(task, own))


def _of_addresses(graph: GraphSpec) -> Iterator[Problem]:
    taken: dict[str, tuple[str, Location]] = {}
    for partition in graph.partitions:
        for (side, i), where in partition.address_where.items():
            text: str = getattr(partition, side)[i]
            if side == "listen" and not is_anywhere(text):  # each machine has all of its own
                other, place = taken.setdefault(text, (partition.id, where))
                if place is not where:
                    yield Problem(
                        where,
                        f"{text!r} is where partition {other!r} listens, {place.seen_from(where)}; "
                        "give each its own",
                    )
            protocol = protocol_of(text)
            is_plain = protocol == "tcp" and not graph.network.insecure
            if is_plain and not is_loopback(text):
                yield Problem(
                    where,
                    f"{text!r} is plain TCP beyond this machine: anybody there can read and write; "
                    "use tls/, or say network: {insecure: true}",
                )
            if protocol != "tcp" and graph.network.tls.ca is None:
                yield Problem(
                    where, f"{text!r} needs network: {{tls: {{ca: ..., cert: ..., key: ...}}}}"
                )
            elif protocol != "tcp" and side == "listen" and graph.network.tls.cert is None:
                yield Problem(
                    where, f"{text!r} needs 'cert' and 'key' of network: {{tls: ...}} to listen"
                )


def _of_network(graph: GraphSpec) -> Iterator[Problem]:
    names = [it.id for it in graph.partitions]
    for name in graph.network.allow:
        if name not in names:
            where = graph.network.key_where["allow", name]
            text = f"unknown partition {name!r} in 'allow'; partitions: {listed(names)}"
            yield Problem(where, text + nearest(name, names))
    if graph.network.tls.ca is not None and not graph.network.allow.keys() - set(names):
        lacks = [name for name in names if not graph.network.allow.get(name)]
        if graph.network.allow and lacks:
            yield Problem(
                graph.network.key_where["allow",],
                f"'allow' names no certificate for {listed(lacks)}: nobody could come as such; add "
                f"{lacks[0]}: [NAME], the common name of its certificate",
            )
    if graph.network.allow and graph.network.tls.ca is None:
        yield Problem(
            graph.network.key_where["allow",],
            "'allow' names certificates, which nobody shows without 'tls'; say tls: {ca: ..., ...}",
        )


def _of_lockstep(graph: GraphSpec) -> Iterator[Problem]:
    """Links in lockstep on a cycle over partitions: each side would wait for the other."""
    of_task: dict[str, Any] = {task.id: task.partition for task in graph.tasks}
    edges: dict[str, dict[str, None]] = {}
    links = []
    for cnx in graph.connections:
        src, dst = of_task.get(cnx.src.task), of_task.get(cnx.dst.task)
        if src is not None and dst is not None and src != dst:
            edges.setdefault(src, {})[dst] = None
            links.append((src, dst, cnx))
    for src, dst, cnx in links:
        if cnx.link.deliver != "lockstep":
            continue
        way = _way(edges, dst, src)
        if way:
            yield Problem(
                cnx.link_where.get("deliver", cnx.where),
                f"cycle over partitions: {' -> '.join([src, *way])}; with 'deliver: lockstep' each "
                "would wait for the other: use 'every' or 'latest'",
            )


def _way(edges: Mapping[str, Mapping[str, None]], start: str, end: str) -> list[str]:
    """A shortest way from `start` to `end`, both included; empty if there is none."""
    ways, seen = [[start]], {start}
    while ways:
        way = ways.pop(0)
        if way[-1] == end:
            return way
        for after in edges.get(way[-1], {}):
            if after not in seen:
                seen.add(after)
                ways.append([*way, after])
    return []
