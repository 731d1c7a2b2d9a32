"""What a graph is: plain, frozen data, as a graph file says it, each part with its place there."""

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
    "KeepSpec",
    "LoggingSpec",
    "RuntimeSpec",
    "TaskLogging",
    "TaskSpec",
]

CODECS = ("raw", "packets", "zstd", "ffv1")
TASK_POLICIES = ("stop", "skip", "skip_cycle", "restart")
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a connection; `port` is None where the file names only the task."""

    task: str
    port: str | None

    def __str__(self) -> str:
        return self.task if self.port is None else f"{self.task}.{self.port}"


@dataclass(frozen=True, slots=True)
class TaskLogging:
    """What is kept of one task.

    enabled: whether its messages go into the log. payload: "all", or "none": the log then says that
    and when there was a message, not what was in it. codec: how pictures are stored, one of
    `CODECS`; None: as the task's class says.
    """

    enabled: bool = True
    payload: str = "all"
    codec: str | None = None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One entry of `tasks`.

    config: as in the file, with `${ENV}` resolved; not yet validated.
    where: the entry's own place; key_where: the places of the values of its keys.
    config_where: the place of each key and list item within `config`, by its path.
    secrets: texts that came from the environment, and, once bound, what the config declares as
    secret. They never reach a log, a reply or an error text.
    scalars: from where to where in the file's text each value of `config` stands, by its path.
    masked_config: `config` as it may be shown.
    on_error: what happens when it raises, one of `TASK_POLICIES`.
    every: it runs only in cycles whose number is a multiple. rate_hz: and at most so often.
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


@dataclass(frozen=True, slots=True)
class ConnectionSpec:
    """One entry of `cnx`. key_where: the places of `src`, `dst` and `msg`."""

    src: Endpoint
    dst: Endpoint
    msg: str
    where: Location
    key_where: Mapping[str, Location] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeepSpec:
    """What may stay of the graph's earlier runs in the same log directory, seen to when a run starts
    and whenever it begins a slab; None sets no limit.

    gib: the disk space that they take, the present run and its next slab included; of the present
    run nothing is removed (`mode: ring` does that). runs: how many, the present one included.
    """

    gib: float | None = None
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class LoggingSpec:
    """`logging`: the size of the log's files, of the pieces they grow by; whether to log at all.

    on_error: whether a log that cannot be written any more lets the run "stop" or "continue".
    keep: which earlier runs stay. mode: "all" of the run is kept, or, as a flight recorder does
    ("ring"), its last `keep_slabs` slabs, the one being written included. keyframe_interval: cycles
    from one keyframe, where a replay can begin, to the next; 0 makes none.
    """

    slab_size_mib: int = 1024
    section_size_mib: int = 100
    enable_task_logging: bool = True
    on_error: str = "stop"
    keep: KeepSpec = KeepSpec()
    mode: str = "all"
    keep_slabs: int = 4
    keyframe_interval: int = 100


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """`runtime`. ring_size: preallocated cycle records, at least 1. seed: that of `ctx.rng`.

    rate_hz: at most so many cycles a second; None runs one whenever something comes.
    """

    ring_size: int = 4
    seed: int = 0
    rate_hz: float | None = None


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """What a graph file says.

    name: the file's name without its suffix.
    path: as the user gave it. text: the file as it is, `${ENV}` unresolved. stored_text: the same
    without the secrets that are written in it; None until the graph is bound, which tells them.
    """

    name: str
    path: Path
    text: str
    tasks: tuple[TaskSpec, ...]
    connections: tuple[ConnectionSpec, ...]
    logging: LoggingSpec
    runtime: RuntimeSpec
    stored_text: str | None = None

    @property
    def secrets(self) -> frozenset[str]:
        """Those of all tasks; see `TaskSpec.secrets`."""
        return frozenset().union(*(task.secrets for task in self.tasks))
