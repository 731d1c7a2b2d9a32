"""`partitions` and `network` of a graph file: what they say, and whether it can be.

What can be known of the file alone is checked here. Streams between partitions are in `parts`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import yaml

from flowrun.runtime.errors import Location, Problem, UsageError
from flowrun.runtime.graph import keys
from flowrun.runtime.graph.keys import Key
from flowrun.runtime.graph.sections import items_of, names_of, places_of, section_items, values_of
from flowrun.runtime.graph.spec import (
    IDENTIFIER,
    ConnectionSpec,
    GraphSpec,
    InstanceSpec,
    NetworkSpec,
    PartId,
    PartitionSpec,
)
from flowrun.runtime.graph.values import UnknownHere, ValueReader, is_null
from flowrun.runtime.wording import listed, nearest

__all__ = [
    "chosen_part",
    "part_id",
    "partition_problems",
    "read_network",
    "read_partitions",
    "without_partition",
]

_ID = re.compile(IDENTIFIER)
_INSTANCE = re.compile(r"[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*")
_SETTING = re.compile(rf"({IDENTIFIER})((?:\.[\w-]+|\[\d+\])+)")
_ADDRESS = re.compile(
    r"(?P<protocol>[a-z-]+)/(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s/:\[\]]*)(?P<port>:[^\s:]*)?"
)
_PROTOCOLS = ("tcp", "tls", "quic")
_MOST_PORT = 65535


# -- reading -----------------------------------------------------------------------------------


def part_id(text: str) -> PartId:
    """What `--partition` says: `gpu/0`, or `gpu` for the first process of a partition."""
    partition, _, instance = text.partition("/")
    return PartId(partition, instance)


def read_partitions(
    reader: ValueReader, node: yaml.Node | None, part: PartId | None
) -> tuple[PartitionSpec, ...]:
    """What `partitions` says. Of the values of instances, those of `part` alone are resolved, or of
    all: the variables of one are not set on the machines of others."""
    if node is None or is_null(node):
        return ()
    items = reader.items(node, "'partitions'")
    if not items and not reader.problems:
        reader.problem(node, "'partitions' is empty; leave it out, or name at least one")
    found: list[PartitionSpec] = []
    for name, (key, value) in items.items():
        if not _ID.fullmatch(name):
            reader.problem(
                key,
                f"partition {name!r} is not an identifier; use letters, digits and '_', "
                "not beginning with a digit",
            )
            continue
        found.append(_partition(reader, name, len(found), key, value, part))
    return tuple(found)


def _partition(
    reader: ValueReader,
    name: str,
    number: int,
    key: yaml.Node,
    node: yaml.Node,
    part: PartId | None,
) -> PartitionSpec:
    items: Mapping[str, yaml.Node] = {}
    if not is_null(node):
        items = items_of(reader, keys.PARTITION, node, f"partition {name!r}")
    replicas = {name: items[name] for name in ("replicas",) if name in items}
    values = values_of(reader, keys.PARTITION, replicas)
    # The rest is for the machines of that partition; how many processes it has, all must know.
    reader.is_elsewhere = part is not None and part.partition != name
    others = {it: items[it] for it in items if it not in replicas}
    values = {**values_of(reader, keys.PARTITION, others), "replicas": values["replicas"]}
    places: dict[tuple[str, int], Location] = {}
    addresses: dict[str, Any] = {
        side: _addresses(reader, side, items[side], places)
        for side in ("listen", "connect")
        if side in items
    }
    reader.is_elsewhere = False
    instances: tuple[InstanceSpec, ...] = ()
    if "instances" in items and not is_null(items["instances"]):
        instances = _instances(reader, name, items["instances"], part)
        if "replicas" in items:
            reader.problem(
                items["replicas"],
                f"partition {name!r} has both 'instances' and 'replicas'; leave one out",
            )
    return PartitionSpec(
        id=name,
        number=number,
        where=reader.at(key),
        instances=instances,
        **values,
        **addresses,
        key_where=places_of(reader, items),
        address_where=places,
    )


def _addresses(
    reader: ValueReader, side: str, node: yaml.Node, places: dict[tuple[str, int], Location]
) -> tuple[str, ...]:
    found: list[str] = []
    for item in reader.sequence(node, repr(side)):
        text = reader.checked(
            item,
            f"an item of {side!r}",
            expected="an address, such as tls/edge-1:7447",
            fits=lambda value: isinstance(value, str) and bool(value),
        )
        if text is None:
            continue
        wrong = _wrong_address(text)
        if wrong and isinstance(text, UnknownHere):
            continue
        if wrong:
            reader.problem(item, f"{text!r} in {side!r}: {wrong}")
            continue
        places[side, len(found)] = reader.at(item)
        found.append(text)
    return tuple(found)


def _wrong_address(text: str) -> str | None:
    """What is wrong with an address; None if nothing is."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not match["host"]:
        return "expected PROTOCOL/HOST:PORT, such as tls/edge-1:7447"
    if match["protocol"] not in _PROTOCOLS:
        return f"unknown protocol {match['protocol']!r}; protocols: {listed(_PROTOCOLS)}" + nearest(
            match["protocol"], _PROTOCOLS
        )
    port = (match["port"] or "")[1:]
    if not port:
        return f"it lacks a port; write {text.rstrip(':')}:7447"
    if not port.isdecimal() or not 0 < int(port) <= _MOST_PORT:
        return f"port {port!r}: expected a number from 1 to {_MOST_PORT}"
    return None


