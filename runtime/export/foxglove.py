"""A log as an MCAP file of Foxglove's schemas, which Foxglove and Rerun show without knowing flowrun.

Pictures: `foxglove.CompressedVideo`, one message a packet, `CompressedImage` or `RawImage`; see
`export.pictures`. Packets of pictures that were dropped on the way to the log are messages too, as
others are decoded from them, at times between those of the pictures around them; what comes before
of the first picture comes 1 us apart right before it.
Log lines: `foxglove.Log`, as in the run, but for the message's text, which has the other fields too:
viewers show no more than it. All other messages: JSON, with the JSON Schema of their class;
bytes are base64, an array is {dtype, shape, data}. In addition:

    <topic>/annotations  foxglove.ImageAnnotations, of messages with boxes and labels, zones, or lines;
                         their time is that of the picture, by which Foxglove finds it; Rerun shows none
    <topic>/log          foxglove.Log, of messages with a prompt and a response

What the tasks remembered (/flowrun/keyframe) is left out unless it is selected by name.
log_time is the cycle's time, publish_time and the messages' `timestamp` their time of validity;
sequence is the cycle's number, mod 2**32.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from flowrun.runtime.errors import LogError
from flowrun.runtime.export import foxglove_messages as foxglove
from flowrun.runtime.export.mcap import open_writer, write_end, write_front
from flowrun.runtime.export.pictures import (
    PIXELS,
    STREAMS,
    PictureExport,
    Shown,
    Stretches,
    shown_topics,
)
from flowrun.runtime.export.selection import ExportReport, Selection
from flowrun.runtime.export.sources import Moment
from flowrun.runtime.log.lines import LOG_SCHEMA, LOG_SCHEMA_NAME, pack_log
from flowrun.runtime.log.message import LogMessage, Topic
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CODEC, LOG_TOPIC
from flowrun.runtime.log.values import line_text, plain_value

__all__ = [
    "Channels",
    "FoxgloveChannels",
    "Message",
    "Put",
    "Sink",
    "export_foxglove",
    "value_writer",
]

Write = Callable[[LogMessage], None]

Put = Callable[[bytes, int, int, int], None]
"""Takes what a channel gets: bytes, the cycle's time, their time of validity, the cycle's number."""


_DRAWN = (("boxes", "labels"), ("names", *foxglove.OF_ZONES), ("names", *foxglove.OF_LINES))
"""Fields of messages that are drawn over a picture."""


class Sink(Protocol):
    """Where channels go: a file, or viewers that are connected."""

    def channel(
        self, name: str, encoding: str, schema: tuple[str, str, bytes], metadata: dict[str, str]
    ) -> Put:
        """A new channel. schema: its name, encoding and data; all empty if it has none."""
        ...


def export_foxglove(log: Log, selection: Selection, path: Path) -> ExportReport:
    """Write the selected messages to `path`; needs the package mcap. The report counts the messages
    that were written, of which a picture may have several."""
    report = ExportReport()
    with path.open("wb") as file:
        writer = open_writer(file, "foxglove")
        write_front(writer, log)
        shown = FoxgloveChannels(log, selection, _McapSink(writer), report)
        for message in selection.messages(log, *shown.topics):
            shown.write(message)
        write_end(writer, log)
    return report


class FoxgloveChannels:
    """The channels of the selected topics of a log, in a sink."""

    def __init__(self, log: Log, selection: Selection, sink: Sink, report: ExportReport) -> None:
        self.topics = shown_topics(log, selection)
        self._report = report
        channels = Channels(sink, report)
        stretches = Stretches(log.attachments.get("graph.json", b""))
        self._ways = {
            topic.name: _way(log, topic, selection, channels, stretches, report)
            for topic in log.topics.values()
            if topic.name in self.topics
        }
        self._stretches = stretches

    def write(self, message: LogMessage) -> None:
        """Give the sink a message of `topics`; one that cannot be decoded is left out, and reported."""
        try:
            self._ways[message.topic](message)
        except LogError as error:
            self._report.leave_out(error)

    def begin_again(self) -> None:
        """The next message of each topic need not be the one after the last that was written."""
        self._stretches.begin_again()


class _McapSink:
    """A file, by the package mcap."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._schemas: dict[tuple[str, str, bytes], int] = {}

    def channel(
        self, name: str, encoding: str, schema: tuple[str, str, bytes], metadata: dict[str, str]
    ) -> Put:
        if any(schema) and schema not in self._schemas:
            self._schemas[schema] = self._writer.register_schema(*schema)
        channel = self._writer.register_channel(
            topic=name,
            message_encoding=encoding,
            schema_id=self._schemas.get(schema, 0),
            metadata=metadata,
        )

        def put(data: bytes, time_ns: int, tov_ns: int, cycle: int) -> None:
            self._writer.add_message(
                channel_id=channel,
                log_time=time_ns,
                publish_time=tov_ns,
                sequence=cycle & 0xFFFFFFFF,
                data=data,
            )

        return put


class Message(Moment, Protocol):
    """A message: of a log, or of a run that goes on."""

    @property
    def fields(self) -> dict[str, Any]: ...


