"""The messages of one topic as columns: what a notebook, pandas or a CSV file wants."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.log.lines import LOG_SCHEMA_NAME
from flowrun.runtime.log.message import LogMessage, Topic

__all__ = ["Column", "Table", "arrow_table", "make_table"]

Column = NDArray[Any] | list[Any]

_LEFT_OUT = (list, dict, memoryview, np.ndarray)
_EMPTY: Mapping[str, type] = {"integer": np.int64, "number": np.float64, "boolean": np.bool_}
"""By JSON type, that of a column without a message; all others are lists."""
_LOG_LINE = {
    "time_ns": {"type": "integer"},
    "level": {"type": "string"},
    "message": {"type": "string"},
    "name": {"type": "string"},
    "fields": {"type": "object"},
}


class Table(dict[str, Column]):
    """Columns by name, all of the same length: cycle, time_ns, tov_ns, then each scalar field.

    Truth values, integers and numbers are NumPy arrays; texts, bytes and fields that are missing
    (None) in some messages are lists, but numbers with gaps are arrays with NaN.
    A field that has the name of one of the first three columns is called "field.<name>".
    Without a message the columns are those that the topic's schema says, empty.
    """

    left_out: dict[str, str]
    """Fields that are no column, because they hold arrays, lists or maps: name -> what of."""
    arrow_types: dict[str, str]
    """pyarrow's names of the types of an empty table's lists, which hold nothing that shows them."""


def make_table(messages: Iterable[LogMessage], topic: Topic) -> Table:
    """The table of `messages`, all of `topic`."""
    cycles: list[int] = []
    times: list[int] = []
    tovs: list[int] = []
    fields: dict[str, list[Any]] = {}
    left_out: dict[str, str] = {}
    for row, message in enumerate(messages):
        cycles.append(message.cycle)
        times.append(message.time_ns)
        tovs.append(message.tov_ns)
        for name, value in message.outline.items():
            if isinstance(value, _LEFT_OUT):
                left_out.setdefault(name, _described(value))
                continue
            values = fields.setdefault(name, [])
            values.extend([None] * (row - len(values)))
            values.append(value)
    table = Table(cycle=_column(cycles), time_ns=_column(times), tov_ns=_column(tovs))
    table.left_out = left_out
    table.arrow_types = {}
    if not cycles:
        _add_empty(table, topic)
    for name, values in fields.items():
        if name not in left_out:
            values.extend([None] * (len(cycles) - len(values)))
            table[f"field.{name}" if name in table else name] = _column(values)
    return table


def arrow_table(table: Table, pyarrow: Any) -> Any:
    """`table` as a `pyarrow.Table`."""
    columns: dict[str, Any] = dict(table)
    for name, kind in table.arrow_types.items():
        columns[name] = pyarrow.array([], type=kind)
    return pyarrow.table(columns)


def _add_empty(table: Table, topic: Topic) -> None:
    """The columns of the topic's fields, without a value."""
    for name, declared in _declared_fields(topic).items():
        options = declared.get("anyOf", [declared])  # T | None
        match [option for option in options if option != {"type": "null"}]:
            case [dict() as kind]:
                pass
            case _:
                kind = {}
        json_type = str(kind.get("type"))
        if json_type == "array":
            table.left_out[name] = "list"
        elif json_type == "object":
            array = "shape" in kind.get("properties", {})
            dtype = kind.get("description", "").partition(" ")[0]
            table.left_out[name] = f"{dtype} array" if array else "map"
        else:
            column = f"field.{name}" if name in table else name
            table[column] = np.array([], _EMPTY[json_type]) if json_type in _EMPTY else []
            if json_type == "string":
                is_bytes = "contentEncoding" in kind
                table.arrow_types[column] = "binary" if is_bytes else "string"


def _declared_fields(topic: Topic) -> dict[str, dict[str, Any]]:
    """By name, a JSON Schema of each field; nothing where the log does not say."""
    schema = topic.schema
    if topic.is_picture:
        from flowrun.msgs.schema import json_schema

        schema = json_schema(ImageRgb8Msg)
    elif topic.schema_name == LOG_SCHEMA_NAME:
        return dict(_LOG_LINE)
    elif topic.schema_encoding != "jsonschema":
        return {}
    try:
        declared = json.loads(schema)["properties"]
        return {name: dict(field) for name, field in declared.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # another writer's schema


def _column(values: list[Any]) -> Column:
    if not values:
        return np.array(values, np.int64)
    kinds = {type(value) for value in values}
    if kinds == {int}:
        least, most = min(values), max(values)
        if least >= -(2**63) and most < 2**63:
            return np.array(values, np.int64)
        return np.array(values, np.uint64) if least >= 0 and most < 2**64 else values
    if kinds == {bool}:
        return np.array(values, np.bool_)
    if float in kinds and kinds <= {int, float, type(None)}:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return values


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array"
    return "list" if isinstance(value, list) else "map" if isinstance(value, dict) else "bytes"
