"""What a recorded run asked, about which picture, and what was answered.

All of it is read from the log: nothing of the run is executed, and no picture is decoded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.events import Set, unpack
from flowrun.runtime.log.message import Topic
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.shadows import shadows_of
from flowrun.runtime.log.slab.format import CODEC, CONTROL_TOPIC, crc32
from flowrun.runtime.log.values import decode
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.recorded.graph import graph_of
from flowrun.runtime.replay.values import plain
from flowrun.runtime.testbench.pairs import PictureAt
from flowrun.runtime.testbench.store import Store, key_of
from flowrun.runtime.wording import listed, nearest

__all__ = [
    "ANSWER",
    "DETECTIONS",
    "MOST_NUMBERS",
    "Asked",
    "Asking",
    "RecordedRun",
    "read_run",
    "read_runs",
]

ANSWER, DETECTIONS = "PromptResponseMsg", "DetectionsMsg"
MOST_NUMBERS = 1_000_000
"""Of an array of an answer, such as boxes."""


@dataclass(frozen=True, slots=True)
class Asking:
    """An output of a task that is about the pictures of one camera.

    task, port: the output. kind: `ANSWER` or `DETECTIONS`. type: the task's type, as the graph names
        it. camera: the task that gave the pictures. topic: where they are in the log.
    input: the task's input port that gets them.
    config: the task's own, as the graph has it; secrets are masked.
    """

    task: str
    port: str
    kind: str
    type: str
    camera: str
    topic: str
    input: str
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The task, and the camera where the task has several outputs."""
        return self.task if self.port in ("answer", "detections") else f"{self.task}.{self.port}"


@dataclass(frozen=True, slots=True)
class Asked:
    """A recorded answer, and what it is about.

    run: the place of its run in the list of runs. asking: the output that it came from.
    cycle: the cycle of the answer. time_ns: its time, in nanoseconds since 1970 UTC.
    picture: where the picture is. picture_key: a hash of what says which pixels it has; None where
        nobody knows without decoding it.
    live: values of the config that were set while the run went on, as they were then.
    answer: the recorded fields, plain.
    """

    run: int
    asking: Asking
    cycle: int
    time_ns: int
    picture: PictureAt
    picture_key: bytes | None
    live: Mapping[str, Any]
    answer: dict[str, Any]


@dataclass(slots=True)
class RecordedRun:
    """What a run asked.

    path: the run. name: its id. graph: the graph's name. folder: that of the graph file.
    begin_ns: time of the first cycle. without_picture: number of answers whose picture the log lacks.
    """

    path: Path
    name: str
    graph: str
    folder: Path
    begin_ns: int
    askings: list[Asking]
    asked: list[Asked] = field(default_factory=list)
    without_picture: int = 0


def read_runs(
    paths: Sequence[Path], *, tasks: Collection[str] = (), store: Store | None = None
) -> tuple[list[RecordedRun], list[str]]:
    """What the runs at `paths` asked; and a sentence on each that is left out, because it cannot be
    read, or has none of `tasks`. Raises what `read_run` raises for the first one where none is left.

    store: remembers what ended runs asked.
    """
    found: list[RecordedRun] = []
    notes: list[str] = []
    first: LogError | UsageError | None = None
    for path in paths:
        try:
            found.append(read_run(path, len(found), tasks=tasks, store=store))
        except (LogError, UsageError) as error:
            first = first or error
            text = str(error)
            notes.append(f"left out: {text if str(path) in text else f'{path}: {text}'}")
    if first is not None and not found:
        raise first
    return found, notes


def read_run(
    path: Path, number: int, *, tasks: Collection[str] = (), store: Store | None = None
) -> RecordedRun:
    """What the run at `path` asked, of those `tasks`, or of all. `LogError` if it cannot be read;
    `UsageError` if it has no such task.

    number: the place of the run in the list of runs.
    store: remembers it, by size and time of the files, once the run has ended and nothing of it is lost.
    """
    with Log(path) as log:
        askings = list(_askings(graph_of(log), log.topics, shadows_of(log)))
        for task in tasks:
            known = [it.task for it in askings]
            if task not in known:
                raise UsageError(
                    f"{path}: no task {task!r} that answers about pictures; there are: "
                    f"{listed(known) or 'none'}{nearest(task, known)}"
                )
        run = RecordedRun(
            path,
            log.metadata.get("run_id", path.name),
            log.metadata.get("graph", ""),
            Path(log.metadata.get("graph_path", "graph.yaml")).parent,
            log.start_ns or 0,
            [it for it in askings if not tasks or it.task in tasks],
        )
        run.without_picture, rows = _known(run, log, store)
    for place, cycle, time_ns, about, *rest in rows:
        asking = run.askings[place]
        run.asked.append(
            Asked(number, asking, cycle, time_ns, PictureAt(asking.topic, about), *rest)
        )
    return run


