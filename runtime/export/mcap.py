"""All slabs of a run in one finished MCAP file of compressed chunks, without flowrun's own records.

Any MCAP tool reads it; flowrun does not, as the cycles' bounds and checksums are gone. Topics,
schemas, times, sequence (the cycle's number, mod 2**32), metadata and attachments stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from flowrun.runtime.export.selection import ExportReport, Selection
from flowrun.runtime.extras import import_optional
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import END_NAME, METADATA_NAME

__all__ = ["export_mcap", "open_writer", "write_end", "write_front"]

_CHUNK_SIZE = 4 << 20


def export_mcap(log: Log, selection: Selection, path: Path) -> ExportReport:
    """Write the selected messages to `path`, in chunks compressed by zstd; needs the package mcap."""
    report = ExportReport()
    with path.open("wb") as file:
        writer = open_writer(file, "mcap")
        write_front(writer, log)
        channels = _register(writer, log, selection.topics)
        for message in selection.messages(log):
            writer.add_message(
                channel_id=channels[message.topic],
                log_time=message.time_ns,
                publish_time=message.tov_ns,
                sequence=message.cycle & 0xFFFFFFFF,
                data=bytes(message.payload),
            )
            report.count += 1
        write_end(writer, log)
    return report


def open_writer(file: IO[bytes], what: str) -> Any:
    """A writer of the package mcap, begun; `what` names the export."""
    mcap = import_optional("mcap.writer", f"an export to {what}", extra="viewers")
    writer = mcap.Writer(file, chunk_size=_CHUNK_SIZE, compression=mcap.CompressionType.ZSTD)
    writer.start(profile="", library="flowrun")
    return writer


def write_end(writer: Any, log: Log) -> None:
    """How the run ended, and the end of the file."""
    if log.end is not None:
        writer.add_metadata(END_NAME, log.end)
    writer.finish()


def write_front(writer: Any, log: Log) -> None:
    """What the run says of itself."""
    writer.add_metadata(METADATA_NAME, log.metadata)
    for item in log.slabs[0].preamble.attachments.values():
        writer.add_attachment(
            create_time=item.create_time_ns,
            log_time=item.log_time_ns,
            name=item.name,
            media_type=item.media_type,
            data=item.data,
        )


def _register(writer: Any, log: Log, topics: tuple[str, ...] | None) -> dict[str, int]:
    schemas: dict[tuple[str, str, bytes], int] = {}
    channels = {}
    for topic in log.topics.values():
        if topics is not None and topic.name not in topics:
            continue
        schema = (topic.schema_name, topic.schema_encoding, topic.schema)
        if any(schema) and schema not in schemas:
            schemas[schema] = writer.register_schema(*schema)
        channels[topic.name] = writer.register_channel(
            topic=topic.name,
            message_encoding=topic.message_encoding,
            schema_id=schemas.get(schema, 0),
            metadata=dict(topic.metadata),
        )
    return channels
