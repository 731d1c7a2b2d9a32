"""What happens to a run in a cycle besides its messages: the records of `/flowrun/control`.

Each kind is a class. `pack` gives the record as the log holds it, a map of kind, task, key, value and
input_cycle; `unpack` makes the event from such a map. Fields that a kind does not use are empty in the
map: "", None and -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from flowrun.msgs.image import UnseenPacket

__all__ = [
    "OUTSIDE",
    "RESTATED",
    "Assigned",
    "Completion",
    "Dropped",
    "EndOfSource",
    "Event",
    "Failed",
    "Injected",
    "Met",
    "Packets",
    "Reached",
    "Replaced",
    "Restarted",
    "Set",
    "SourceState",
    "Stays",
    "Switched",
    "unpack",
]

_PROCESS = "process"
OUTSIDE = "use of messages"
"""The phase of an error that has no place in a step: a task published after its call of `process`, or
kept or changed a message."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to `task` in a cycle. Only its subclasses are events."""

    kind: ClassVar[str]

    task: str

    def pack(self) -> dict[str, Any]:
        """The record as the log holds it."""
        return _record(self.kind, self.task)


@dataclass(frozen=True, slots=True)
class Set(Event):
    """Live values of the task's config were changed.

    values: the new value of each key that was set.
    """

    kind: ClassVar[str] = "set"

    values: dict[str, Any]

    def pack(self) -> dict[str, Any]:
        return _record(self.kind, self.task, value=self.values)


@dataclass(frozen=True, slots=True)
class Injected(Event):
    """Somebody published a message on one of the task's ports: it is that port's of the cycle.

    port: the name of the port.
    data: the message's fields, as its class encodes them.
    tov_ns: the message's time of validity; None: the cycle's time.
    """

    kind: ClassVar[str] = "injected"

    port: str
    data: bytes
    tov_ns: int | None = None

    def pack(self) -> dict[str, Any]:
        record = _record(self.kind, self.task, key=self.port, value=self.data)
        if self.tov_ns is not None:
            record["tov_ns"] = self.tov_ns
        return record


@dataclass(frozen=True, slots=True)
class Completion(Event):
    """The result of a background task, made from the inputs of an earlier cycle, appears in this one.

    input_cycle: the cycle of its inputs.
    restarted: whether the task was restarted before it made the result.
    """

    kind: ClassVar[str] = "completion"

    input_cycle: int
    restarted: bool

    def pack(self) -> dict[str, Any]:
        return _record(self.kind, self.task, value=self.restarted, input_cycle=self.input_cycle)


@dataclass(frozen=True, slots=True)
class EndOfSource(Event):
    """The source said that nothing more will come."""

    kind: ClassVar[str] = "end_of_source"


@dataclass(frozen=True, slots=True)
class Packets(Event):
    """The source has stopped, and gave the packets that no picture brought into the log. A replay does
    not need this.

    packets: those that came after the last one in the log, in decoding order.
    """

    kind: ClassVar[str] = "packets"

    packets: tuple[UnseenPacket, ...]

    def pack(self) -> dict[str, Any]:
        return {**_record(self.kind, self.task), "packets": [list(it) for it in self.packets]}


@dataclass(frozen=True, slots=True)
class SourceState(Event):
    """The source said how it is doing. A replay does not need this.

    state: see `task.State`.
    code: what keeps it from running, "" if nothing does; a word that programs can go by.
    """

    kind: ClassVar[str] = "source_state"

    state: str
    code: str = ""

    def pack(self) -> dict[str, Any]:
        return _record(self.kind, self.task, key=self.state, value=self.code)


@dataclass(frozen=True, slots=True)
class Switched(Event):
    """Somebody paused, muted or resumed the source. A replay does not need this: the messages of sources
    come from the log.

    playback: see `task.Playback`.
    """

    kind: ClassVar[str] = "switched"

    playback: str

    def pack(self) -> dict[str, Any]:
        return _record(self.kind, self.task, key=self.playback)


@dataclass(frozen=True, slots=True)
class Assigned(Event):
    """What the task sends to another partition goes to another replica of it. A replay does not need
    this.

    partition: the one that receives.
    replica: the name of the replica.
    """

    kind: ClassVar[str] = "assigned"

    partition: str
    replica: str

    def pack(self) -> dict[str, Any]:
        return _record(self.kind, self.task, key=self.partition, value=self.replica)


@dataclass(frozen=True, slots=True)
class Stays(Event):
    """Nothing happened: what the task sends to another partition has gone to this replica of it, up to
    the cycle, and still does. Repeated for readers of a log whose beginning is gone; a replay does not
    need this.

    partition: the one that receives.
    replica: the name of the replica.
    """

    kind: ClassVar[str] = "stays"

    partition: str
    replica: str

    def pack(self) -> dict[str, Any]:
        return _record(self.kind, self.task, key=self.partition, value=self.replica)


