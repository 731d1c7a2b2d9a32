"""Payloads -> fields, and fields -> what JSON and a viewer's line can hold."""

from __future__ import annotations

import base64
import math
from typing import Any

import msgpack
import numpy as np

from flowrun.msgs import protobuf
from flowrun.msgs.fields import array_from_map
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.log.lines import LOG_SCHEMA_NAME, unpack_log

__all__ = ["decode", "line_text", "plain_value"]


_OF_ARRAY = {"dtype", "shape", "data"}


def decode(payload: memoryview, encoding: str, schema: str) -> dict[str, Any]:
    """The fields of `payload`. `ValueError`, `TypeError` or msgpack's `UnpackException` on bytes
    that are not of that encoding."""
    if encoding == "protobuf":
        if schema == ImageRgb8Msg.schema_name:
            return ImageRgb8Msg.decode_fields(payload)
        if schema == LOG_SCHEMA_NAME:
            return unpack_log(payload)
        return {str(number): value for number, value in protobuf.fields(payload)}
    if encoding != "msgpack":
        return {"data": payload}
    fields = msgpack.unpackb(payload, strict_map_key=False)
    if not isinstance(fields, dict):
        raise ValueError(f"a {type(fields).__name__}, expected a map")  # noqa: TRY004
    return {
        name: array_from_map(value)
        if isinstance(value, dict) and value.keys() == _OF_ARRAY
        else value
        for name, value in fields.items()
    }


def plain_value(value: Any, *, data: bool) -> Any:
    """`value` as JSON can hold it; `data`: arrays with their contents."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, (bytes, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        described: dict[str, Any] = {"dtype": value.dtype.str, "shape": list(value.shape)}
        if data:
            described["data"] = base64.b64encode(value.tobytes()).decode()
        return described
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else str(key): plain_value(item, data=data)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [plain_value(item, data=data) for item in value]
    return str(value)  # what msgpack has and JSON lacks: a time stamp, an extension


def line_text(line: dict[str, Any]) -> str:
    """A log line's message and what else was logged with it, as viewers show no more than a text."""
    more = "".join(f" {name}={it!r}" for name, it in line["fields"].items())
    return f"{line['message']}{more}"
