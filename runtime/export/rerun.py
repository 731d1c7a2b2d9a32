"""A log as a recording of Rerun (.rrd).

An entity a topic, on three timelines: `cycle`, `time` (of the cycle) and `tov` (the message's time of
validity: an answer is there next to the picture that it is about). What the viewer shows at first:
`log_rerun_view`. The run's metadata are properties of the recording.

    pictures            VideoStream, EncodedImage or Image; see `export.pictures`
    log lines           TextLog; `tov` is when they were written, at least the first cycle's time
    control messages    TextLog, in words; background results and what was left out at level TRACE
    boxes and labels    Boxes2D
    zones, lines        LineStrips2D
    prompt, response    TextLog, besides the fields
    step table          Scalars <topic>/cycle_ms: how long the cycle took
    keyframes           left out, unless selected by name
    fields of others    <topic>/<field>: Scalars of numbers and truth values, TextDocument of text,
                        Tensor of arrays of numbers; all else as JSON in a TextDocument
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flowrun.runtime.errors import LogError
from flowrun.runtime.export.foxglove_messages import Boxes, Regions, label_color
from flowrun.runtime.export.pictures import (
    PIXELS,
    STREAMS,
    PictureExport,
    Stretches,
    shown_topics,
)
from flowrun.runtime.export.rerun_view import View, blueprint
from flowrun.runtime.export.selection import ExportReport, Selection
from flowrun.runtime.export.sources import Moment
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.message import LogMessage, Topic
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CONTROL_TOPIC, LOG_TOPIC, STEPS_TOPIC
from flowrun.runtime.log.values import line_text, plain_value

__all__ = ["Entities", "RerunRecording", "control_line", "export_rerun"]

_LEVELS = {"WARNING": "WARN", "FATAL": "CRITICAL", "UNKNOWN": "INFO"}
"""Rerun's names where they are others."""

_OF_BOXES = ("boxes", "labels", "scores", "class_ids")
"""Fields that the boxes show."""

Write = Callable[[LogMessage], None]


def export_rerun(log: Log, selection: Selection, path: Path) -> ExportReport:
    """Write the selected messages to `path`; needs the package rerun-sdk. The report counts the
    messages of the log that were written."""
    recording = RerunRecording(log, selection, "an export to rerun")
    recording.stream.save(str(path))
    try:
        for message in recording.messages():
            recording.write(message)
        recording.arrange()
    finally:
        try:
            recording.stream.flush()
        except Exception as error:  # the SDK's own, of several kinds
            raise LogError(f"{path}: cannot be written: {error}") from error
        finally:
            recording.stream.disconnect()
    return recording.report


class RerunRecording:
    """The selected messages of a log as a recording of Rerun; needs the package rerun-sdk.

    what: what needs it, as the user called it.
    stream: the `rerun.RecordingStream`; the caller says where it goes before anything is written.
    """

    def __init__(self, log: Log, selection: Selection, what: str) -> None:
        rerun = import_optional("rerun", what, extra="rerun", install="rerun-sdk")
        self._log, self._selection, self.report = log, selection, ExportReport()
        metadata = log.metadata
        self.stream = rerun.RecordingStream(
            f"flowrun_{metadata.get('graph', 'run')}",
            recording_id=metadata.get("run_id"),
            send_properties=False,
        )
        # When the export ran is of no interest.
        self.stream.set_log_time_enabled(False)
        self.stream.set_log_tick_enabled(False)
        self._entities = Entities(rerun, self.stream)
        self._ways: dict[str, Write] = {}
        self._graph = log.attachments.get("graph.json", b"")

    def messages(self, start: int | None = None) -> Iterator[LogMessage]:
        """What there is to write, of the cycles from `start` on; before the first call of `write`."""
        log, topics = self._log, shown_topics(self._log, self._selection)
        if not self._ways:
            if log.start_ns is not None:
                self.stream.send_recording_start_time_nanos(log.start_ns)
            self.stream.send_property("flowrun", self._entities.rerun.AnyValues(**log.metadata))
            stretches = Stretches(self._graph)
            self._ways = {
                topic.name: _way(
                    log, topic, self._selection, self._entities, stretches, self.report
                )
                for topic in log.topics.values()
                if topic.name in topics
            }
        if start is None:
            return self._selection.messages(log, *topics)
        return log.messages(topics, start)

    def write(self, message: LogMessage) -> None:
        """Write one of `messages`; one that cannot be decoded is left out, and reported."""
        try:
            self._ways[message.topic](message)
            self.report.count += 1
        except LogError as error:
            self.report.leave_out(error)

    def arrange(self) -> None:
        """Say how what was written is shown, if that has changed."""
        self._entities.arrange(self._graph)


