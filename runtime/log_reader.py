"""A run's log, read: finished or not, after a crash, while it is written, without the application.

with Log("runs/inference-20260105T101500Z") as log:
    for message in log.messages("/vlm/answer"):
        print(message.cycle, message.fields["response"])
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgpack
import numpy as np

from flowrun.msgs import protobuf
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import LogError
from flowrun.runtime.log_records import LOG_SCHEMA_NAME, unpack_log
from flowrun.runtime.log_slab_reader import Damage, Entry, SlabReader
from flowrun.runtime.wording import listed, nearest

__all__ = ["CycleRecord", "Log", "LogMessage", "Topic", "slab_paths"]

_SLAB_NAME = re.compile(r"log_(\d{4,})\.mcap")


@dataclass(frozen=True, slots=True)
class Topic:
    """One stream of messages in the log: an output of a task, or one of the runtime's own."""

    name: str
    message_encoding: str
    schema_name: str
    schema_encoding: str
    schema: bytes = field(repr=False)
    metadata: Mapping[str, str]
    """"task" and "port" of an output."""


class CycleRecord(NamedTuple):
    """One cycle; `entries` are (topic, tov_ns, payload) in the order in which they were published.

    Payloads are read-only views of the mapped file: copy what shall outlive the log.
    """

    cycle: int
    time_ns: int
    entries: list[Entry]


class LogMessage:
    """One message of the log.

    payload: its bytes, a read-only view of the mapped file.
    """

    __slots__ = ("_slab", "cycle", "payload", "time_ns", "topic", "tov_ns")

    def __init__(
        self,
        slab: SlabReader,
        topic: str,
        cycle: int,
        time_ns: int,
        tov_ns: int,
        payload: memoryview,
    ) -> None:
        self._slab = slab
        self.topic = topic
        self.cycle = cycle
        self.time_ns = time_ns
        self.tov_ns = tov_ns
        self.payload = payload

    @property
    def fields(self) -> dict[str, Any]:
        """The message's fields, decoded by what the log says of its encoding, at each call.

        Arrays are views of the file. Protobuf messages other than pictures and log lines come as
        field number -> value. Raises `LogError` for bytes that are not of that encoding.
        """
        slab = self._slab
        channel = next(c for c in slab.channels.values() if c.topic == self.topic)
        schema = slab.schemas.get(channel.schema_id)
        try:
            return _decode(self.payload, channel.message_encoding, schema.name if schema else "")
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise LogError(
                f"{slab.path}: cycle {self.cycle}: {self.topic}: the payload of "
                f"{len(self.payload)} bytes is not {channel.message_encoding}: {error}"
            ) from error

    def __repr__(self) -> str:
        return (
            f"LogMessage({self.topic!r}, cycle={self.cycle}, time_ns={self.time_ns}, "
            f"tov_ns={self.tov_ns}, {len(self.payload)} bytes)"
        )


