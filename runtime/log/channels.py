"""The channels of a run's log: one for each logged output of the graph, and the runtime's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flowrun.msgs.message import Message
from flowrun.runtime.log.lines import LOG_SCHEMA, LOG_SCHEMA_NAME
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.format import Channel, Schema
from flowrun.runtime.pictures.stored import PICTURE_SCHEMA_NAME, picture_schema

__all__ = ["Loggable", "LoggedOutput", "channels_of"]

STEPS_SCHEMA = json.dumps(
    {
        "title": "flowrun.Steps",
        "type": "object",
        "properties": {
            "ticks_ns": {
                "type": "string",
                "contentEncoding": "base64",
                "description": "u64 little-endian, nanoseconds of a monotonic clock: when the "
                "cycle began, then when each step of the plan ended, in its order",
            }
        },
    }
).encode()
CONTROL_SCHEMA = json.dumps(
    {
        "title": "flowrun.Control",
        "type": "object",
        "description": "What came from outside in a cycle beside the sources' messages",
        "properties": {
            "kind": {"type": "string"},
            "task": {"type": "string"},
            "key": {"type": "string"},
            "value": {},
            "input_cycle": {"type": "integer"},
            "packets": {"type": "array"},
            "tov_ns": {"type": "integer"},
        },
    }
).encode()
KEYFRAME_SCHEMA = json.dumps(
    {
        "title": "flowrun.Keyframe",
        "type": "object",
        "description": "What the tasks remember in front of the cycle: a replay can begin here",
        "properties": {"tasks": {"type": "object", "additionalProperties": {"type": "object"}}},
    }
).encode()


class Loggable(Protocol):
    """An output port, as far as the log knows it. A plan's `Slot` is one."""

    @property
    def task_id(self) -> str: ...
    @property
    def port(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def message_type(self) -> type[Message]: ...
    @property
    def logged(self) -> bool:
        """False keeps the channel out of the log; its place in `LogWriter.bind` stays."""
        ...

    @property
    def payload(self) -> bool:
        """False logs each message without what is in it."""
        ...

    @property
    def codec(self) -> str:
        """How pictures are stored: "raw", or a codec of FORMAT.md."""
        ...


@dataclass(frozen=True, slots=True)
class LoggedOutput:
    """A `Loggable`, for a log that is written without a graph."""

    task_id: str
    port: str
    topic: str
    message_type: type[Message]
    logged: bool = True
    payload: bool = True
    codec: str = "raw"


def channels_of(
    outputs: Sequence[Loggable],
) -> tuple[list[Schema], list[Channel], list[tuple[Loggable, int]]]:
    """Schemas, channels, and the channel id of each output; ids count from 1."""
    schemas: list[Schema] = []
    channels: list[Channel] = []
    known: dict[tuple[str, str, bytes], int] = {}

    def add(
        topic: str, schema: tuple[str, str, bytes] | None, encoding: str, metadata: dict[str, str]
    ) -> int:
        number = 0
        if schema is not None:
            number = known.setdefault(schema, len(schemas) + 1)
            if number > len(schemas):
                schemas.append(Schema(number, *schema))
        channels.append(Channel(len(channels) + 1, number, topic, encoding, metadata))
        return len(channels)

    placed = []
    for output in outputs:
        kind = output.message_type
        channel = 0
        metadata = {"task": output.task_id, "port": output.port}
        if output.logged and output.payload and output.codec != "raw":
            metadata[fmt.CODEC] = output.codec
            schema = (PICTURE_SCHEMA_NAME, "protobuf", picture_schema())
            channel = add(output.topic, schema, "protobuf", metadata)
        elif output.logged and output.payload:
            schema = (kind.schema_name, kind.schema_encoding, kind.schema())
            channel = add(output.topic, schema, kind.message_encoding, metadata)
        elif output.logged:
            channel = add(output.topic, None, "", {**metadata, fmt.PAYLOAD: fmt.NO_PAYLOAD})
        placed.append((output, channel))
    add(fmt.STEPS_TOPIC, ("flowrun.Steps", "jsonschema", STEPS_SCHEMA), "msgpack", {})
    add(fmt.CONTROL_TOPIC, ("flowrun.Control", "jsonschema", CONTROL_SCHEMA), "msgpack", {})
    add(fmt.KEYFRAME_TOPIC, ("flowrun.Keyframe", "jsonschema", KEYFRAME_SCHEMA), "msgpack", {})
    add(fmt.LOG_TOPIC, (LOG_SCHEMA_NAME, "protobuf", LOG_SCHEMA), "protobuf", {})
    return schemas, channels, placed
