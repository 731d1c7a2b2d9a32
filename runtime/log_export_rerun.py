"""A log as a recording of Rerun (.rrd).

An entity a topic, on three timelines: `cycle`, `time` (of the cycle) and `tov` (the message's time of
validity: an answer stands there beside the picture that it is about).

    pictures            VideoStream, EncodedImage or Image; see `log_export_pictures`
    log lines           TextLog
    boxes and labels    Boxes2D
    prompt, response    TextLog, beside the fields
    step table          Scalars <topic>/cycle_ms: how long the cycle took
    keyframes           left out, unless selected by name
    fields of others    <topic>/<field>: Scalars of numbers and truth values, TextDocument of text,
                        Tensor of arrays of numbers; all else as JSON in a TextDocument
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flowrun.runtime.errors import LogError
from flowrun.runtime.log_export import ExportReport, Selection, plain_value
from flowrun.runtime.log_export_pictures import PIXELS, STREAMS, PictureExport, shown_topics
from flowrun.runtime.log_format import LOG_TOPIC, STEPS_TOPIC
from flowrun.runtime.log_foxglove import Boxes, label_color
from flowrun.runtime.log_message import LogMessage, Topic
from flowrun.runtime.log_reader import Log
from flowrun.runtime.log_table import import_optional

__all__ = ["export_rerun"]

_LEVELS = {"WARNING": "WARN", "FATAL": "CRITICAL", "UNKNOWN": "INFO"}
"""Rerun's names where they are others."""

_OF_BOXES = ("boxes", "labels", "scores", "class_ids")
"""Fields that the boxes show."""

Write = Callable[[LogMessage], None]


def export_rerun(log: Log, selection: Selection, path: Path) -> ExportReport:
    """Write the selected messages to `path`; needs the package rerun-sdk. The report counts the
    messages of the log that were written."""
    rerun = import_optional("rerun", "rerun", install="rerun-sdk")
    report = ExportReport()
    metadata = log.metadata
    recording = rerun.RecordingStream(
        f"flowrun_{metadata.get('graph', 'run')}",
        recording_id=metadata.get("run_id"),
        send_properties=False,
    )
    # When the export ran is of no interest.
    recording.set_log_time_enabled(False)
    recording.set_log_tick_enabled(False)
    recording.save(str(path))
    try:
        if log.start_ns is not None:
            recording.send_recording_start_time_nanos(log.start_ns)
        entities = _Entities(rerun, recording)
        topics = shown_topics(log, selection)
        ways = {
            topic.name: _way(log, topic, selection, entities, report)
            for topic in log.topics.values()
            if topic.name in topics
        }
        for message in selection.messages(log, *topics):
            try:
                ways[message.topic](message)
                report.count += 1
            except LogError:
                report.unreadable += 1
    finally:
        recording.flush()
        recording.disconnect()
    return report


class _Entities:
    """Logs what an entity shows at a message's times."""

    def __init__(self, rerun: Any, recording: Any) -> None:
        self.rerun, self._recording = rerun, recording

    def at(self, message: LogMessage, times: tuple[int, int] | None = None) -> None:
        """The times of what is put from now on."""
        time_ns, tov_ns = times or (message.time_ns, message.tov_ns)
        self._recording.set_time("cycle", sequence=message.cycle)
        self._recording.set_time("time", timestamp=np.datetime64(time_ns, "ns"))
        self._recording.set_time("tov", timestamp=np.datetime64(tov_ns, "ns"))

    def put(self, entity: str, shown: Any, *, static: bool = False) -> None:
        self._recording.log(entity, shown, static=static, strict=True)

    def value(self, entity: str, value: Any) -> None:
        """A field by its kind."""
        rerun = self.rerun
        if value is None:
            return
        if isinstance(value, (bool, int, float)):
            self.put(entity, rerun.Scalars(float(value)))
        elif isinstance(value, str):
            self.put(entity, rerun.TextDocument(value))
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.ndim:
            self.put(entity, rerun.Tensor(value))
        else:
            text = json.dumps(plain_value(value, data=True), ensure_ascii=False)
            self.put(entity, rerun.TextDocument(text))


def _way(
    log: Log, topic: Topic, selection: Selection, entities: _Entities, report: ExportReport
) -> Write:
    """What writes the messages of `topic`."""
    if topic.is_picture:
        return _pictures(log, topic, selection, entities, report)
    rerun, entity = entities.rerun, topic.name

    def log_line(message: LogMessage) -> None:
        line = message.fields
        entities.at(message, (message.time_ns, line["time_ns"]))
        level = _LEVELS.get(line["level"], line["level"])
        more = "".join(f" {name}={value!r}" for name, value in line["fields"].items())
        entities.put(entity, rerun.TextLog(f"{line['name']}: {line['message']}{more}", level=level))

    def steps(message: LogMessage) -> None:
        ticks = np.frombuffer(message.fields["ticks_ns"], "<u8")
        entities.at(message)
        entities.put(f"{entity}/cycle_ms", rerun.Scalars(float(ticks[-1] - ticks[0]) / 1e6))

    def values(message: LogMessage) -> None:
        fields = message.fields
        entities.at(message)
        found = Boxes.of(fields)
        if found is not None:
            entities.put(entity, _boxes(rerun, found))
        if {"prompt", "response"} <= fields.keys():
            entities.put(entity, rerun.TextLog(f"{fields['prompt']}: {fields['response']}"))
        for name, value in fields.items():
            if found is None or name not in _OF_BOXES:
                entities.value(f"{entity}/{name}", value)

    return log_line if entity == LOG_TOPIC else steps if entity == STEPS_TOPIC else values


def _boxes(rerun: Any, found: Boxes) -> Any:
    return rerun.Boxes2D(
        array=found.boxes,
        array_format=rerun.Box2DFormat.XYXY,
        labels=found.texts,
        colors=[tuple(round(255 * part) for part in label_color(it)) for it in found.labels],
    )


def _pictures(
    log: Log, topic: Topic, selection: Selection, entities: _Entities, report: ExportReport
) -> Write:
    rerun, entity = entities.rerun, topic.name
    pictures = PictureExport(log, entity, selection)
    if pictures.note:
        report.notes.append(pictures.note)
    form = pictures.form
    if form in STREAMS:
        codec = getattr(rerun.VideoCodec, form.upper())
        entities.put(entity, rerun.VideoStream(codec=codec), static=True)

    def add(message: LogMessage) -> None:
        for shown in pictures.shown(message):
            entities.at(message, (shown.time_ns, shown.tov_ns))
            if form == PIXELS:
                entities.put(entity, rerun.Image(shown.pixels, color_model="RGB"))
            elif form in STREAMS:
                entities.put(entity, rerun.VideoStream.from_fields(sample=bytes(shown.data)))
            else:
                picture = rerun.EncodedImage(contents=bytes(shown.data), media_type="image/jpeg")
                entities.put(entity, picture)

    return add