def _known(run: RecordedRun, log: Log, store: Store | None) -> list[Any]:
    """What `_read` gives, or gave before for the same files."""
    if store is None or not log.finished:
        return _read(run, log)
    files = []
    for slab in log.slabs:
        try:
            stat = slab.path.stat()
        except OSError:  # removed since it was opened; what is open can be read
            return _read(run, log)
        files.append([slab.path.name, stat.st_size, stat.st_mtime_ns, stat.st_ino])
    outputs = [[it.task, it.port] for it in run.askings]
    key = key_of("asked", 2, str(run.path.resolve()), files, outputs)
    known = store.get([key])
    if key not in known:
        known[key] = _read(run, log)
        if log.loss is None:
            store.put([(key, known[key])])
    found: list[Any] = known[key]
    return found


def _read(run: RecordedRun, log: Log) -> list[Any]:
    """The number of answers without a picture; and of each other the place of its `Asking`, cycle,
    time, cycle of the picture, and the last three fields of `Asked`: plain, so that they can be kept."""
    without_picture, rows = 0, []
    outputs = {(it.task, it.port): place for place, it in enumerate(run.askings)}
    topics = log.topics
    by_topic = {
        name: outputs[output]
        for name, channel in topics.items()
        if (output := (channel.metadata.get("task", ""), channel.metadata.get("port", "")))
        in outputs
    }
    pictures = {it.topic: topics[it.topic] for it in run.askings}
    at: dict[PictureAt, memoryview] = {}
    live = {it.task: [(-1, dict[str, Any]())] for it in run.askings}
    for cycle, time_ns, entries in log.cycles():
        for topic, _, payload in entries:
            if topic in pictures:
                at[PictureAt(topic, cycle)] = payload
            elif topic == CONTROL_TOPIC:
                _note_set(live, cycle, payload)
            elif topic in by_topic:
                asking = run.askings[by_topic[topic]]
                answer = _fields(topics[topic], payload)
                about = answer.get("frame_cycle")
                picture = PictureAt(asking.topic, about if isinstance(about, int) else cycle)
                if picture not in at:
                    without_picture += 1
                    continue
                key = _picture_key(at[picture], pictures[asking.topic])
                now = next(
                    it for since, it in reversed(live[asking.task]) if since <= picture.cycle
                )
                rows.append([by_topic[topic], cycle, time_ns, picture.cycle, key, now, answer])
    return [without_picture, rows]


def _note_set(live: dict[str, list[tuple[int, dict[str, Any]]]], cycle: int, payload: Any) -> None:
    try:
        event = unpack(msgpack.unpackb(payload))
    except (ValueError, TypeError):
        return
    if isinstance(event, Set) and event.task in live:
        live[event.task].append((cycle, live[event.task][-1][1] | event.values))


def _fields(topic: Topic, payload: memoryview) -> dict[str, Any]:
    try:
        fields = decode(payload, topic.message_encoding, topic.schema_name)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise LogError(f"{topic.name}: not {topic.message_encoding}: {error}") from error
    return plain(fields, most=MOST_NUMBERS) or {}


def _picture_key(payload: memoryview, topic: Topic) -> bytes | None:
    """A hash of what says which pixels a picture has, without decoding it: their CRC, or that of the
    decoder's planes and how they are converted, the size, and the time stamp, since a CRC of 32 bits
    alone would take one of 100,000 pictures for another."""
    if CODEC not in topic.metadata:
        return key_of("message", crc32(payload), len(payload))
    try:
        own = StoredPicture.parse(payload).own
    except ValueError:
        return None
    if "crc" not in own:
        return None
    names = ("crc", "size", "planes", "convert", "pts")
    return key_of("picture", *(own.get(name) for name in names))


def _askings(
    graph: Mapping[str, Any], topics: Mapping[str, Topic], shadows: Collection[str] = ()
) -> Iterator[Asking]:
    """The outputs that are about pictures: of tasks that get nothing else, and are none of the shadows,
    whose answers are no recorded truth."""
    specs = {task["id"]: task for task in graph["tasks"] if task["id"] not in shadows}
    pictures = {
        (it.metadata.get("task", ""), it.metadata.get("port", "")): it.name
        for it in topics.values()
        if it.is_picture
    }
    for topic in topics.values():
        task, port = topic.metadata.get("task", ""), topic.metadata.get("port", "")
        if topic.schema_name not in (ANSWER, DETECTIONS) or task not in specs:
            continue
        edges = [it for it in graph["cnx"] if it["dst"].partition(".")[0] == task]
        found = [(edge, _source(edge, pictures)) for edge in edges]
        if not found or any(source is None for _, source in found):
            continue
        named = [
            (edge, source)
            for edge, source in found
            if port.startswith(f"{edge['dst'].partition('.')[2]}_")
        ]
        edge, source = (named or found)[0]
        assert source is not None
        spec = specs[task]
        camera, topic_name = source
        yield Asking(
            task,
            port,
            topic.schema_name,
            spec["type"],
            camera,
            topic_name,
            edge["dst"].partition(".")[2],
            spec.get("config", {}),
        )


def _source(
    edge: Mapping[str, str], pictures: Mapping[tuple[str, str], str]
) -> tuple[str, str] | None:
    """The camera of a connection, and the topic of its pictures; None where it carries others, or they
    are not in the log."""
    task, _, port = edge["src"].partition(".")
    own = [(key, topic) for key, topic in pictures.items() if key[0] == task]
    for key, topic in own:
        if key[1] == port or (not port and len(own) == 1):
            return task, topic
    return None
