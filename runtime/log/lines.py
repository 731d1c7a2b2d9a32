"""The runtime's own log lines as `foxglove.Log` messages, which MCAP viewers list by level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from flowrun.msgs import protobuf
from flowrun.msgs.fields import Buffer

__all__ = ["LEVELS", "LOG_SCHEMA", "LOG_SCHEMA_NAME", "pack_log", "unpack_log"]

LOG_SCHEMA_NAME = "foxglove.Log"
LEVELS = ("UNKNOWN", "DEBUG", "INFO", "WARNING", "ERROR", "FATAL")
"""The schema's levels, by number."""
_BY_METHOD = {"WARN": "WARNING", "EXCEPTION": "ERROR", "CRITICAL": "FATAL"}

_TIMESTAMP, _LEVEL, _MESSAGE, _NAME, _FILE, _LINE = 1, 2, 3, 4, 5, 6
_FIELDS = 1000  # ours; other protobuf readers skip it


def pack_log(time_ns: int, level: str, message: str, name: str, fields: Mapping[str, Any]) -> bytes:
    """One line of the log.

    level: of `LEVELS`, or a name of the logging methods ("warn", "exception", "critical"), in any
        case; others become UNKNOWN. name: who says it (the task). fields: what else was logged;
        values that msgpack does not know are stored as their `repr`.
    """
    upper = level.upper()
    upper = _BY_METHOD.get(upper, upper)
    number = LEVELS.index(upper) if upper in LEVELS else 0
    packed = protobuf.timestamp_field(_TIMESTAMP, time_ns) + protobuf.varint_field(_LEVEL, number)
    packed += _text(_MESSAGE, message) + _text(_NAME, name)
    if fields:
        packed += protobuf.bytes_field(_FIELDS, _pack_fields(fields))
    return packed


def unpack_log(data: Buffer) -> dict[str, Any]:
    """What `pack_log` packed, as a map; `level` is one of `LEVELS`. `ValueError` on other bytes."""
    raw: dict[int, Any] = dict(protobuf.fields(memoryview(data)))
    try:
        stamp: dict[int, Any] = dict(protobuf.fields(raw.get(_TIMESTAMP, memoryview(b""))))
        level = protobuf.number(raw.get(_LEVEL, 0))
        fields = msgpack.unpackb(raw[_FIELDS], strict_map_key=False) if _FIELDS in raw else {}
        return {
            "time_ns": protobuf.number(stamp.get(1, 0)) * 1_000_000_000
            + protobuf.number(stamp.get(2, 0)),
            "level": LEVELS[level] if level < len(LEVELS) else LEVELS[0],
            "message": _text_of(raw, _MESSAGE),
            "name": _text_of(raw, _NAME),
            "fields": fields,
        }
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"not a foxglove.Log: {error!r}") from error


def _text_of(raw: dict[int, Any], number: int) -> str:
    return bytes(protobuf.contents(raw.get(number, memoryview(b"")))).decode()


def _text(number: int, text: str) -> bytes:
    # A lone surrogate (a file name that is not UTF-8) must not keep a line out of the log.
    return protobuf.bytes_field(number, text.encode(errors="backslashreplace"))


def _pack_fields(fields: Mapping[str, Any]) -> bytes:
    try:
        return _packb(dict(fields))
    except (TypeError, ValueError, OverflowError):
        return _packb({repr(key): repr(value) for key, value in fields.items()})


def _packb(fields: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(fields, default=repr, unicode_errors="backslashreplace")
    return packed


LOG_SCHEMA = protobuf.descriptor_set(
    "foxglove",
    "Log",
    [
        (_TIMESTAMP, "timestamp", "timestamp"),
        (_LEVEL, "level", "enum"),
        (_MESSAGE, "message", "string"),
        (_NAME, "name", "string"),
        (_FILE, "file", "string"),
        (_LINE, "line", "fixed32"),
    ],
    enum=("Level", list(LEVELS)),
)
"""The protobuf descriptor of `foxglove.Log`."""