@dataclass(frozen=True, slots=True)
class Reached(Event):
    """Nothing happened: this process's logs have all that the source takes of its sender up to a cycle.
    Repeated for readers of a log whose beginning is gone; a replay does not need this.

    run, cycle: the next cycle that is wanted: the sender's run, when it began, and the number there.
    """

    kind: ClassVar[str] = "reached"

    run: int
    cycle: int

    def pack(self) -> dict[str, Any]:
        return _record(self.kind, self.task, value=[self.run, self.cycle])


@dataclass(frozen=True, slots=True)
class Met(Event):
    """The source has reached its sender, at first or again. A replay does not need this.

    offset_ns: by how much the sender's clock was ahead.
    """

    kind: ClassVar[str] = "met"

    offset_ns: int

    def pack(self) -> dict[str, Any]:
        return _record(self.kind, self.task, value=self.offset_ns)


RESTATED = (Stays.kind, Reached.kind)
"""Kinds that repeat what earlier records said."""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The task raised an error.

    policy: how it was handled: a value of `on_error`.
    text: the error, with secrets masked.
    phase: what the task was doing: "process", `OUTSIDE` (it misused messages outside of its step) or
        "configure" (it refused a live value). Only an error in "process" ends a cycle by `skip_cycle`.
    place: the function of the task that raised it, and the line of source in it; "" if not known.
    """

    kind: ClassVar[str] = "error"

    policy: str
    text: str
    phase: str = _PROCESS
    place: str = ""

    def pack(self) -> dict[str, Any]:
        record = _record(self.kind, self.task, key=self.policy, value=self.text)
        if self.phase != _PROCESS:
            record["phase"] = self.phase
        if self.place:
            record["place"] = self.place
        return record


@dataclass(frozen=True, slots=True)
class Restarted(Event):
    """The task was made and started again, after an error and a pause."""

    kind: ClassVar[str] = "restart"


@dataclass(frozen=True, slots=True)
class Dropped(Event):
    """The task left out `count` pictures, or whatever it makes, reads or sends. A replay does not need
    this.

    cause: why, in a few words, such as "too old"; "" if the task does not say.
    """

    kind: ClassVar[str] = "dropped"

    count: int
    cause: str = ""

    def pack(self) -> dict[str, Any]:
        return _record(self.kind, self.task, key=self.cause, value=self.count)


@dataclass(frozen=True, slots=True)
class Replaced(Event):
    """Newer inputs of a background task replaced those of `input_cycle`, which it will not see. A replay
    does not need this."""

    kind: ClassVar[str] = "replaced"

    input_cycle: int

    def pack(self) -> dict[str, Any]:
        return _record(self.kind, self.task, input_cycle=self.input_cycle)


def unpack(record: Mapping[str, Any]) -> Event:
    """The event of a record that `Event.pack` made. Raises `ValueError` for other records."""
    try:
        task, key, value = record["task"], record["key"], record["value"]
        match record["kind"]:
            case Set.kind:
                return Set(task, dict(value))
            case Injected.kind:
                return Injected(task, key, bytes(value), record.get("tov_ns"))
            case Completion.kind:
                return Completion(task, record["input_cycle"], bool(value))
            case EndOfSource.kind:
                return EndOfSource(task)
            case Packets.kind:
                return Packets(task, tuple(UnseenPacket(*it) for it in record["packets"]))
            case SourceState.kind:
                return SourceState(task, key, value)
            case Switched.kind:
                return Switched(task, key)
            case Assigned.kind:
                return Assigned(task, key, value)
            case Stays.kind:
                return Stays(task, key, value)
            case Reached.kind:
                run, cycle = value
                return Reached(task, run, cycle)
            case Met.kind:
                return Met(task, int(value))
            case Failed.kind:
                return Failed(
                    task, key, value, record.get("phase", _PROCESS), record.get("place", "")
                )
            case Restarted.kind:
                return Restarted(task)
            case Dropped.kind:
                return Dropped(task, value, key)
            case Replaced.kind:
                return Replaced(task, record["input_cycle"])
            case kind:
                raise ValueError(f"a control record of unknown kind {kind!r}")
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a control record: {error!r}") from None


def _record(
    kind: str, task: str, *, key: str = "", value: Any = None, input_cycle: int = -1
) -> dict[str, Any]:
    return {"kind": kind, "task": task, "key": key, "value": value, "input_cycle": input_cycle}
