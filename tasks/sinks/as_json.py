"""A message as a JSON object, as all sinks send it.

    {"task": "detect", "port": "detections", "type": "DetectionsMsg",
     "cycle": 12, "time_ns": 1767225600000000000, "tov_ns": 1767225599960000000,
     "fields": {...}}

| key       | what it is                                                                         |
|-----------|------------------------------------------------------------------------------------|
| task, port| which output of the graph has published the message                                |
| type      | the message's class                                                                |
| cycle     | the number of the cycle in which it was published                                  |
| time_ns   | the cycle's time, in nanoseconds since 1970 UTC                                    |
| tov_ns    | the message's time of validity: of a picture, when it was taken                    |
| fields    | its fields by name                                                                 |

Of the fields, an array is a list of lists if it has at most `max_array` values, and
`{"dtype": "|u1", "shape": [480, 640, 3]}` if it has more; a picture's pixels are always that. Bytes are
base64. Numbers that JSON lacks are "NaN", "Infinity" and "-Infinity". Keys that are no texts become
texts. Control characters are escaped, also those that JSON would let pass.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from pydantic import NonNegativeInt

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.msgs.values import thawed
from flowrun.runtime.log.values import plain_value
from flowrun.runtime.task import Context, TaskConfig
from flowrun.runtime.wording import escaped, listed, nearest

__all__ = ["JsonSettings", "Kept", "kept_fields", "plain", "to_json", "unknown_fields"]


class JsonSettings(TaskConfig):
    """How messages become JSON."""

    max_array: NonNegativeInt = 1000
    """The most values of an array that are written out; of a larger one only its type and shape are."""


class Kept(NamedTuple):
    """What is sent of a message, for later, with what is known of it in its cycle. For any thread.

    fields: by name; of large arrays only their type and shape, so that many messages may wait.
    type: the message's class.
    task, port: which output has published it.
    cycle, time_ns: the cycle's number, and its time in nanoseconds since 1970 UTC.
    """

    fields: dict[str, Any]
    tov_ns: int
    type: str
    task: str
    port: str
    cycle: int
    time_ns: int

    @classmethod
    def of(cls, ctx: Context, message: Message, *, max_array: int, port: str = "message") -> Kept:
        """The message that is at the input `port` of a task in this cycle.

        max_array: the most values of an array that are kept.
        """
        task, _, output = ctx.fed_by.get(port, ".").partition(".")
        return cls(
            kept_fields(message, max_array=max_array),
            message.tov_ns,
            message.own_class.__name__,
            task,
            output,
            ctx.cycle,
            ctx.now_ns,
        )

    def plain(self) -> dict[str, Any]:
        """The object; see the module."""
        return {
            "task": self.task,
            "port": self.port,
            "type": self.type,
            "cycle": self.cycle,
            "time_ns": self.time_ns,
            "tov_ns": self.tov_ns,
            "fields": {name: plain(value) for name, value in self.fields.items()},
        }


def kept_fields(message: Message, *, max_array: int) -> dict[str, Any]:
    """The fields, for use beyond the message's cycle. No pixels are made.

    max_array: the most values of an array that is kept; of others it is type and shape.
    """
    kept: dict[str, Any] = {}
    for name in message.defaults:
        if name == "pixels" and isinstance(message, ImageRgb8Msg):
            kept[name] = {"dtype": "|u1", "shape": [message.height, message.width, 3]}
            continue
        value = getattr(message, name)
        if not isinstance(value, np.ndarray):
            kept[name] = thawed(value)
        elif value.size <= max_array:
            kept[name] = value.copy()
        else:
            kept[name] = plain_value(value, data=False)
    return kept


def plain(value: Any) -> Any:
    """A field that was kept, as JSON can hold it; see the module."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return plain_value(value, data=False)


def unknown_fields(names: Collection[str], kind: type[Message]) -> Iterator[str]:
    """What is wrong with names of fields in a config: a text for each that messages of `kind` lack; none
    of `Message`, which may have any."""
    fields = list(names if kind is Message else kind.defaults)
    for name in names:
        if name not in fields:
            yield f"{kind.__name__} has no field {name!r}; fields: {listed(fields)}" + nearest(
                name, fields
            )


def to_json(value: Any) -> str:
    """The value in JSON, on one line, in characters that every terminal and every editor may get."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return escaped(text)