class Entities:
    """Logs what an entity shows at a message's times, and keeps account of it."""

    def __init__(self, rerun: Any, recording: Any) -> None:
        self.rerun, self._recording = rerun, recording
        self.view = View()
        self._arranged: tuple[int, ...] = ()

    def arrange(self, graph: bytes) -> None:
        """Say how what was logged is shown, if that has changed. graph: see `blueprint`."""
        view = self.view
        size = (
            *map(len, (view.pictures, view.boxes, view.answers, view.lines)),
            *map(len, view.numbers.values()),
        )
        if size == self._arranged:
            return
        self._arranged = size
        shown = blueprint(self.rerun, view, graph)
        if shown is not None:
            self._recording.send_blueprint(shown)

    def at(self, message: Moment, times: tuple[int, int] | None = None) -> None:
        """The times of what is put from now on."""
        time_ns, tov_ns = times or (message.time_ns, message.tov_ns)
        self._recording.set_time("cycle", sequence=message.cycle)
        self._recording.set_time("time", timestamp=np.datetime64(time_ns, "ns"))
        self._recording.set_time("tov", timestamp=np.datetime64(tov_ns, "ns"))

    def put(self, entity: str, shown: Any, *, static: bool = False) -> None:
        self._recording.log(entity, shown, static=static, strict=True)

    def line(self, entity: str, text: str, level: str) -> None:
        self.view.saw_line(entity)
        self.put(entity, self.rerun.TextLog(text, level=level))

    def values(self, topic: str, fields: dict[str, Any], stretches: Stretches) -> None:
        """The fields of a message that is no picture; also what they show together.

        stretches: where the boxes are in their pictures.
        """
        rerun, found, regions = self.rerun, Boxes.of(fields), Regions.of(fields)
        if found is not None:
            self.view.saw_boxes(topic)
            self.put(topic, _boxes(rerun, found.stretched(*stretches.of(topic))))
        if regions is not None:
            self.view.saw_boxes(topic)
            self.put(topic, _strips(rerun, regions.stretched(*stretches.of(topic))))
        if {"prompt", "response"} <= fields.keys():
            self.view.saw_answer(topic)
            text = f"{fields['prompt']}: {fields['response']}"
            self.put(topic, rerun.TextLog(text, level="INFO"))
        for name, value in fields.items():
            if found is None or name not in _OF_BOXES:
                self.value(topic, name, value)

    def jpeg(self, topic: str, data: bytes) -> None:
        """A picture as a JPEG."""
        self.view.saw_picture(topic)
        self.put(topic, self.rerun.EncodedImage(contents=data, media_type="image/jpeg"))

    def value(self, topic: str, name: str, value: Any) -> None:
        """A field by its kind."""
        rerun, entity = self.rerun, f"{topic}/{name}"
        if value is None:
            return
        if isinstance(value, (bool, int, float)):
            self.view.saw_number(topic, name)
            self.put(entity, rerun.Scalars(float(value)))
        elif isinstance(value, str):
            self.put(entity, rerun.TextDocument(value))
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.ndim:
            self.put(entity, rerun.Tensor(value))
        else:
            text = json.dumps(plain_value(value, data=True), ensure_ascii=False)
            self.put(entity, rerun.TextDocument(text))


