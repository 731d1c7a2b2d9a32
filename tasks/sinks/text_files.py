"""`JsonlWriter` and `CsvWriter`: messages of any class as lines of a text file.

A line goes to the file whole, in one write, as soon as it is made: what a killed run has written ends
with a whole line. Should a file end with a torn one all the same, as after a power cut, it is cut off
before lines are appended, and the log says so.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import PositiveInt

from flowrun.msgs.message import Message
from flowrun.runtime.log.values import plain_value
from flowrun.runtime.task import Context, Input, Task, TaskConfig
from flowrun.runtime.wording import one_line
from flowrun.tasks.sinks.as_json import JsonSettings, Kept, plain, to_json
from flowrun.tasks.sinks.outbox import Outbox
from flowrun.tasks.sinks.places import SinkFileError, is_own, lock, note_own, path_of, problems_of

__all__ = ["CsvWriter", "JsonlWriter"]

_END_S = 10.0
"""Seconds that the end of a run waits for lines that are not written yet."""
_TAIL = 1 << 16
_MOST_COLUMNS = 16
"""Columns that an array of a fixed shape becomes, at most."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes a cell for a formula by."""


class _Settings(JsonSettings):
    path: str
    """The file; a relative one starts at the graph file. {run}, {start} (UTC) and {task} in it have
    values of the run."""
    if_exists: Literal["append", "refuse", "replace"] = "append"
    """What to do where the file exists: go on after its last whole line, refuse to run, or replace
    it."""
    queue: PositiveInt = 10_000
    """The most messages that wait to be written. Beyond that a cycle waits; or, if a source of the run
    is live, the oldest is dropped and counted."""


class _LineWriter(Task):
    """Common to both: files, opened with the first message."""

    Config: type[_Settings] = _Settings
    acts_outside = True
    suffixes: ClassVar[tuple[str, ...]]
    least_array: ClassVar[int] = 0
    """Arrays of this many values are kept for a line, whatever `max_array` says."""

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._outbox: Outbox[Kept] | None = None
        self._file: _LineFile | None = None

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, _Settings)
        refuses = config.if_exists == "refuse"
        for text in problems_of(config.path, graph_dir, suffixes=cls.suffixes, must_be_new=refuses):
            yield "path", text

    def process(self, ctx: Context, message: Input[Message]) -> None:
        if self._file is None:
            path = path_of(self.config.path, ctx, ctx.now_ns)
            if_exists = "append" if is_own(path, ctx) else self.config.if_exists
            file = _LineFile(path, ctx, if_exists=if_exists)
            note_own(path, ctx)
            try:
                self.begin(file, message)
            except BaseException:
                file.close()
                raise
            self._file = file
        if self._outbox is None:
            self._outbox = Outbox(
                ctx, self._write, most=self.config.queue, waits=lambda: not ctx.follows_live
            )
        most = max(self.config.max_array, self.least_array)
        self._outbox.put(Kept.of(ctx, message, max_array=most))

    def begin(self, file: _LineFile, first: Message) -> None:
        """Make a file ready that has been opened."""

    def line(self, kept: Kept) -> str:
        """A message as a line, without its end."""
        raise NotImplementedError

    def _write(self, kept: Kept) -> None:
        assert self._file is not None
        self._file.write(self.line(kept))

    def stop(self, ctx: Context) -> None:
        del ctx
        outbox = self._outbox
        try:
            if outbox is not None:
                outbox.close(_END_S)
        finally:
            if self._file is not None and not (outbox is not None and outbox.is_alive):
                self._file.close()


class JsonlWriter(_LineWriter):
    """Write each message as a line of JSON.

    Takes messages of any class at `message`. A line is the object that docs/sinks.md describes: task,
    port, type, cycle, time_ns, tov_ns, fields. Times are nanoseconds since 1970 UTC. If the file cannot
    be written, as on a full disk, `on_error` decides. A replay writes nothing.
    """

    suffixes = (".jsonl", ".ndjson", ".json", ".txt", ".log")

    def line(self, kept: Kept) -> str:
        return to_json(kept.plain())


