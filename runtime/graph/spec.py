"""What a graph file says, as frozen data; tasks and connections with their places in the file.

The values of a file's keys are fields of the same name; `keys` says what each means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import Location

__all__ = [
    "ConnectionSpec",
    "Endpoint",
    "GraphSpec",
    "InstanceSpec",
    "KeepSpec",
    "LinkSpec",
    "LoggingSpec",
    "NetworkSpec",
    "PartId",
    "PartitionSpec",
    "RuntimeSpec",
    "TaskLogging",
    "TaskSpec",
    "ThreadSpec",
    "TlsSpec",
]

CODECS = ("raw", "packets", "zstd", "ffv1")
TASK_POLICIES = ("stop", "skip", "skip_cycle", "restart")
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
UNKNOWN = "?"
"""`msg` of a connection in Python whose type nobody knows, since its ends are wrong."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a connection; `port` is None where the file names only the task."""

    task: str
    port: str | None

    def __str__(self) -> str:
        return self.task if self.port is None else f"{self.task}.{self.port}"


@dataclass(frozen=True, slots=True)
class TaskLogging:
    """`logging` of a task. codec: None means the first of the task's `picture_codecs`."""

    enabled: bool = True
    payload: str = "all"
    codec: str | None = None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One entry of `tasks`.

    config: as in the file, with `${ENV}` resolved; not validated.
    where: the entry's own place.
    config_where: the place of each key and list item within `config`, by its path.
    secrets: texts that are secret by their names, marks and places, and, once bound, what the config
        declares as secret. They never reach a log, a reply or an error text.
    scalars: the start and end of each value of `config` in the file's text, by its path.
    key_where: the places of the values of the entry's keys.
    masked_config: `config` as it may be shown.
    given: the task's class or function, where Python gave it: `type` then only names it.
    partition: the part of the graph that it runs in; None where the graph has no partitions.
    shadow_of: the task whose shadow it is; "" of others.
    follows: the keys of a shadow that have the values of its task, also while the graph runs.
    """

    id: str
    type: str
    config: dict[str, Any]
    where: Location
    config_where: Mapping[tuple[str | int, ...], Location]
    secrets: frozenset[str]
    scalars: Mapping[tuple[str | int, ...], tuple[int, int]] = field(default_factory=dict)
    key_where: Mapping[str, Location] = field(default_factory=dict)
    masked_config: dict[str, Any] = field(default_factory=dict)
    background: bool = False
    logging: TaskLogging = TaskLogging()
    on_error: str = "stop"
    every: int = 1
    rate_hz: float | None = None
    deadline_ms: int = 10_000
    missions: tuple[str, ...] = ()
    given: Any = None
    partition: str | None = None
    shadow_of: str = ""
    follows: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """`link` of a connection between partitions."""

    deliver: str = "every"
    carry: str | None = None
    spread: str = "one"
    max_age_ms: int | None = None
    on_gap: str = "record"


@dataclass(frozen=True, slots=True)
class ConnectionSpec:
    """One entry of `cnx`.

    key_where: the places of `src`, `dst`, `msg` and `link`.
    link_where: the places of the values of `link`.
    given: the class of the messages, where Python gave it: `msg` then only names it.
    """

    src: Endpoint
    dst: Endpoint
    msg: str
    where: Location
    key_where: Mapping[str, Location] = field(default_factory=dict)
    missions: tuple[str, ...] = ()
    given: Any = None
    link: LinkSpec = LinkSpec()
    link_where: Mapping[str, Location] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """One of the `instances` of a partition.

    values: other values of its tasks, by `task.key`, `${ENV}` resolved.
    key_where: the places of their names.
    scalars: the start and end of each in the graph's text, by the parts of its name.
    """

    name: str
    where: Location
    values: Mapping[str, Any] = field(default_factory=dict)
    key_where: Mapping[str, Location] = field(default_factory=dict)
    scalars: Mapping[tuple[str | int, ...], tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartitionSpec:
    """One entry of `partitions`.

    number: its place among them, from 0.
    instances: those that the file names; none where `replicas` says how many there are.
    key_where: the places of the values of the entry's keys.
    address_where: the places of the addresses, by the key and their number in it.
    """

    id: str
    number: int
    where: Location
    instances: tuple[InstanceSpec, ...] = ()
    replicas: int = 1
    listen: tuple[str, ...] = ()
    connect: tuple[str, ...] = ()
    on_error: str = "restart"
    recover: str = "none"
    num_gpus: float | None = None
    key_where: Mapping[str, Location] = field(default_factory=dict)
    address_where: Mapping[tuple[str, int], Location] = field(default_factory=dict)

    @property
    def processes(self) -> tuple[str, ...]:
        """The names of the processes that run it: of its instances, or the numbers of its replicas."""
        if self.instances:
            return tuple(it.name for it in self.instances)
        return tuple(map(str, range(self.replicas)))

    @property
    def parts(self) -> tuple[PartId, ...]:
        return tuple(PartId(self.id, name) for name in self.processes)


@dataclass(frozen=True, slots=True, order=True)
class PartId:
    """One process of a partition.

    instance: an instance's name, or a replica's number.
    """

    partition: str
    instance: str = "0"

    def __str__(self) -> str:
        return f"{self.partition}/{self.instance}"

    @property
    def node(self) -> str:
        """What `${NODE}` stands for where no environment variable of that name is set."""
        return self.partition if self.instance.isdecimal() else self.instance


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """`tls` of `network`: files, from the folder of the graph."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """`network`: how partitions reach each other.

    allow: for each partition, the common names of the certificates with which it may come.
    key_where: the places of the values of its keys; those of `tls` and `allow` by their paths.
    """

    engine: str = "zenoh"
    tls: TlsSpec = TlsSpec()
    insecure: bool = False
    allow: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    on_peer_lost: str = "continue"
    key_where: Mapping[tuple[str, ...], Location] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class KeepSpec:
    """`keep` of `logging`: how much of the graph's earlier runs stays; None sets no limit.

    Applied when a run starts and whenever it begins a slab. Nothing of the run itself is removed;
    `mode: ring` does that.

    gib: disk space, including that of the run itself and its next slab.
    runs: number of runs, including the run itself.
    """

    gib: float | None = None
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class LoggingSpec:
    """`logging`."""

    slab_size_mib: int = 1024
    section_size_mib: int = 100
    enable_task_logging: bool = True
    on_error: str = "stop"
    keep: KeepSpec = KeepSpec()
    mode: str = "all"
    keep_slabs: int = 4
    keyframe_interval: int = 100
    sync_s: float = 1


@dataclass(frozen=True, slots=True)
class ThreadSpec:
    """`background` of `runtime`; None: as the thread of the cycles."""

    affinity: tuple[int, ...] | None = None
    nice: int | None = None


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """`runtime`. affinity, nice: of the thread of the cycles; see `threads.settle`."""

    ring_size: int = 4
    seed: int = 0
    rate_hz: float | None = None
    collect_timeout_ms: int = 100
    affinity: tuple[int, ...] | None = None
    nice: int | None = None
    background: ThreadSpec = ThreadSpec()
    executor: str = "serial"
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """What a graph file says.

    name: the file's name without its suffix.
    path: as the user gave it.
    tasks, connections: those of the mission.
    text: the file as it is, `${ENV}` unresolved; or, if it includes files, has constants or is given
        settings, one file that says the same without them.
    stored_text: `text` without the secrets that are written in it; None until the graph is bound,
        since the classes of its tasks say what else is secret.
    environment: the environment variables that the file names, with their values, "" for one that is
        not set; without those that give secrets.
    runtime_where: the places of what `runtime` holds, and its `background`, by their paths.
    missions: all that the file declares.
    mission: the one that was chosen; None if the file declares none.
    cut: connections that are left out because the mission lacks a task at one of their ends.
    settings: the values that were given elsewhere, `task.key=value`.
    includes: the included files, with the SHA-256 of each.
    made_at: the place in the program that makes the graph; None for a file.
    partitions: those that the file declares; none of a graph that runs as one.
    network: how they reach each other.
    part: the process that is meant; None: the whole graph.
    """

    name: str
    path: Path
    text: str
    tasks: tuple[TaskSpec, ...]
    connections: tuple[ConnectionSpec, ...]
    logging: LoggingSpec
    runtime: RuntimeSpec
    stored_text: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    runtime_where: Mapping[tuple[str, ...], Location] = field(default_factory=dict, compare=False)
    missions: tuple[str, ...] = ()
    mission: str | None = None
    cut: tuple[ConnectionSpec, ...] = ()
    settings: tuple[str, ...] = ()
    includes: Mapping[str, str] = field(default_factory=dict)
    made_at: Location | None = None
    partitions: tuple[PartitionSpec, ...] = ()
    network: NetworkSpec = NetworkSpec()
    part: PartId | None = None

    @property
    def where(self) -> Location:
        """Where the graph begins."""
        return self.made_at or Location(str(self.path), 1, 1)

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets of all tasks."""
        return frozenset().union(*(task.secrets for task in self.tasks))
