"""The two ends of a slab that are made of many records: what stands in front, and the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from flowrun.runtime.log.slab import format as lf

__all__ = ["build_end", "build_preamble", "build_summary"]


def build_preamble(
    library: str,
    metadata: Mapping[str, str],
    *,
    attachments: Sequence[lf.Attachment],
    schemas: Sequence[lf.Schema],
    channels: Sequence[lf.Channel],
) -> tuple[bytes, list[lf.Placed], list[lf.Placed]]:
    """All bytes of a slab in front of its first chunk's gap: MAGIC to CHECK.

    metadata: of the run; "format" is added.
    Also where the Metadata record and each Attachment stand, for `build_summary`.
    """
    out = bytearray(lf.MAGIC + lf.pack_header(library))

    def place(record: bytes) -> lf.Placed:
        placed = lf.Placed(len(out), len(record))
        out.extend(record)
        return placed

    metadata_places = [place(lf.pack_metadata(lf.METADATA_NAME, {"format": lf.FORMAT, **metadata}))]
    attachment_places = [place(lf.pack_attachment(attachment)) for attachment in attachments]
    for schema in schemas:
        out += lf.pack_schema(schema)
    for channel in channels:
        out += lf.pack_channel(channel)
    out += lf.pack_check(0, bytes(out))
    return bytes(out), metadata_places, attachment_places


def build_end(end: Mapping[str, str], *, offset: int) -> tuple[bytes, lf.Placed]:
    """The Metadata "flowrun.end" for `offset` and its CHECK, and where the Metadata stands."""
    record = lf.pack_metadata(lf.END_NAME, end)
    return record + lf.pack_check(offset, record), lf.Placed(offset, len(record))


def build_summary(
    *,
    offset: int,
    schemas: Sequence[lf.Schema],
    channels: Sequence[lf.Channel],
    chunks: Sequence[lf.ChunkInfo],
    attachments: Sequence[tuple[lf.Attachment, lf.Placed]],
    metadata: Sequence[tuple[str, lf.Placed]],
) -> bytes:
    """A finished slab's bytes from DataEnd, which stands at `offset`, to the last MAGIC.

    The number of bytes does not depend on `offset`. metadata: name and place of each record.
    """
    counts: Counter[int] = Counter()
    for chunk in chunks:
        counts.update(chunk.message_counts)
    filled = [chunk for chunk in chunks if chunk.message_counts]
    statistics = lf.Statistics(
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
        (lf.SCHEMA, [lf.pack_schema(schema) for schema in schemas]),
        (lf.CHANNEL, [lf.pack_channel(channel) for channel in channels]),
        (lf.STATISTICS, [lf.pack_statistics(statistics)]),
        (lf.CHUNK_INDEX, [lf.pack_chunk_index(chunk) for chunk in chunks]),
        (lf.ATTACHMENT_INDEX, [lf.pack_attachment_index(*item) for item in attachments]),
        (lf.METADATA_INDEX, [lf.pack_metadata_index(*item) for item in metadata]),
    ]
    start = offset + len(lf.pack_data_end())
    summary = bytearray()
    offsets = bytearray()
    for opcode, records in groups:
        group = b"".join(records)
        if group:
            offsets += lf.pack_summary_offset(opcode, start + len(summary), len(group))
        summary += group
    offset_start = start + len(summary)
    summary += offsets
    # The Footer's CRC covers the summary and the Footer itself up to the CRC.
    unchecked = lf.pack_footer(start, offset_start, 0)[:-4]
    crc = lf.crc32(bytes(summary) + unchecked)
    footer = lf.pack_footer(start, offset_start, crc)
    return lf.pack_data_end() + bytes(summary) + footer + lf.MAGIC