def _instances(
    reader: ValueReader, partition: str, node: yaml.Node, part: PartId | None
) -> tuple[InstanceSpec, ...]:
    what = f"'instances' of partition {partition!r}"
    items = reader.items(node, what)
    if isinstance(node, yaml.MappingNode) and not node.value:
        reader.problem(node, f"{what} is empty; leave it out, or name at least one")
    found = []
    for name, (key, value) in items.items():
        where = reader.at(key)
        if not _INSTANCE.fullmatch(name):
            reader.problem(key, f"instance {name!r}: use letters, digits, '_' and '-'")
        is_meant = part is None or (part.partition, part.instance or name) == (partition, name)
        scalars = {
            (*_steps(str(path[0])), *path[1:]): place for path, place in _scalars(reader, value, ())
        }
        if is_null(value) or not is_meant:
            found.append(InstanceSpec(name, where, scalars=scalars))
            continue
        given = reader.items(value, f"instance {name!r} of partition {partition!r}")
        for text, (at, _) in given.items():
            if not _SETTING.fullmatch(text):
                reader.problem(at, f"{text!r}: expected TASK.KEY, such as cam.source_uri")
        read = reader.config(value)
        places = {text: reader.at(at) for text, (at, _) in given.items()}
        found.append(InstanceSpec(name, where, read.value, places, scalars))
    return tuple(found)