class Log:
    """A run directory, or one .mcap file of it.

    verify: check the crc of each cycle as it is read.

    Bytes that cannot be right never give a message: reading ends in front of them, goes on with the
    next slab, and `loss` says what is missing. `LogError` is raised where nothing can be read at
    all. A log that is being written is read up to its last committed cycle; open it again to see
    what has come in sections written since.
    """

    def __init__(self, path: str | Path, *, verify: bool = True) -> None:
        self.path = Path(path)
        self.verify = verify
        self._losses: dict[Path, str] = {}
        self._slabs: list[SlabReader] = []
        errors = []
        for slab_path in slab_paths(self.path):
            try:
                self._slabs.append(SlabReader(slab_path, verify=verify))
            except LogError as error:
                errors.append(error)
                self._losses[slab_path] = str(error)
        if not self._slabs:
            raise errors[0] if errors else LogError(f"{self.path}: the log is empty")
        for slab in self._slabs:
            if slab.damage is not None:
                self._lose(slab, slab.damage)
        self._check_run()
        self._cycle_count: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the files back. Payloads that are still held stay valid."""
        for slab in self._slabs:
            slab.close()

    def _check_run(self) -> None:
        first = self._slabs[0]
        for number, slab in enumerate(self._slabs):
            if slab.metadata.get("run_id") != first.metadata.get("run_id"):
                raise LogError(
                    f"{slab.path}: belongs to run {slab.metadata.get('run_id')!r}; "
                    f"{first.path.name} to run {first.metadata.get('run_id')!r}"
                )
            before = self._slabs[number - 1] if number else None
            if before is not None and not self._losses:
                index, last = _slab_number(slab.path), _slab_number(before.path)
                if index != last + 1:
                    self._losses[slab.path] = (
                        f"{slab.path}: follows {before.path.name}: the slabs between are missing"
                    )

    # -- what the log says of itself -----------------------------------------------------------

    @property
    def topics(self) -> dict[str, Topic]:
        """Every topic of the run, by name, also those without a message."""
        first = self._slabs[0]
        found = {}
        for channel in first.channels.values():
            schema = first.schemas.get(channel.schema_id)
            found[channel.topic] = Topic(
                channel.topic,
                channel.message_encoding,
                schema.name if schema else "",
                schema.encoding if schema else "",
                schema.data if schema else b"",
                channel.metadata,
            )
        return found

    @property
    def metadata(self) -> dict[str, str]:
        """run_id, graph, versions, ..."""
        return dict(self._slabs[0].metadata)

    @property
    def attachments(self) -> dict[str, bytes]:
        """Name -> contents; "graph.yaml" is the graph file that ran."""
        return {name: item.data for name, item in self._slabs[0].attachments.items()}

    @property
    def slabs(self) -> tuple[SlabReader, ...]:
        """The files, in order."""
        return tuple(self._slabs)

    @property
    def finished(self) -> bool:
        """Whether the run ended in order, or was recovered."""
        return self.end is not None and all(slab.finished for slab in self._slabs)

    @property
    def end(self) -> dict[str, str] | None:
        """How the run ended: reason, cycles, ended_ns, error. None while it has not."""
        return self._slabs[-1].end

    @property
    def loss(self) -> str | None:
        """What could not be read, as far as was found until now: file, byte and why. None: nothing.

        Damage inside a chunk is found when it is read; iterate over all cycles to find all.
        """
        return "; ".join(self._losses.values()) or None

    @property
    def start_ns(self) -> int | None:
        """Time of the first cycle; None without one."""
        for slab in self._slabs:
            head = slab.first(0) if slab.chunks else None
            if head is not None:
                return head.time_ns
        return None

    @property
    def end_ns(self) -> int | None:
        """Time of the last cycle; None without one."""
        for slab in reversed(self._slabs):
            for index in reversed(range(len(slab.chunks))):
                last = None
                try:
                    for last in slab.heads(index):  # noqa: B007 - the last one is wanted
                        pass
                except Damage as damage:
                    self._lose(slab, damage)
                if last is not None:
                    return last.time_ns
        return None

    def __len__(self) -> int:
        """Number of cycles. Walks over them, without checking them, and remembers the answer."""
        if self._cycle_count is None or not self.finished:
            count = 0
            for slab in self._slabs:
                try:
                    for index in range(len(slab.chunks)):
                        for _ in slab.heads(index):
                            count += 1
                except Damage as damage:
                    self._lose(slab, damage)
            self._cycle_count = count
        return self._cycle_count

    def __bool__(self) -> bool:
        return True

    # -- reading -------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[CycleRecord]:
        return self.cycles()

    def __getitem__(self, cycle: int) -> CycleRecord:
        """The cycle of that number; `LogError` if the log does not hold it."""
        for record in self.cycles(cycle, cycle + 1):
            return record
        raise LogError(f"{self.path}: cycle {cycle} is not in the log")

    def cycles(
        self,
        start: int | None = None,
        end: int | None = None,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[CycleRecord]:
        """The cycles with start <= cycle < end and start_ns <= time < end_ns, in order."""
        for _, record in self._read(start, end, start_ns, end_ns):
            yield record

    def messages(
        self,
        topic: str | Collection[str] | None = None,
        start: int | None = None,
        end: int | None = None,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[LogMessage]:
        """The messages of one, several or all topics; bounds as in `cycles`.

        `LogError` for a topic that the log does not have.
        """
        wanted = [topic] if isinstance(topic, str) else topic
        if wanted is not None:
            self._check_topics(wanted)
            wanted = frozenset(wanted)
        return self._messages(wanted, self._read(start, end, start_ns, end_ns))

    @staticmethod
    def _messages(
        wanted: Collection[str] | None, records: Iterator[tuple[SlabReader, CycleRecord]]
    ) -> Iterator[LogMessage]:
        for slab, (cycle, time_ns, entries) in records:
            for topic, tov_ns, payload in entries:
                if wanted is None or topic in wanted:
                    yield LogMessage(slab, topic, cycle, time_ns, tov_ns, payload)

    def _check_topics(self, wanted: Collection[str]) -> None:
        known = list(self.topics)
        for name in wanted:
            if name not in known:
                raise LogError(
                    f"{self.path}: no topic {name!r}; topics: {listed(known)}{nearest(name, known)}"
                )

    def _read(
        self, start: int | None, end: int | None, start_ns: int | None, end_ns: int | None
    ) -> Iterator[tuple[SlabReader, CycleRecord]]:
        bounded = not (start is None and end is None and start_ns is None and end_ns is None)
        previous = -1
        for position in range(self._first_slab(start, start_ns), len(self._slabs)):
            slab = self._slabs[position]
            first_chunk = slab.chunk_of(cycle=start, time_ns=start_ns)
            count = 0
            try:
                for index in range(first_chunk, len(slab.chunks)):
                    at = None
                    if index == first_chunk and not (start is None and start_ns is None):
                        at = slab.offset_of(index, cycle=start, time_ns=start_ns)
                    for offset, cycle, time_ns, entries in slab.records(index, at):
                        if bounded:
                            if (end is not None and cycle >= end) or (
                                end_ns is not None and time_ns >= end_ns
                            ):
                                return
                            if (start is not None and cycle < start) or (
                                start_ns is not None and time_ns < start_ns
                            ):
                                continue
                        if cycle <= previous:
                            raise Damage(offset, f"cycle {cycle} behind cycle {previous}")
                        previous = cycle
                        count += len(entries)
                        yield slab, CycleRecord(cycle, time_ns, entries)
                if not bounded:
                    self._check_count(slab, count)
            except Damage as damage:
                self._lose(slab, damage)

    def _first_slab(self, start: int | None, start_ns: int | None) -> int:
        """The last slab that may hold the first cycle of the range."""
        for position in range(len(self._slabs) - 1, 0, -1):
            slab = self._slabs[position]
            head = slab.first(0) if slab.chunks else None
            if head is not None and (
                (start is not None and head.cycle <= start)
                or (start_ns is not None and head.time_ns < start_ns)
            ):
                return position
        return 0

    def _check_count(self, slab: SlabReader, count: int) -> None:
        if slab.statistics is not None and slab.statistics.message_count != count:
            raise Damage(
                slab.preamble_end,
                f"{count} messages; the summary counts {slab.statistics.message_count}",
            )

    def _lose(self, slab: SlabReader, damage: Damage) -> None:
        self._losses.setdefault(slab.path, f"{slab.path}: {damage}")


def slab_paths(path: Path) -> list[Path]:
    """The slabs at `path`, a run directory or one slab, in order. `LogError` if there are none.

    A file that is empty or begins with zeros is a slab that a writer made and has not begun: left
    out.
    """
    try:
        if not path.is_dir():
            path.stat()
            return [path]
        found = [item for item in path.iterdir() if _SLAB_NAME.fullmatch(item.name)]
        begun = [item for item in found if _is_begun(item)]
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from error
    if not begun:
        raise LogError(f"{path}: not a run: it holds no slab (log_0000.mcap)")
    return sorted(begun, key=_slab_number)


def _is_begun(path: Path) -> bool:
    with path.open("rb") as file:
        return any(file.read(8))


def _slab_number(path: Path) -> int:
    match = _SLAB_NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def _decode(payload: memoryview, encoding: str, schema: str) -> dict[str, Any]:
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
    return {name: _array_or_value(value) for name, value in fields.items()}


def _array_or_value(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"dtype", "shape", "data"}:
        return np.frombuffer(value["data"], dtype=value["dtype"]).reshape(value["shape"])
    return value
