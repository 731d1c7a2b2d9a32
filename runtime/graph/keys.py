"""The keys of a graph file: the type, limits, choices and meaning of each, in one place.

The reader checks files by these tables; the JSON Schema, the reference page and the resolved graph
are made from them. Defaults are those of the classes in `spec`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from flowrun.runtime.graph.spec import (
    CODECS,
    TASK_POLICIES,
    ConnectionSpec,
    GraphSpec,
    KeepSpec,
    LinkSpec,
    LoggingSpec,
    NetworkSpec,
    PartitionSpec,
    RuntimeSpec,
    TaskLogging,
    TaskSpec,
    ThreadSpec,
    TlsSpec,
)

__all__ = [
    "BACKGROUND",
    "CONNECTION",
    "GRAPH",
    "INCLUDE",
    "LINK",
    "LOGGING",
    "NETWORK",
    "PARTITION",
    "RUNTIME",
    "TASK",
    "TASK_LOGGING",
    "TLS",
    "Key",
    "expected",
    "fits",
    "key_names",
    "plain_section",
    "required_names",
]

# fmt: off
Kind = Literal[
    "id", "type", "config", "endpoint", "message",  # texts and mappings with rules of their own
    "path", "names", "values", "cores", "text", "addresses", "instances", "name lists",
    "flag", "whole", "number", "choice", "section", "list", "named sections",
]
# fmt: on


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a graph file, or a section of keys.

    name: as it is written.
    kind: what its value is.
    sentence: what it is for, as editors and the reference page show it.
    default: what holds where the key is left out; where that is None, the file may say null too.
    required: whether the key must be there.
    minimum: the least that a "whole" number may be.
    maximum: the most; None sets no limit.
    choices: the texts that a "choice" may be.
    keys: those of a "section", or of each item of a "list" or of "named sections".
    spec: the class that a section's values make.
    """

    name: str
    kind: Kind
    sentence: str
    default: Any = None
    required: bool = False
    minimum: int = 0
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    spec: type[Any] = object


def _section(name: str, sentence: str, spec: type[Any], *keys: Key, kind: Kind = "section") -> Key:
    """The section of `keys`, with the defaults that `spec` gives its fields."""
    defaults = {field.name: field.default for field in dataclasses.fields(spec)}
    defaults |= {key.name: key.default for key in keys if key.default is not None}
    filled = tuple(
        key
        if defaults[key.name] is dataclasses.MISSING
        else replace(key, default=defaults[key.name])
        for key in keys
    )
    return Key(name, kind, sentence, keys=filled, spec=spec)


TASK_LOGGING = _section(
    "logging",
    "What the log keeps of the task's messages.",
    TaskLogging,
    Key("enabled", "flag", "Whether the task's messages go into the log."),
    Key(
        "payload",
        "choice",
        "none: log that and when there were messages, not what was in them.",
        choices=("all", "none"),
    ),
    Key(
        "codec",
        "choice",
        "How pictures are stored, each bit for bit: raw pixels, the source's own compressed packets, "
        "or compressed by zstd or ffv1; null: as the task's class prefers.",
        choices=CODECS,
    ),
)