class CsvWriter(_LineWriter):
    r"""Write each message as a row of a table.

    Takes messages of one class at `message`. The columns are cycle, time_ns, tov_ns (nanoseconds since
    1970 UTC), then the class's fields in their order; a field of one of these names is `field.NAME`.

    - An array whose shape the class fixes, of at most 16 values, has a column for each: `pose.0`,
      `pose.1`, or `matrix.0.1`.
    - Lists, maps and other arrays are JSON in one cell; of an array of more than `max_array` values, its
      type and shape.
    - Truth is `true` or `false`, nothing an empty cell, bytes are base64.
    - A text that a spreadsheet would take for a formula begins with `'`. Line ends and other control
      characters are written as escapes, such as `\n`: a row is a line.

    A file that exists must have the same columns to be appended to. If it has not, or the file cannot be
    written, as on a full disk, `on_error` decides. A replay writes nothing.
    """

    suffixes = (".csv", ".txt")
    least_array = _MOST_COLUMNS

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._columns: list[_Column] = []

    def begin(self, file: _LineFile, first: Message) -> None:
        columns = _columns_of(first)
        head = _row([column.name for column in columns])
        if file.size and file.first_line() != head:
            had = file.first_line()
            raise SinkFileError(
                f"{file.path} has other columns than a {first.own_class.__name__}: {had:.200}; "
                f"expected {head:.200}; choose another path, or if_exists: replace"
            )
        if not file.size:
            file.write(head)
        self._columns = columns

    def line(self, kept: Kept) -> str:
        envelope = {"cycle": kept.cycle, "time_ns": kept.time_ns, "tov_ns": kept.tov_ns}
        cells = []
        for name, field, place in self._columns:
            value: Any = envelope[name] if field is None else kept.fields[field]
            if place is not None:
                value = value[place].item()
            elif isinstance(value, np.ndarray) and value.size > self.config.max_array:
                value = plain_value(value, data=False)
            cells.append(_cell(plain(value)))
        return _row(cells)


class _Column(NamedTuple):
    """field: the field that it shows; None for what the envelope says. place: in an array."""

    name: str
    field: str | None = None
    place: tuple[int, ...] | None = None


_OF_ENVELOPE = ("cycle", "time_ns", "tov_ns")


def _columns_of(message: Message) -> list[_Column]:
    columns = [_Column(name) for name in _OF_ENVELOPE]
    for field in message.defaults:
        shown = f"field.{field}" if field in _OF_ENVELOPE else field
        array = message.array_fields.get(field)
        places = None if array is None else _places(array.shape.dims)
        if places is None:
            columns.append(_Column(shown, field))
        else:
            columns += [_Column(".".join([shown, *map(str, at)]), field, at) for at in places]
    return columns


def _places(dims: str) -> list[tuple[int, ...]] | None:
    """The places in an array whose shape is fixed and small; None for others."""
    lengths = dims.split()
    if not lengths or not all(length.isdigit() for length in lengths):
        return None
    places: list[tuple[int, ...]] = [()]
    for length in lengths:
        places = [(*place, at) for place in places for at in range(int(length))]
        if len(places) > _MOST_COLUMNS:
            return None
    return places


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return to_json(value)
    if isinstance(value, str):
        text = one_line(value)
        return f"'{text}" if text.startswith(_FORMULA) or value.startswith(_FORMULA) else text
    return str(value)


def _row(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


class _LineFile:
    """A file to which whole lines are appended. Raises `SinkFileError` where that fails."""

    def __init__(
        self, path: Path, ctx: Context, *, if_exists: Literal["append", "refuse", "replace"]
    ) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        if if_exists == "refuse":
            flags |= os.O_EXCL
        try:
            self._fd = os.open(path, flags, 0o666)
        except FileExistsError:
            raise SinkFileError(
                f"{path} exists; write {{run}} or {{start}} into the path, or set if_exists"
            ) from None
        except OSError as error:
            raise SinkFileError(f"cannot open {path}: {error.strerror}") from None
        try:
            self._begin(ctx, replace=if_exists == "replace")
        except BaseException:
            os.close(self._fd)
            raise

    def _begin(self, ctx: Context, *, replace: bool) -> None:
        lock(self._fd, self.path)
        try:
            whole = 0 if replace else self._whole_lines()
            size = os.fstat(self._fd).st_size
            if whole < size:
                os.ftruncate(self._fd, whole)
        except OSError as error:
            raise SinkFileError(f"cannot write {self.path}: {error.strerror}") from None
        self.size = whole
        if whole < size and not replace:
            ctx.log.warning("cut off a torn last line", path=str(self.path), bytes=size - whole)
        ctx.log.info("writes to", path=str(self.path), existed=bool(size))

    def _whole_lines(self) -> int:
        """Where the last whole line ends."""
        end = os.fstat(self._fd).st_size
        while end > 0:
            start = max(0, end - _TAIL)
            found = os.pread(self._fd, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def first_line(self) -> str:
        return os.pread(self._fd, _TAIL, 0).partition(b"\n")[0].decode(errors="replace")

    def write(self, line: str) -> None:
        """Append a line, without its end; nothing of it stays where the disk is full."""
        data = memoryview(f"{line}\n".encode(errors="replace"))
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as error:
            if done:
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - done)
            raise SinkFileError(f"cannot write {self.path}: {error.strerror}") from None

    def close(self) -> None:
        os.close(self._fd)
