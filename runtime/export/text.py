"""A log as text that other programs read: JSON lines, CSV; and what all exports share."""

from __future__ import annotations

import base64
import csv
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.message import Bounds, LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.table import Table, arrow_table
from flowrun.runtime.wording import listed

__all__ = [
    "ExportReport",
    "Selection",
    "export_csv",
    "export_jsonl",
    "export_parquet",
    "line_text",
    "plain_value",
    "whole_file",
]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages of a log are exported.

    topics: None for all. bounds: the keyword arguments of `Log.messages`.
    progress: called with the cycle's time of each message that is read.
    """

    topics: tuple[str, ...] | None = None
    bounds: Bounds = field(default_factory=Bounds)
    progress: Callable[[int], None] | None = None

    def messages(self, log: Log, *topics: str) -> Iterator[LogMessage]:
        """The selected messages, or those of `topics` within the bounds."""
        wanted = topics or self.topics
        for message in log.messages(wanted, **self.bounds):
            if self.progress is not None:
                self.progress(message.time_ns)
            yield message

    def one_topic(self, log: Log, what: str, options: list[str]) -> str:
        """The one topic that the export `what` takes; `UsageError` lists the `options`."""
        if not options:
            raise UsageError(f"{log.path}: the log has no topic that {what} can hold")
        chosen = options if self.topics is None else list(self.topics)
        if len(chosen) != 1:
            raise UsageError(
                f"{log.path}: {what} holds one topic; choose it with --topic: {listed(options)}"
            )
        return chosen[0]


@dataclass(slots=True)
class ExportReport:
    """What an export wrote.

    count: messages, or pictures, or cycles. unreadable: messages whose payload could not be decoded.
    notes: what the file does not hold as the log does, a sentence each.
    """

    count: int = 0
    unreadable: int = 0
    notes: list[str] = field(default_factory=list)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, renamed to `path` at the end, removed if there is an error:
    an interrupted export leaves no half file, and a file of that name as it was.

    A link is followed; a pipe or a device is written to as it is. `LogError` for a directory.
    """
    if path.is_dir():
        raise LogError(f"{path}: cannot be written: it is a directory")
    is_stream = path.exists() and not path.is_file()
    behind = path if is_stream else path.resolve()
    part = path if is_stream else behind.with_name(f".{behind.name}.{os.getpid()}.part")
    try:
        yield part
        if not is_stream:
            part.replace(behind)
    except OSError as error:
        raise LogError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        if not is_stream:
            part.unlink(missing_ok=True)


def export_jsonl(
    log: Log, selection: Selection, stream: TextIO, *, pixels: bool = False
) -> ExportReport:
    """A JSON object a line and message: topic, cycle, time_ns, tov_ns, fields.

    Bytes are base64; an array is {dtype, shape, data} with base64 data, row-major, little-endian; a
    picture has no data unless `pixels`. Numbers that JSON lacks are "NaN", "Infinity", "-Infinity".
    A message that cannot be decoded has "error" in place of "fields".
    """
    report = ExportReport()
    pictures = {name for name, topic in log.topics.items() if topic.is_picture}
    for message in selection.messages(log):
        line: dict[str, Any] = {
            "topic": message.topic,
            "cycle": message.cycle,
            "time_ns": message.time_ns,
            "tov_ns": message.tov_ns,
        }
        try:
            with_data = pixels or message.topic not in pictures
            fields = message.fields if with_data else message.outline
            line["fields"] = plain_value(fields, data=with_data)
        except LogError as error:
            line["error"] = str(error)
            report.unreadable += 1
        stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        report.count += 1
    return report


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


def export_csv(log: Log, selection: Selection, stream: TextIO) -> ExportReport:
    """One topic: a row a message, with the columns of `Log.table`. Bytes are base64."""
    table, report = _table(log, selection, "csv")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table)
    columns = [column.tolist() if isinstance(column, np.ndarray) else column
               for column in table.values()]  # fmt: skip
    for row in zip(*columns, strict=True):
        writer.writerow([_cell(value) for value in row])
    return report


def export_parquet(log: Log, selection: Selection, path: Path) -> ExportReport:
    """One topic: the columns of `Log.table`; needs the package pyarrow."""
    what = "an export to parquet"
    pyarrow = import_optional("pyarrow", what, extra="tables")
    parquet = import_optional("pyarrow.parquet", what, extra="tables")
    table, report = _table(log, selection, "parquet")
    parquet.write_table(arrow_table(table, pyarrow), path)
    return report


def _table(log: Log, selection: Selection, what: str) -> tuple[Table, ExportReport]:
    tasks = [name for name in log.topics if not name.startswith("/flowrun/")]
    table = log.table(selection.one_topic(log, what, tasks), **selection.bounds)
    report = ExportReport(len(table["cycle"]))
    if table.left_out:
        fields = listed(f"{name} ({kind})" for name, kind in table.left_out.items())
        report.notes.append(f"left out, as {what} holds one value a cell: {fields}")
    return table, report


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