TASK = _section(
    "tasks",
    "The tasks, in the order that decides ties between them.",
    TaskSpec,
    Key("id", "id", "The task's name: letters, digits and '_'.", required=True),
    Key(
        "type",
        "type",
        "The task's class or function: a short name, or a dotted path such as my_module.MyTask.",
        required=True,
    ),
    Key("config", "config", "The task's own configuration; its keys depend on the type."),
    Key("background", "flag", "Run on a worker; the cycle does not wait for it."),
    Key(
        "on_error",
        "choice",
        "What happens when the task raises. stop: the run ends. skip: the cycle goes on without the "
        "task's outputs. skip_cycle: the cycle ends there. restart: as skip, and the task is made "
        "again after a pause of 1 s, doubled with each failure up to 30 s.",
        choices=TASK_POLICIES,
    ),
    Key("every", "whole", "Run only in cycles whose number is a multiple of this.", minimum=1),
    Key(
        "rate_hz",
        "number",
        "Run at most this many times a second; a source is asked at most this often. null: no limit.",
    ),
    Key(
        "deadline_ms",
        "whole",
        "How long one call of the task may take. One that takes longer is named in the log, on the "
        "terminal and on the page while it lasts; nothing ends it. 0: as long as it likes.",
    ),
    TASK_LOGGING,
    Key("missions", "names", "The missions that the task is part of; if not given, all."),
    Key(
        "partition",
        "text",
        "The partition whose process runs the task; each task has one where the graph has partitions.",
    ),
    kind="list",
)

LINK = _section(
    "link",
    "How messages go from one partition to another, where the connection joins two.",
    LinkSpec,
    Key(
        "deliver",
        "choice",
        "every: each cycle of the sender, in order, exactly once. latest: the newest one; those that "
        "are passed over are in the log as such. lockstep: the sender's cycle waits for the receiver's.",
        choices=("every", "latest", "lockstep"),
    ),
    Key(
        "carry",
        "choice",
        "What goes of pictures. packets: the camera's own. keyframes: its key frames only. log: what "
        "the log has, pixels too. null: packets where the log has them.",
        choices=("packets", "keyframes", "log"),
    ),
    Key(
        "spread",
        "choice",
        "Which replica of the receiver gets messages. one: one gets all. instance: each of the sender's "
        "instances has one of those that live.",
        choices=("one", "instance"),
    ),
    Key(
        "max_age_ms",
        "whole",
        "Messages that are older than this when they come are passed over, and logged as such; null: "
        "none is too old.",
        minimum=1,
    ),
    Key(
        "on_gap",
        "choice",
        "What the receiver does about cycles that the sender's log no longer has. record: logs from "
        "where to where they lack, and why. stop: ends.",
        choices=("record", "stop"),
    ),
)

_ENDPOINT = "a task's id, or task.port where several of its ports fit."

CONNECTION = _section(
    "cnx",
    "Connections, each from one task's output to another's input.",
    ConnectionSpec,
    Key("src", "endpoint", f"Where messages come from: {_ENDPOINT}", required=True),
    Key("dst", "endpoint", f"Where messages go: {_ENDPOINT}", required=True),
    Key(
        "msg",
        "message",
        "The type of the messages: a short name, or a dotted path such as my_module.MyMsg.",
        required=True,
    ),
    Key(
        "missions",
        "names",
        "The missions that the connection is part of; if not given, all that have both of its tasks.",
    ),
    LINK,
    kind="list",
)

INCLUDE = Key(
    "includes",
    "list",
    "Other graph files, whose tasks and connections come before those of this one.",
    keys=(
        Key(
            "path", "path", "The file, from the folder of the file that includes it.", required=True
        ),
        Key(
            "params",
            "values",
            "By name, what `{{NAME}}` stands for in the file; each must be used there. They go before "
            "the file's own constants.",
            default={},
        ),
        Key(
            "missions",
            "names",
            "The missions that have what the file includes; if not given, all.",
            default=(),
        ),
    ),
)

MISSIONS = Key(
    "missions",
    "names",
    "Names of subsets of the graph, of which one is chosen when it starts; the first, if none is.",
    default=(),
)

CONSTANTS = Key(
    "constants",
    "values",
    "By name, what `{{NAME}}` stands for in this file's values.",
    default={},
)

_KEEP = _section(
    "keep",
    "Which of the graph's earlier runs in the same log directory stay when a run starts; those "
    "without a cycle go first, then the oldest.",
    KeepSpec,
    Key("gib", "number", "The disk space that they may take, in GiB; null: no limit."),
    Key(
        "runs",
        "whole",
        "How many may stay, including the one that starts; null: no limit.",
        minimum=1,
    ),
)

