"""The messages of one topic as columns: what a notebook, pandas or a CSV file wants."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.errors import UsageError
from flowrun.runtime.log_message import LogMessage

__all__ = ["Column", "Table", "import_optional", "make_table"]

Column = NDArray[Any] | list[Any]

_LEFT_OUT = (list, dict, memoryview, np.ndarray)


class Table(dict[str, Column]):
    """Columns by name, all of the same length: cycle, time_ns, tov_ns, then each scalar field.

    Truth values, integers and numbers are NumPy arrays; texts, bytes and fields that are missing
    (None) in some messages are lists, but numbers with gaps are arrays with NaN.
    A field that has the name of one of the first three columns is called "field.<name>".
    """

    left_out: dict[str, str]
    """Fields that are no column, because they hold arrays, lists or maps: name -> what of."""


def make_table(messages: Iterable[LogMessage]) -> Table:
    """The table of `messages`, all of one topic."""
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
    for name, values in fields.items():
        if name not in left_out:
            values.extend([None] * (len(cycles) - len(values)))
            table[f"field.{name}" if name in table else name] = _column(values)
    return table


def _column(values: list[Any]) -> Column:
    kinds = {type(value) for value in values}
    if not kinds or kinds == {int}:
        least, most = min(values, default=0), max(values, default=0)
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


def import_optional(package: str, what: str, *, install: str = "") -> Any:
    """The module `package`, which flowrun can do without; `UsageError` names it where it is missing.

    what: what needs it, as the user called it. install: what pip calls it, where that is not the
    module's name.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = install or package.partition(".")[0]
        raise UsageError(
            f"{what} needs the package {name!r}, which is not installed: pip install {name}"
        ) from error
