"""A log as text that other programs read: JSON lines, CSV; or as columns: Parquet."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from flowrun.runtime.errors import LogError
from flowrun.runtime.export.selection import ExportReport, Selection
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.table import Table, arrow_table
from flowrun.runtime.log.values import plain_value
from flowrun.runtime.printing import Writable
from flowrun.runtime.wording import listed

__all__ = ["export_csv", "export_jsonl", "export_parquet"]


def export_jsonl(
    log: Log, selection: Selection, stream: Writable, *, pixels: bool = False
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


def export_csv(log: Log, selection: Selection, stream: Writable) -> ExportReport:
    """One topic: a row a message, with the columns of `Log.table`. Bytes are base64."""
    table, report = _table(log, selection, "csv")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table)
    columns = [
        column.tolist() if isinstance(column, np.ndarray) else column for column in table.values()
    ]
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