LOGGING = _section(
    "logging",
    "How the run is logged.",
    LoggingSpec,
    Key("slab_size_mib", "whole", "The size of one file of the log, in MiB.", minimum=1),
    Key(
        "section_size_mib",
        "whole",
        "The piece by which a file of the log grows, in MiB; at most slab_size_mib.",
        minimum=1,
    ),
    Key("enable_task_logging", "flag", "Whether messages are logged at all."),
    Key(
        "on_error",
        "choice",
        "Whether the run stops when its log can no longer be written.",
        choices=("stop", "continue"),
    ),
    _KEEP,
    Key(
        "mode",
        "choice",
        "ring: a flight recorder, which keeps the run's last keep_slabs files.",
        choices=("all", "ring"),
    ),
    Key(
        "keyframe_interval",
        "whole",
        "Cycles from one keyframe, where a replay can begin, to the next; 0 makes none.",
    ),
    Key(
        "sync_s",
        "number",
        "Seconds of the run that a power cut may take; what is older is on the disk.",
    ),
    Key(
        "keep_slabs",
        "whole",
        "In mode ring: how many files stay, including the one being written.",
        minimum=2,
    ),
)

_NICE = Key(
    "nice",
    "whole",
    "",
    minimum=-20,
    maximum=19,
)

BACKGROUND = _section(
    "background",
    "How the workers of background tasks run.",
    ThreadSpec,
    Key("affinity", "cores", "The cores on which they run; null: those of the cycles."),
    replace(_NICE, sentence="As `nice` of `runtime`; null: that of the cycles."),
)

RUNTIME = _section(
    "runtime",
    "How the graph runs.",
    RuntimeSpec,
    Key("ring_size", "whole", "The number of preallocated cycle records.", minimum=1),
    Key("seed", "whole", "The seed of every task's random numbers."),
    Key(
        "rate_hz",
        "number",
        "Run at most this many cycles a second; null: whenever something comes.",
    ),
    Key(
        "collect_timeout_ms",
        "whole",
        "How long a cycle waits, once a live source has something, for the other live sources, so that "
        "cameras that are not in step share cycles; who has nothing by then is absent. A source that "
        "gives something less often, or nothing, is not waited for. 0: each has cycles of its own.",
    ),
    Key(
        "affinity",
        "cores",
        "The cores on which the cycles run, such as [2, 3], and the threads that tasks start; those of "
        "the log and the page stay free. null: all that the process may use. Linux only.",
    ),
    replace(
        _NICE,
        sentence="How much the same threads let others run: from -20, which needs a privilege, to 19. "
        "null: as the process. Linux only.",
    ),
    BACKGROUND,
    Key(
        "executor",
        "choice",
        "parallel: tasks of a cycle that do not feed each other run at once, on several threads, and "
        "the log has the same bytes. It pays where they work outside of Python, as models and NumPy do.",
        choices=("serial", "parallel"),
    ),
    Key(
        "workers",
        "whole",
        "How many threads do so; null: one for each core that they may use.",
        minimum=1,
    ),
)

_ADDRESS = "Addresses are such as tls/edge-1:7447, tcp/127.0.0.1:7447 or quic/edge-1:7447."