def _scalars(
    reader: ValueReader, node: yaml.Node, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], tuple[int, int]]]:
    """Where each scalar below `node` starts and ends in the graph's text; nothing is resolved."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(reader, value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _scalars(reader, item, (*path, i))
    elif path:
        in_file = node.start_mark.index, node.end_mark.index
        yield path, reader.spans.get(id(node), in_file)


def _steps(name: str) -> list[str]:
    return re.findall(r"[\w-]+", name)[1:]


def read_network(reader: ValueReader, node: yaml.Node | None) -> NetworkSpec:
    items = section_items(reader, keys.NETWORK, node)
    places: dict[tuple[str, ...], Location] = {
        (name,): place for name, place in places_of(reader, items).items()
    }
    allow: dict[str, tuple[str, ...]] = {}
    if "allow" in items and not is_null(items["allow"]):
        for name, (key, value) in reader.items(items["allow"], "'allow'").items():
            places["allow", name] = reader.at(key)
            allow[name] = names_of(reader, Key(name, "names", ""), value)
    for name, place in places_of(reader, section_items(reader, keys.TLS, items.get("tls"))).items():
        places["tls", name] = place
    values = values_of(reader, keys.NETWORK, items)
    network = NetworkSpec(**values, allow=allow, key_where=places)
    if (network.tls.cert is None) != (network.tls.key is None):
        lacks, has = ("cert", "key") if network.tls.cert is None else ("key", "cert")
        reader.problem(
            items["tls"], f"'tls' has {has!r} and lacks {lacks!r}; it needs both, or neither"
        )
    return network


def chosen_part(graph: GraphSpec, part: PartId | None) -> PartId | None:
    """`part` with the name of its process; `UsageError` if the graph has no such one."""
    if part is None:
        return None
    names = {it.id: it for it in graph.partitions}
    if not names:
        raise UsageError(f"unknown partition {part.partition!r}: {graph.path} has no partitions")
    found = names.get(part.partition)
    if found is None:
        raise UsageError(
            f"unknown partition {part.partition!r}; partitions of {graph.path}: {listed(names)}"
            + nearest(part.partition, names)
        )
    valid = [f"{found.id}/{name}" for name in found.processes]
    if not part.instance and len(valid) > 1:
        raise UsageError(
            f"partition {found.id!r} has {len(valid)} processes; say which: {listed(valid)}"
        )
    instance = part.instance or found.processes[0]
    if instance not in found.processes:
        raise UsageError(
            f"partition {found.id!r} has no instance {instance!r}; it has {listed(valid)}"
            + nearest(instance, found.processes)
        )
    return replace(part, instance=instance)


def without_partition(graph: GraphSpec) -> UsageError:
    """What is wrong with running a graph of several partitions as one."""
    first = graph.partitions[0].parts[0]
    return UsageError(
        f"{graph.path} has the partitions {listed(it.id for it in graph.partitions)}: flowrun up "
        f"{graph.path} runs all of them on this machine, --partition {first} one of them"
    )


# -- checking ----------------------------------------------------------------------------------


def partition_problems(graph: GraphSpec) -> list[Problem]:
    """What is wrong with the partitions of a graph, its connections and addresses."""
    problems = [*_of_tasks(graph), *_of_connections(graph)]
    if graph.partitions:
        checks: tuple[Callable[[GraphSpec], Iterator[Problem]], ...] = (
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
            if side == "listen" and not _is_anywhere(text):  # each machine has all of its own
                other, place = taken.setdefault(text, (partition.id, where))
                if place is not where:
                    yield Problem(
                        where,
                        f"{text!r} is where partition {other!r} listens, {place.seen_from(where)}; "
                        "give each its own",
                    )
            match = _ADDRESS.fullmatch(text)
            assert match is not None
            is_plain = match["protocol"] == "tcp" and not graph.network.insecure
            if is_plain and not _is_loopback(match["host"]):
                yield Problem(
                    where,
                    f"{text!r} is plain TCP beyond this machine: anybody there can read and write; "
                    "use tls/, or say network: {insecure: true}",
                )
            if match["protocol"] != "tcp" and graph.network.tls.ca is None:
                yield Problem(
                    where, f"{text!r} needs network: {{tls: {{ca: ..., cert: ..., key: ...}}}}"
                )
            elif match["protocol"] != "tcp" and side == "listen" and graph.network.tls.cert is None:
                yield Problem(
                    where, f"{text!r} needs 'cert' and 'key' of network: {{tls: ...}} to listen"
                )


def _is_anywhere(address: str) -> bool:
    """Whether an address stands for all addresses of a machine, as tls/0.0.0.0:7447 does."""
    match = _ADDRESS.fullmatch(address)
    return match is not None and match["host"] in ("0.0.0.0", "[::]")  # noqa: S104


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


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