def _way(
    log: Log,
    topic: Topic,
    selection: Selection,
    entities: Entities,
    stretches: Stretches,
    report: ExportReport,
) -> Write:
    """What writes the messages of `topic`."""
    if topic.is_picture:
        return _pictures(log, topic, selection, entities, stretches, report)
    entity = topic.name

    def log_line(message: LogMessage) -> None:
        line = message.fields
        # What was said before the first cycle would make `tov` begin with seconds of nothing.
        entities.at(message, (message.time_ns, max(line["time_ns"], log.start_ns or 0)))
        level = _LEVELS.get(line["level"], line["level"])
        entities.line(entity, f"{line['name']}: {line_text(line)}", level)

    def control(message: LogMessage) -> None:
        entities.at(message)
        entities.line(entity, *control_line(message.fields))

    def steps(message: LogMessage) -> None:
        ticks = np.frombuffer(message.fields["ticks_ns"], "<u8")
        entities.at(message)
        entities.value(entity, "cycle_ms", float(ticks[-1] - ticks[0]) / 1e6)

    def values(message: LogMessage) -> None:
        entities.at(message)
        entities.values(entity, message.fields, stretches)

    own: dict[str, Write] = {LOG_TOPIC: log_line, CONTROL_TOPIC: control, STEPS_TOPIC: steps}
    return own.get(entity, values)


def control_line(control: dict[str, Any]) -> tuple[str, str]:
    """A control message as a line of the log: its text and its level."""
    kind, task, value = control["kind"], control["task"], control["value"]
    if kind == "set" and isinstance(value, dict):
        return f"{task}: set" + "".join(f" {key}={it!r}" for key, it in value.items()), "INFO"
    if kind == "injected":
        return f"{task}: somebody published on {control['key']}", "INFO"
    if kind == "error":
        return f"{task}: error (on_error: {control['key']}): {value}", "ERROR"
    if kind == "restart":
        return f"{task}: restarted", "WARN"
    if kind == "end_of_source":
        return f"{task}: end of source", "INFO"
    if kind == "switched":
        return f"{task}: {control['key']}, as somebody asked", "INFO"
    if kind == "dropped":
        cause = f" ({control['key']})" if control["key"] else ""
        return f"{task}: dropped {value}{cause}", "TRACE"
    if kind == "source_state":
        code = f" ({value})" if value else ""
        return f"{task}: {control['key']}{code}", "WARN" if value else "INFO"
    if kind == "completion":
        return f"{task}: result of cycle {control['input_cycle']}", "TRACE"
    if kind == "replaced":
        return f"{task}: cycle {control['input_cycle']} gave way to a newer one", "TRACE"
    more = "" if value is None else f" {value!r}"
    return f"{task}: {kind}{more}", "INFO"


def _boxes(rerun: Any, found: Boxes) -> Any:
    return rerun.Boxes2D(
        array=found.boxes,
        array_format=rerun.Box2DFormat.XYXY,
        labels=found.texts,
        colors=_colors(found.labels),
    )


def _strips(rerun: Any, found: Regions) -> Any:
    strips = [np.vstack([it, it[:1]]) if found.is_closed else it for it in found.outlines]
    return rerun.LineStrips2D(strips, labels=found.texts, colors=_colors(found.labels))


def _colors(labels: list[str]) -> list[tuple[int, ...]]:
    return [tuple(round(255 * part) for part in label_color(it)) for it in labels]


def _pictures(
    log: Log,
    topic: Topic,
    selection: Selection,
    entities: Entities,
    stretches: Stretches,
    report: ExportReport,
) -> Write:
    rerun, entity = entities.rerun, topic.name
    pictures = PictureExport(log, entity, selection)
    stretches.add(entity, pictures)
    if pictures.note:
        report.notes.append(pictures.note)
    form = pictures.form
    if form in STREAMS:
        codec = getattr(rerun.VideoCodec, form.upper())
        entities.put(entity, rerun.VideoStream(codec=codec), static=True)

    def add(message: LogMessage) -> None:
        for shown in pictures.shown(message):
            entities.at(message, (shown.time_ns, shown.tov_ns))
            entities.view.saw_picture(entity)
            if form == PIXELS:
                entities.put(entity, rerun.Image(shown.pixels, color_model="RGB"))
            elif form in STREAMS:
                entities.put(entity, rerun.VideoStream.from_fields(sample=bytes(shown.data)))
            else:
                entities.jpeg(entity, bytes(shown.data))

    return add