PARTITION = _section(
    "partitions",
    "By name, the parts of the graph that run as processes of their own, on one machine or on several.",
    PartitionSpec,
    Key("listen", "addresses", f"Where its processes wait for others. {_ADDRESS}", default=()),
    Key("connect", "addresses", f"Which others they look for. {_ADDRESS}", default=()),
    Key(
        "instances",
        "instances",
        "By name, processes that each run the partition, with other values of its tasks: "
        "{dock1: {cam.source_uri: '${CAM1}'}, dock2: {cam.source_uri: '${CAM2}'}}.",
        default=(),
    ),
    Key(
        "replicas",
        "whole",
        "How many processes run the partition, all the same: 0, 1, 2 and so on are their names.",
        minimum=1,
    ),
    Key(
        "on_error",
        "choice",
        "What `flowrun up` does when a process of it dies or ends with an error. restart: starts it "
        "again after a pause of 1 s, doubled with each failure up to 30 s. stop: ends the others, too.",
        choices=("restart", "stop"),
    ),
    Key(
        "recover",
        "choice",
        "What its tasks remember when it is started again. none: nothing, as at the start of a run. "
        "replay: what they did, by a replay of its log from the last keyframe to the end.",
        choices=("none", "replay"),
    ),
    Key(
        "num_gpus",
        "number",
        "How many GPUs each process of it gets of a Ray cluster, with `flowrun up --ray`; null: none.",
    ),
    kind="named sections",
)

TLS = _section(
    "tls",
    "The files of TLS, in PEM; `${NODE}` stands for the name of the instance, or of the partition.",
    TlsSpec,
    Key("ca", "text", "The certificate of who has signed those of the others."),
    Key("cert", "text", "The partition's own certificate."),
    Key("key", "text", "Its private key."),
)

NETWORK = _section(
    "network",
    "How partitions reach each other.",
    NetworkSpec,
    Key(
        "engine",
        "choice",
        "What carries messages: `pip install 'flowrun-runtime[links]'`.",
        choices=("zenoh",),
    ),
    TLS,
    Key(
        "insecure",
        "flag",
        "Whether plain TCP may leave this machine, where anybody may read and write.",
    ),
    Key(
        "allow",
        "name lists",
        "By partition, the common names of the certificates with which its processes may come; without "
        "it, any that `ca` has signed.",
        default={},
    ),
    Key(
        "on_peer_lost",
        "choice",
        "What a partition does while one that sends to it is gone. continue: its cycles go on. hold: "
        "they wait. stop: it ends.",
        choices=("continue", "hold", "stop"),
    ),
)

GRAPH = Key(
    "graph",
    "section",
    "A graph: tasks, and how messages flow between them.",
    keys=(
        replace(TASK, required=True),
        CONNECTION,
        MISSIONS,
        INCLUDE,
        CONSTANTS,
        LOGGING,
        RUNTIME,
        PARTITION,
        NETWORK,
    ),
    spec=GraphSpec,
)


def key_names(section: Key) -> tuple[str, ...]:
    return tuple(key.name for key in section.keys)


def required_names(section: Key) -> tuple[str, ...]:
    return tuple(key.name for key in section.keys if key.required)


def expected(key: Key) -> str:
    """What the value of `key` must be, for an error text."""
    if key.kind == "flag":
        return "true or false"
    if key.kind == "whole":
        if key.maximum is not None:
            return f"a whole number from {key.minimum} to {key.maximum}"
        return f"a whole number of at least {key.minimum}"
    if key.kind == "number":
        return "a number above 0"
    return " or ".join(key.choices) or "a text"


def fits(key: Key, value: Any) -> bool:
    """Whether `value`, a scalar of the file, is what `key` takes."""
    if value is None:
        return key.default is None and not key.required
    if key.kind == "flag":
        return isinstance(value, bool)
    if key.kind == "whole":
        is_most = key.maximum is None or (type(value) is int and value <= key.maximum)
        return type(value) is int and value >= key.minimum and is_most
    if key.kind == "number":
        return type(value) in (int, float) and 0 < value < math.inf
    if key.kind == "text":
        return isinstance(value, str) and value != ""
    return isinstance(value, str) and (not key.choices or value in key.choices)


def plain_section(section: Key, spec: Any) -> dict[str, Any]:
    """The values that `spec` has for the keys of `section`, as a file would say them."""
    return {
        key.name: plain_section(key, getattr(spec, key.name))
        if key.kind == "section"
        else getattr(spec, key.name)
        for key in section.keys
    }
