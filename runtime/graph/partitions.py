"""`partitions` and `network` of a graph file: what they say.

Whether their values fit each other is in `partition_problems`, streams between partitions in `parts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import yaml

from flowrun.runtime.errors import Location, UsageError
from flowrun.runtime.graph import keys
from flowrun.runtime.graph.addresses import wrong_address
from flowrun.runtime.graph.keys import Key
from flowrun.runtime.graph.sections import items_of, names_of, places_of, section_items, values_of
from flowrun.runtime.graph.spec import (
    IDENTIFIER,
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
    "read_network",
    "read_partitions",
    "without_partition",
]

_ID = re.compile(IDENTIFIER)
_INSTANCE = re.compile(r"[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*")
_SETTING = re.compile(rf"({IDENTIFIER})((?:\.[\w-]+|\[\d+\])+)")


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
        wrong = wrong_address(text)
        if wrong and isinstance(text, UnknownHere):
            continue
        if wrong:
            reader.problem(item, f"{text!r} in {side!r}: {wrong}")
            continue
        places[side, len(found)] = reader.at(item)
        found.append(text)
    return tuple(found)


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
