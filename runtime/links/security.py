"""`network: tls` and `allow` -> what Zenoh is told: whose certificates, and who may say what.

Who has a certificate of the CA gets a connection. With `allow`, each partition is known by the common
names of its certificates, and nobody gets more than the keys between its partition and this process:
what comes from others is dropped, and nothing is sent to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.spec import GraphSpec, PartId, PartitionSpec
from flowrun.runtime.links.certificates import Certificates, troubles
from flowrun.runtime.links.wire import Keys, Peer, graph_key

__all__ = ["certificates_of", "hosts_of", "is_encrypted", "security_of"]

_ANY = "*"


def certificates_of(spec: GraphSpec) -> Certificates | None:
    """The files that `network: tls` names; None if it names none."""
    tls = spec.network.tls
    if tls.ca is None:
        return None
    folder = spec.path.parent
    cert, key = (
        None if it is None else folder / Path(it).expanduser() for it in (tls.cert, tls.key)
    )
    return Certificates(folder / Path(tls.ca).expanduser(), cert, key)


def is_encrypted(address: str) -> bool:
    """Whether TLS protects what goes to and from an address such as "tls/edge-1:7447"."""
    return address.partition("/")[0] != "tcp"


def hosts_of(spec: GraphSpec, partition: PartitionSpec) -> list[str]:
    """The hosts by which other partitions reach what `partition` listens at: those of the same port."""
    ports = {_port(it) for it in partition.listen if is_encrypted(it)}
    found = [
        _host(it)
        for other in spec.partitions
        if other.id != partition.id
        for it in other.connect
        if is_encrypted(it) and _port(it) in ports
    ]
    return list(dict.fromkeys(found))


def security_of(spec: GraphSpec) -> dict[str, Any]:
    """What of the network's security Zenoh is told, by its keys, for the process `spec.part`; nothing
    where it has plain TCP alone. `UsageError` for files with which nobody can be reached."""
    assert spec.part is not None
    partition = next(it for it in spec.partitions if it.id == spec.part.partition)
    files = certificates_of(spec)
    if files is None or not any(map(is_encrypted, (*partition.listen, *partition.connect))):
        return {}
    for it in troubles(files):
        if it.is_final:
            where = spec.network.key_where.get(("tls", it.key), spec.where)
            raise UsageError(f"{where}: {it.key!r} of tls: {it.text}")
    said: dict[str, Any] = {"transport/link/tls": _tls(files)}
    if spec.network.allow:
        said["access_control"] = _access(spec, spec.part)
    return said


def _tls(files: Certificates) -> dict[str, Any]:
    said: dict[str, Any] = {
        "root_ca_certificate": str(files.ca.absolute()),
        "enable_mtls": files.cert is not None,
        "verify_name_on_connect": True,
        "close_link_on_expiration": True,
    }
    if files.cert is not None and files.key is not None:
        for side in ("listen", "connect"):
            said[f"{side}_certificate"] = str(files.cert.absolute())
            said[f"{side}_private_key"] = str(files.key.absolute())
    return said


def _access(spec: GraphSpec, own: PartId) -> dict[str, Any]:
    """Rules of what each other partition and this process may say to each other."""
    rules: list[dict[str, Any]] = []
    subjects: list[dict[str, Any]] = []
    policies: list[dict[str, Any]] = []
    for partition in spec.partitions:
        for instance, names in _names(partition, spec.network.allow.get(partition.id, ())):
            id_ = f"{partition.id}/{instance}"
            made = list(_rules(spec, own, Peer(partition.id, instance, 0, 0), id_))
            rules += made
            subjects.append({"id": id_, "cert_common_names": names})
            policies.append({"rules": [it["id"] for it in made], "subjects": [id_]})
    # Plain TCP does not leave this machine, or the graph says `insecure`.
    plain = [
        {"id": f"plain {flow}", "flows": [flow], "permission": "allow", "messages": _MESSAGES,
         "key_exprs": ["**"]}
        for flow in ("ingress", "egress")
    ]  # fmt: skip
    rules += plain
    subjects.append({"id": "plain", "link_protocols": ["tcp"]})
    policies.append({"rules": [it["id"] for it in plain], "subjects": ["plain"]})
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": subjects,
        "policies": policies,
    }


def _names(partition: PartitionSpec, allowed: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The processes of a partition, and the common names with which each comes. A name that is that of
    an instance stands for this one alone."""
    instances = [it.name for it in partition.instances]
    for name in allowed:
        if name in instances:
            yield name, [name]
    if others := [name for name in allowed if name not in instances]:
        yield _ANY, others


_MESSAGES = [
    "put", "delete", "query", "reply", "declare_subscriber", "declare_queryable",
    "liveliness_token", "liveliness_query", "declare_liveliness_subscriber",
]  # fmt: skip


def _rules(spec: GraphSpec, own: PartId, other: Peer, id_: str) -> Iterator[dict[str, Any]]:
    graph = graph_key(spec.name)
    me = Peer(own.partition, own.instance, 0, 0)
    sides = {"ingress": (other, me), "egress": (me, other)}
    for flow, (speaker, listener) in sides.items():
        its, theirs = Keys.of(graph, speaker), Keys.of(graph, listener)
        said = {
            "put": [its.cycles(listener), its.ack(listener), its.news],
            "query": [theirs.log(speaker), theirs.hello(speaker)],
            "reply": [its.log(listener), its.hello(listener)],
            "declare_queryable": [its.log(listener), its.hello(listener)],
            "declare_subscriber": [theirs.cycles(speaker), theirs.ack(speaker), theirs.news],
            "liveliness_token": [its.alive],
            "liveliness_query": [theirs.alive],
            "declare_liveliness_subscriber": [theirs.alive],
        }
        for message, keys in said.items():
            yield {
                "id": f"{id_} {flow} {message}",
                "flows": [flow],
                "permission": "allow",
                "messages": [message],
                "key_exprs": keys,
            }


def _host(address: str) -> str:
    return address.partition("/")[2].rpartition(":")[0].strip("[]")


def _port(address: str) -> str:
    return address.rpartition(":")[2]
