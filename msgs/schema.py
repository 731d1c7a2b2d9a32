"""JSON Schema of a message class, as the log stores it with the messages."""

from __future__ import annotations

import json
import types
import typing
from typing import Annotated, Any, Protocol

from flowrun.msgs.fields import ArrayField

__all__ = ["json_schema"]

_SCALARS: dict[Any, dict[str, str]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    type(None): {"type": "null"},
}


class Declaration(Protocol):
    """What a message class says of its fields; see `Message`."""

    schema_name: str
    field_types: dict[str, Any]
    array_fields: dict[str, ArrayField]
    measured_fields: frozenset[str]


def json_schema(message_type: Declaration) -> bytes:
    """The JSON Schema (draft 2020-12) of the map that `message_type.encode` writes."""
    properties = {}
    for name, declared in message_type.field_types.items():
        array = message_type.array_fields.get(name)
        described = _of_array(array) if array is not None else _of_type(declared)
        if name in message_type.measured_fields:
            described["description"] = "A measurement of the run; replay does not compare it."
        properties[name] = described
    schema: dict[str, Any] = {
        "title": message_type.schema_name,
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }
    doc = message_type.__doc__
    if doc:
        schema["description"] = doc.strip().splitlines()[0]
    return json.dumps(schema, separators=(",", ":")).encode()


def _of_type(declared: Any) -> dict[str, Any]:
    if typing.get_origin(declared) is Annotated:
        declared = declared.__origin__
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of_type(option) for option in arguments]}
    kind = origin or declared
    *_, item = arguments or (Any,)
    if kind is list:
        return {"type": "array", "items": _of_type(item)}
    if kind is dict:
        return {"type": "object", "additionalProperties": _of_type(item)}
    return dict(_SCALARS.get(kind, {}))


def _of_array(array: ArrayField) -> dict[str, Any]:
    return {
        "type": "object",
        "description": f"{array.dtype} array of shape ({array.shape.dims}), row-major",
        "properties": {
            "dtype": {"const": array.dtype.newbyteorder("<").str},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "string", "contentEncoding": "base64"},
        },
    }
