"""The two ends of a slab that are made of many records: what comes first, and the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.records import (
    pack_attachment,
    pack_attachment_index,
    pack_channel,
    pack_check,
    pack_chunk_index,
    pack_data_end,
    pack_footer,
    pack_header,
    pack_metadata,
    pack_metadata_index,
    pack_schema,
    pack_statistics,
    pack_summary_offset,
)

__all__ = ["build_end", "build_preamble", "build_summary"]


def build_preamble(
    library: str,
    metadata: Mapping[str, str],
    *,
    attachments: Sequence[fmt.Attachment],
    schemas: Sequence[fmt.Schema],
    channels: Sequence[fmt.Channel],
) -> tuple[bytes, list[fmt.Placed], list[fmt.Placed]]:
    """All bytes of a slab before its first chunk's gap: MAGIC to CHECK.

    metadata: of the run; "format" is added.
    Also where the Metadata record and each Attachment are, for `build_summary`.
    """
    out = bytearray(fmt.MAGIC + pack_header(library))

    def place(record: bytes) -> fmt.Placed:
        placed = fmt.Placed(len(out), len(record))
        out.extend(record)
        return placed

    metadata_places = [place(pack_metadata(fmt.METADATA_NAME, {"format": fmt.FORMAT, **metadata}))]
    attachment_places = [place(pack_attachment(attachment)) for attachment in attachments]
    for schema in schemas:
        out += pack_schema(schema)
    for channel in channels:
        out += pack_channel(channel)
    out += pack_check(0, bytes(out))
    return bytes(out), metadata_places, attachment_places


def build_end(end: Mapping[str, str], *, offset: int) -> tuple[bytes, fmt.Placed]:
    """The Metadata "flowrun.end" for `offset` and its CHECK, and where the Metadata is."""
    record = pack_metadata(fmt.END_NAME, end)
    return record + pack_check(offset, record), fmt.Placed(offset, len(record))


def build_summary(
    *,
    offset: int,
    schemas: Sequence[fmt.Schema],
    channels: Sequence[fmt.Channel],
    chunks: Sequence[fmt.ChunkInfo],
    attachments: Sequence[tuple[fmt.Attachment, fmt.Placed]],
    metadata: Sequence[tuple[str, fmt.Placed]],
) -> bytes:
    """A finished slab's bytes from DataEnd, which is at `offset`, to the last MAGIC.

    The number of bytes does not depend on `offset`. metadata: name and place of each record.
    """
    counts: Counter[int] = Counter()
    for chunk in chunks:
        counts.update(chunk.message_counts)
    filled = [chunk for chunk in chunks if chunk.message_counts]
    statistics = fmt.Statistics(
        message_count=counts.total(),
        schema_count=len(schemas),
        channel_count=len(channels),
        attachment_count=len(attachments),
        metadata_count=len(metadata),
        chunk_count=len(chunks),
        start_time_ns=min((chunk.start_time_ns for chunk in filled), default=0),
        end_time_ns=max((chunk.end_time_ns for chunk in filled), default=0),
        channel_message_counts=dict(sorted(counts.items())),
    )
    groups = [
        (fmt.SCHEMA, [pack_schema(schema) for schema in schemas]),
        (fmt.CHANNEL, [pack_channel(channel) for channel in channels]),
        (fmt.STATISTICS, [pack_statistics(statistics)]),
        (fmt.CHUNK_INDEX, [pack_chunk_index(chunk) for chunk in chunks]),
        (fmt.ATTACHMENT_INDEX, [pack_attachment_index(*item) for item in attachments]),
        (fmt.METADATA_INDEX, [pack_metadata_index(*item) for item in metadata]),
    ]
    start = offset + len(pack_data_end())
    summary = bytearray()
    offsets = bytearray()
    for opcode, records in groups:
        group = b"".join(records)
        if group:
            offsets += pack_summary_offset(opcode, start + len(summary), len(group))
        summary += group
    offset_start = start + len(summary)
    summary += offsets
    # The Footer's CRC covers the summary and the Footer itself up to the CRC.
    unchecked = pack_footer(start, offset_start, 0)[:-4]
    crc = fmt.crc32(bytes(summary) + unchecked)
    footer = pack_footer(start, offset_start, crc)
    return pack_data_end() + bytes(summary) + footer + fmt.MAGIC
