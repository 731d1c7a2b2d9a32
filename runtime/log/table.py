"""The messages of one topic as columns: what a notebook, pandas or a CSV file wants."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.display import html_table
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import LogDamaged, UsageError
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.lines import LOG_SCHEMA_NAME
from flowrun.runtime.log.message import LogMessage, Topic

__all__ = ["Column", "Table", "arrow_table", "make_table", "timings_table"]

Column = NDArray[Any] | list[Any]

_SHOWN = 20
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

    @property
    def df(self) -> Any:
        """The table as a `pandas.DataFrame`; needs the package pandas."""
        pandas = import_optional("pandas", "Table.df", extra="tables")
        return pandas.DataFrame(self)

    @property
    def pl(self) -> Any:
        """The table as a `polars.DataFrame`; needs the package polars."""
        try:
            polars = importlib.import_module("polars")
        except ImportError as error:
            raise UsageError("Table.pl needs polars: pip install polars") from error
        return polars.DataFrame(dict(self), strict=False)

    def arrow(self, pyarrow: Any) -> Any:
        """The table as a `pyarrow.Table`."""
        return arrow_table(self, pyarrow)

    def _repr_html_(self) -> str:
        length = len(next(iter(self.values()), ()))
        title = f"{length} rows" + (f"; the first {_SHOWN}" if length > _SHOWN else "")
        rows = zip(*(column[:_SHOWN] for column in self.values()), strict=True)
        return html_table(title, list(self), rows)


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


def timings_table(messages: Iterable[LogMessage], tasks: Sequence[str]) -> Table:
    """The table of how long steps took; see `Log.timings`.

    messages: those of the step table.
    tasks: the names of the steps.
    """
    cycles: list[int] = []
    times: list[int] = []
    taken: list[NDArray[np.float64]] = []
    for message in messages:
        try:
            ticks = np.frombuffer(msgpack.unpackb(message.payload)["ticks_ns"], "<u8")
        except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
            raise LogDamaged(
                f"cycle {message.cycle}: {message.topic}: no step table: {error}"
            ) from error
        cycles.append(message.cycle)
        times.append(message.time_ns)
        taken.append(np.diff(ticks.astype(np.int64)).astype(np.float64) / 1e6)
    table = Table(cycle=np.array(cycles, np.int64), time_ns=np.array(times, np.int64))
    table.left_out, table.arrow_types = {}, {}
    table["cycle_ms"] = np.array([it.sum() for it in taken])
    count = len(taken[0]) if taken else len(tasks)
    names = tasks if len(tasks) == count else [f"step_{number}" for number in range(count)]
    for number, name in enumerate(names):
        table[f"{name}_ms"] = np.array([it[number] for it in taken])
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
