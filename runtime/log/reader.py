"""A run's log, read: finished or not, after a crash, while it is written, without the application.

with Log("runs/inference-20260105T101500Z") as log:
    for message in log.messages("/vlm/answer"):
        print(message.cycle, message.fields["response"])
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Collection, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from flowrun.msgs.display import html_fields, html_table
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import LogNotFound
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.files import LogFiles, slab_paths
from flowrun.runtime.log.message import (
    Bounds,
    Frame,
    LateLines,
    LoggedCycle,
    LogMessage,
    Range,
    Topic,
)
from flowrun.runtime.log.scan import follow, scan
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.cycles import Entry
from flowrun.runtime.log.slab.format import CODEC, CYCLE, STARTED_NS, STEP_TASKS, STEPS_TOPIC
from flowrun.runtime.log.slab.reader import SlabReader
from flowrun.runtime.log.table import Table, arrow_table, make_table, timings_table
from flowrun.runtime.log.topic import LogTopic, topic_named
from flowrun.runtime.wording import listed, nearest

if TYPE_CHECKING:  # loaded when the first picture is decoded
    from flowrun.runtime.pictures.decode import Passed, PictureDecoder

__all__ = [
    "Bounds",
    "Frame",
    "Log",
    "LogMessage",
    "LogTopic",
    "LoggedCycle",
    "Table",
    "Topic",
    "slab_paths",
]


class Log:
    """A run directory, or one .mcap file of it.

    verify: check the crc of each cycle as it is read.
    follow: iterating (also `cycles`, `messages` and `frames`) waits for what a live run adds, until
        it ends or its writer dies. All else sees what is there at the call, and waits for nothing.
    timeout_s: seconds without anything new after which following ends; None waits for ever.
    stopped: ends following, on whichever thread that waits, when it is set; None: nobody sets it.

    Damaged bytes never give a message: reading ends before them, goes on with the
    next slab, and `loss` says what is missing. `LogError` is raised where nothing can be read at
    all. Without `follow`, a log that is being written is read up to its last committed cycle; open
    it again to see what has come in sections written since.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        verify: bool = True,
        follow: bool = False,
        timeout_s: float | None = None,
        stopped: threading.Event | None = None,
    ) -> None:
        self.path = Path(path)
        self.verify = verify
        self.follow = follow
        self.timeout_s = timeout_s
        self._stopped = stopped or threading.Event()
        self._files = LogFiles(self.path, verify=verify)
        self._slabs = self._files.slabs
        self._cycle_count: int | None = None
        self._decoders: dict[str, PictureDecoder] = {}
        self._passed: Passed | None = None
        self._codecs = {
            channel.topic: channel.metadata[CODEC]
            for channel in self._slabs[0].preamble.channels.values()
            if CODEC in channel.metadata
        }

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
        """Give the files back. Payloads that are still held stay valid; what is known without
        reading, as topics and metadata, is still known, and reading raises `LogError`."""
        self._files.close()

    def refresh(self) -> None:
        """See what a writer has added since the log was opened, or refreshed: `slabs` may be other
        objects afterwards. `LogError` where the run's directory cannot be read any more."""
        self._files.check_open()
        self._files.refresh()

    @property
    def is_written(self) -> bool:
        """Whether a writer is at work. `LogError` if that cannot be known."""
        return self.end is None and self._files.writer_lives()

    # -- what the log says of itself -----------------------------------------------------------

    @property
    def topics(self) -> dict[str, Topic]:
        """Every topic of the run, by name, also those without a message."""
        first = self._slabs[0].preamble
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
        return dict(self._slabs[0].preamble.metadata)

    @property
    def attachments(self) -> dict[str, bytes]:
        """Name -> contents; "graph.yaml" is the graph file that ran."""
        return {name: item.data for name, item in self._slabs[0].preamble.attachments.items()}

    @property
    def slabs(self) -> tuple[SlabReader, ...]:
        """The files, in order."""
        return tuple(self._slabs)

    @property
    def finished(self) -> bool:
        """Whether the run ended in order, or was recovered."""
        return self.end is not None and all(slab.structure.finished for slab in self._slabs)

    @property
    def end(self) -> dict[str, str] | None:
        """How the run ended: reason, cycles, ended_ns, error. None while it has not."""
        return self._slabs[-1].structure.end

    @property
    def loss(self) -> str | None:
        """What could not be read, as far as was found until now: file, byte and why. None: nothing.

        Damage inside a chunk is found when it is read; iterate over all cycles to find all.
        """
        self._files.note_cuts()
        return "; ".join(self._files.losses.values()) or None

    @property
    def start_ns(self) -> int | None:
        """Time of the first cycle; None without one."""
        self._files.check_open()
        for slab in self._slabs:
            for index in range(len(slab.structure.chunks)):
                try:
                    for head in slab.cycles.heads(index):
                        if head.opcode == CYCLE:
                            return head.time_ns
                except Damage as damage:
                    self._files.lose(slab, damage)
                    break
        return None

    @property
    def end_ns(self) -> int | None:
        """Time of the last cycle; None without one."""
        self._files.check_open()
        for slab in reversed(self._slabs):
            for index in reversed(range(len(slab.structure.chunks))):
                last = None
                try:
                    for head in slab.cycles.heads(index):
                        last = head if head.opcode == CYCLE else last
                except Damage as damage:
                    self._files.lose(slab, damage)
                if last is not None:
                    return last.time_ns
        return None

    def __len__(self) -> int:
        """Number of cycles. Walks over them, without checking them, and remembers the answer."""
        if self._cycle_count is None or not self.finished:
            self._files.check_open()
            count = 0
            for slab in self._slabs:
                try:
                    for index in range(len(slab.structure.chunks)):
                        for head in slab.cycles.heads(index):
                            count += head.opcode == CYCLE
                except Damage as damage:
                    self._files.lose(slab, damage)
            self._cycle_count = count
        return self._cycle_count

    def __bool__(self) -> bool:
        return True

    # -- reading -------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[LoggedCycle]:
        return self.cycles()

    @overload
    def __getitem__(self, cycle: int) -> LoggedCycle: ...
    @overload
    def __getitem__(self, cycle: str) -> LogTopic: ...
    def __getitem__(self, cycle: int | str) -> LoggedCycle | LogTopic:
        """The cycle of a number, of which a negative one counts from the last cycle; of a text, such as
        "/inference/answer" or "inference.answer", the messages of that topic. `LogNotFound` if the log
        does not hold it, `TypeError` if it is neither.
        """
        if isinstance(cycle, str):
            return topic_named(self, cycle)
        try:
            number = operator.index(cycle)
        except TypeError:
            raise TypeError(
                f"log[{cycle!r}]: a cycle is found by its number; for a range: log.cycles(start, end)"
            ) from None
        if number < 0:
            number += 1 + max((record.cycle for record in self.cycles()), default=-1)
        for _, record in self._present(Range(number, number + 1)):
            if not isinstance(record, LateLines):
                return record
        raise LogNotFound(f"{self.path}: cycle {cycle} is not in the log")

    def cycles(
        self,
        start: int | None = None,
        end: int | None = None,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[LoggedCycle]:
        """The cycles with start <= cycle < end and start_ns <= time < end_ns, in order."""
        for record in self.records(start, end, start_ns=start_ns, end_ns=end_ns):
            if not isinstance(record, LateLines):
                yield record

    def records(
        self,
        start: int | None = None,
        end: int | None = None,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[LoggedCycle]:
        """`cycles`, and the log lines that belong to none of them, as `LateLines`."""
        for _, record in self._records(Range(start, end, start_ns, end_ns)):
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
        """The messages of one, several or all topics; bounds as in `cycles`. Among them are the log
        lines that came after the last cycle.

        `LogNotFound` for a topic that the log does not have.
        """
        wanted = [topic] if isinstance(topic, str) else topic
        if wanted is not None:
            self._check_topics(wanted)
            wanted = frozenset(wanted)
        return self._messages(wanted, self._records(Range(start, end, start_ns, end_ns)))

    def frames(
        self,
        topic: str,
        start: int | None = None,
        end: int | None = None,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Iterator[Frame]:
        """The pictures of `topic`; bounds as in `cycles`. `LogNotFound` if it holds no pictures."""
        messages = self.messages(topic, start, end, start_ns=start_ns, end_ns=end_ns)
        found = self.topics[topic]
        if not found.is_picture:
            pictures = [name for name, item in self.topics.items() if item.is_picture]
            raise LogNotFound(
                f"{self.path}: {topic}: holds {found.schema_name}, no pictures; "
                f"topics with pictures: {listed(pictures)}"
            )
        return (Frame(it.cycle, it.tov_ns, it.fields["pixels"]) for it in messages)

    def table(
        self,
        topic: str,
        start: int | None = None,
        end: int | None = None,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Table:
        """The messages of `topic` as columns: cycle, time_ns, tov_ns and each scalar field.

        Arrays, lists and maps are left out; `table.left_out` names them. Bounds as in `cycles`.
        """
        self._check_topics([topic])
        found = self._messages((topic,), self._present(Range(start, end, start_ns, end_ns)))
        return make_table(found, self.topics[topic])

    def timings(self, **bounds: Unpack[Bounds]) -> Table:
        """How long the steps of each cycle took, in milliseconds: columns cycle, time_ns, cycle_ms, and
        `<task>_ms` for each task, in the order in which they ran. A task that did not run took nearly
        nothing; of one with `background: true` it is the time to hand over its inputs. Where the log
        does not name the tasks, their steps have numbers. Bounds as in `cycles`.
        """
        found = self._messages((STEPS_TOPIC,), self._present(Range(**bounds)))
        return timings_table(found, self.metadata.get(STEP_TASKS, "").split())

    def to_pandas(self, topic: str, **bounds: Unpack[Bounds]) -> Any:
        """`table` as a `pandas.DataFrame`; needs the package pandas."""
        pandas = import_optional("pandas", "Log.to_pandas", extra="tables")
        return pandas.DataFrame(self.table(topic, **bounds))

    def to_arrow(self, topic: str, **bounds: Unpack[Bounds]) -> Any:
        """`table` as a `pyarrow.Table`; needs the package pyarrow."""
        pyarrow = import_optional("pyarrow", "Log.to_arrow", extra="tables")
        return arrow_table(self.table(topic, **bounds), pyarrow)

    def message(self, cycle: LoggedCycle, entry: Entry) -> LogMessage:
        """One of the `entries` of a cycle, as `messages` gives it."""
        topic, tov_ns, payload = entry
        slab = self._slabs[0]
        return LogMessage(
            slab, topic, cycle.cycle, cycle.time_ns, tov_ns, payload, self._decoder_of
        )

    def raw_payload(self, cycle: LoggedCycle, entry: Entry) -> memoryview:
        """The payload of one of the `entries` of a cycle as a message class decodes it: of a picture
        that a codec stored, the bytes of its `ImageRgb8Msg`, decoded. `LogError` where they are not
        those that were recorded."""
        topic, tov_ns, payload = entry
        if topic not in self._codecs:
            return payload
        picture = ImageRgb8Msg(**self.message(cycle, entry).fields)
        picture.publish(tov_ns=tov_ns)
        return memoryview(b"".join(picture.encode()))

    def __repr__(self) -> str:
        return f"Log({str(self.path)!r})"

    def _repr_html_(self) -> str:
        end = self.end or {}
        shown = {
            "graph": self.metadata.get("graph_path", ""),
            "started": _date(int(self.metadata.get(STARTED_NS, 0))),
            "ended": "not yet, or it was cut off" if self.end is None else end.get("reason", ""),
            "cycles": end.get("cycles", ""),
            "error": end.get("error", ""),
            "loss": self.loss or "",
        }
        fields = {name: value for name, value in shown.items() if value}
        rows = [(it.name, it.schema_name) for it in self.topics.values()]
        title = self.metadata.get("run_id", self.path.name)
        return html_fields(title, fields) + html_table("", ["topic", "message"], rows)

    def _decoder_of(self, topic: str) -> PictureDecoder:
        """The decoder of a topic's pictures: it goes on from the one it was last asked for."""
        from flowrun.runtime.pictures.decode import Passed, PictureDecoder

        if self._passed is None:
            self._passed = Passed()
        if topic not in self._decoders:
            self._decoders[topic] = PictureDecoder(
                partial(self._stored, topic), ahead=not self.follow, passed=self._passed
            )
        return self._decoders[topic]

    def _stored(self, topic: str, start: int) -> Iterator[tuple[int, memoryview]]:
        for message in self._messages((topic,), self._present(Range(start))):
            yield message.cycle, message.payload

    def _messages(
        self, wanted: Collection[str] | None, records: Iterator[tuple[SlabReader, LoggedCycle]]
    ) -> Iterator[LogMessage]:
        decoders = self._decoder_of
        for slab, (cycle, time_ns, entries) in records:
            for topic, tov_ns, payload in entries:
                if wanted is None or topic in wanted:
                    yield LogMessage(slab, topic, cycle, time_ns, tov_ns, payload, decoders)

    def _check_topics(self, wanted: Collection[str]) -> None:
        known = list(self.topics)
        for name in wanted:
            if name not in known:
                raise LogNotFound(
                    f"{self.path}: no topic {name!r}; topics: {listed(known)}{nearest(name, known)}"
                )

    def _records(self, wanted: Range) -> Iterator[tuple[SlabReader, LoggedCycle]]:
        self._files.check_open()
        if self.follow:
            return follow(self._files, wanted, timeout_s=self.timeout_s, stopped=self._stopped)
        return scan(self._files, wanted)

    def _present(self, wanted: Range) -> Iterator[tuple[SlabReader, LoggedCycle]]:
        """What is there now, also of a log that is followed."""
        self._files.check_open()
        if self.follow:
            self._files.refresh()
        return scan(self._files, wanted)


def _date(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9).astimezone().isoformat(" ", "seconds")