class Channels:
    """Adds channels to the sink, and counts their messages."""

    def __init__(self, sink: Sink, report: ExportReport) -> None:
        self._sink, self._report = sink, report

    def add(
        self, name: str, encoding: str, schema: tuple[str, str, bytes], topic: Topic
    ) -> Callable[..., None]:
        """A new channel; what is returned writes one of its messages."""
        metadata = {key: value for key, value in topic.metadata.items() if key != CODEC}
        put = self._sink.channel(name, encoding, schema, metadata)

        def write(message: Moment, data: bytes, times: tuple[int, int] | None = None) -> None:
            put(data, *(times or (message.time_ns, message.tov_ns)), message.cycle)
            self._report.count += 1

        return write


def _way(
    log: Log,
    topic: Topic,
    selection: Selection,
    channels: Channels,
    stretches: Stretches,
    report: ExportReport,
) -> Write:
    """What writes the messages of `topic`."""
    if topic.is_picture:
        return _pictures(log, topic, selection, channels, stretches, report)
    if topic.message_encoding == "msgpack":
        return value_writer(topic, channels, stretches)
    if not topic.message_encoding:  # a topic of which the log keeps no payloads
        write = channels.add(topic.name, "json", ("", "", b""), topic)
        return lambda message: write(message, b"{}")
    schema = (topic.schema_name, topic.schema_encoding, topic.schema)
    write = channels.add(topic.name, topic.message_encoding, schema, topic)
    if topic.name == LOG_TOPIC:
        return lambda message: write(message, _log_line(message.fields))
    return lambda message: write(message, bytes(message.payload))


def _log_line(line: dict[str, Any]) -> bytes:
    return pack_log(line["time_ns"], line["level"], line_text(line), line["name"], {})


def _pictures(
    log: Log,
    topic: Topic,
    selection: Selection,
    channels: Channels,
    stretches: Stretches,
    report: ExportReport,
) -> Write:
    pictures = PictureExport(log, topic.name, selection)
    stretches.add(topic.name, pictures)
    if pictures.note:
        report.notes.append(pictures.note)
    is_video = pictures.form in STREAMS
    schema = foxglove.COMPRESSED_VIDEO if is_video else foxglove.COMPRESSED_IMAGE
    if pictures.form == PIXELS:
        schema = foxglove.RAW_IMAGE
    name, described = schema
    write = channels.add(topic.name, "protobuf", (name, "protobuf", described()), topic)

    def pack(shown: Shown) -> bytes:
        if pictures.form == PIXELS:
            assert shown.pixels is not None
            return foxglove.pack_raw_image(shown.tov_ns, shown.source, shown.pixels)
        return foxglove.pack_compressed(
            shown.tov_ns, shown.source, pictures.form, shown.data, is_video=is_video
        )

    def add(message: LogMessage) -> None:
        for shown in pictures.shown(message):
            write(message, pack(shown), (shown.time_ns, shown.tov_ns))

    return add


def value_writer(
    topic: Topic, channels: Channels, stretches: Stretches
) -> Callable[[Message], None]:
    """What writes messages whose fields are JSON, and what they show together."""
    write = channels.add(
        topic.name, "json", (topic.schema_name, topic.schema_encoding, topic.schema), topic
    )
    fields = _fields_of(topic)
    beside: list[Callable[[Message, dict[str, Any]], None]] = []
    if any(fields >= {*names} for names in _DRAWN):
        beside.append(_annotations(topic, channels, stretches))
    if fields >= {"prompt", "response"}:
        beside.append(_answers(topic, channels))

    def add(message: Message) -> None:
        values = message.fields
        text = json.dumps(plain_value(values, data=True), ensure_ascii=False, allow_nan=False)
        write(message, text.encode(errors="replace"))
        for more in beside:
            more(message, values)

    return add


def _annotations(
    topic: Topic, channels: Channels, stretches: Stretches
) -> Callable[[Moment, dict[str, Any]], None]:
    name, described = foxglove.IMAGE_ANNOTATIONS
    write = channels.add(
        f"{topic.name}/annotations", "protobuf", (name, "protobuf", described()), topic
    )

    def add(message: Moment, values: dict[str, Any]) -> None:
        found = foxglove.drawn_in(values)
        if found is not None:
            found = found.stretched(*stretches.of(topic.name))
            write(message, foxglove.pack_annotations(message.tov_ns, found))

    return add


def _answers(topic: Topic, channels: Channels) -> Callable[[Moment, dict[str, Any]], None]:
    schema = (LOG_SCHEMA_NAME, "protobuf", LOG_SCHEMA)
    write = channels.add(f"{topic.name}/log", "protobuf", schema, topic)
    task = topic.metadata.get("task", topic.name)

    def add(message: Moment, values: dict[str, Any]) -> None:
        text = f"{values['prompt']}: {values['response']}"
        write(message, pack_log(message.tov_ns, "info", text, task, {}))

    return add


def _fields_of(topic: Topic) -> set[str]:
    """The names of the fields, as far as the schema says them."""
    try:
        return set(json.loads(topic.schema)["properties"])
    except (ValueError, KeyError, TypeError):
        return set()
