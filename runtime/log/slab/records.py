"""The records of a slab: `pack_x` returns a whole record, `unpack_x` takes a record's content.

Fields are in file order, as FORMAT.md lists them. `unpack_x` raises `ValueError` on other bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from flowrun.msgs.fields import Buffer
from flowrun.runtime.log.slab import format as fmt

_COMPRESSION = ""
"""Chunks have none, so that records lie in the file as they are."""


def pack_record(opcode: int, content: bytes) -> bytes:
    return fmt.RECORD_HEAD.pack(opcode, len(content)) + content


def pack_pad(size: int) -> bytes:
    """A PAD that fills `size` >= 9 bytes, its head included."""
    return fmt.RECORD_HEAD.pack(fmt.PAD, size - fmt.HEAD_SIZE) + bytes(size - fmt.HEAD_SIZE)


def gap_before(offset: int, *, alignment: int, remainder: int = 0) -> int:
    """Size of the PAD at `offset` after which a record starts at `remainder` modulo `alignment`.

    0 where `offset` is right already; never 1-8, which no PAD can fill.
    """
    gap = (remainder - offset) % alignment
    while 0 < gap < fmt.HEAD_SIZE:
        gap += alignment
    return gap


def pack_header(library: str) -> bytes:
    return pack_record(fmt.HEADER, _string(fmt.PROFILE) + _string(library))


def unpack_header(content: Buffer) -> tuple[str, str]:
    """Profile and library."""
    cursor = _Cursor(content)
    return cursor.string(), cursor.string()


def pack_metadata(name: str, metadata: Mapping[str, str]) -> bytes:
    return pack_record(fmt.METADATA, _string(name) + _map(metadata))


def unpack_metadata(content: Buffer) -> tuple[str, dict[str, str]]:
    cursor = _Cursor(content)
    return cursor.string(), cursor.map()


def pack_check(start: int, checked: Buffer) -> bytes:
    """A CHECK of `checked`, which is at `start` in the file, directly before this record."""
    return pack_record(fmt.CHECK, struct.pack("<QI", start, fmt.crc32(checked)))


def unpack_check(content: Buffer) -> tuple[int, int]:
    """Start and crc."""
    cursor = _Cursor(content)
    start, crc = cursor.numbers("<QI")
    cursor.end()
    return start, crc


def pack_attachment(attachment: fmt.Attachment) -> bytes:
    content = b"".join(
        (
            struct.pack("<QQ", attachment.log_time_ns, attachment.create_time_ns),
            _string(attachment.name),
            _string(attachment.media_type),
            fmt.U64.pack(len(attachment.data)),
            attachment.data,
        )
    )
    return pack_record(fmt.ATTACHMENT, content + struct.pack("<I", fmt.crc32(content)))


def unpack_attachment(content: Buffer) -> fmt.Attachment:
    cursor = _Cursor(content)
    log_time_ns, create_time_ns = cursor.numbers("<QQ")
    name, media_type = cursor.string(), cursor.string()
    (size,) = cursor.numbers("<Q")
    data = cursor.take(size)
    checked = cursor.position
    (crc,) = cursor.numbers("<I")
    if crc not in (0, fmt.crc32(memoryview(content)[:checked])):
        raise ValueError(f"attachment {name!r} does not match its CRC")
    return fmt.Attachment(name, media_type, data, log_time_ns, create_time_ns)


def pack_schema(schema: fmt.Schema) -> bytes:
    content = struct.pack("<H", schema.id) + _string(schema.name) + _string(schema.encoding)
    return pack_record(fmt.SCHEMA, content + struct.pack("<I", len(schema.data)) + schema.data)


def unpack_schema(content: Buffer) -> fmt.Schema:
    cursor = _Cursor(content)
    (schema_id,) = cursor.numbers("<H")
    name, encoding = cursor.string(), cursor.string()
    (size,) = cursor.numbers("<I")
    return fmt.Schema(schema_id, name, encoding, cursor.take(size))


def pack_channel(channel: fmt.Channel) -> bytes:
    content = struct.pack("<HH", channel.id, channel.schema_id) + _string(channel.topic)
    return pack_record(
        fmt.CHANNEL, content + _string(channel.message_encoding) + _map(channel.metadata)
    )


def unpack_channel(content: Buffer) -> fmt.Channel:
    cursor = _Cursor(content)
    channel_id, schema_id = cursor.numbers("<HH")
    return fmt.Channel(channel_id, schema_id, cursor.string(), cursor.string(), cursor.map())


def pack_chunk_head(records_length: int) -> bytes:
    """The 49 bytes before the records of an open chunk: without times and crc."""
    # fmt: off
    return fmt.CHUNK_HEAD.pack(
        fmt.CHUNK, fmt.CHUNK_FIXED_SIZE + records_length,
        0, 0, records_length, 0, len(_COMPRESSION), records_length,
    )
    # fmt: on


def cycle_crc(content: Buffer, records: Buffer, *, opcode: int = fmt.CYCLE) -> int:
    """The crc of a CYCLE or LINES: of the checked part of its content, then of the records."""
    checked = fmt.crc32(content[: fmt.CYCLE_CHECKED.size], fmt.CRC_STARTS[opcode])
    return fmt.crc32(records, checked)


def pack_message_index(channel_id: int, entries: bytes) -> bytes:
    """entries: `fmt.INDEX_ENTRY` of each Message, its offset from the first byte of the records."""
    return pack_record(fmt.MESSAGE_INDEX, struct.pack("<HI", channel_id, len(entries)) + entries)


def unpack_message_index(content: Buffer) -> tuple[int, list[tuple[int, int]]]:
    cursor = _Cursor(content)
    channel_id, size = cursor.numbers("<HI")
    if size % fmt.INDEX_ENTRY.size:
        raise ValueError(
            f"message index of {size} bytes; expected a multiple of {fmt.INDEX_ENTRY.size}"
        )
    entries = list(fmt.INDEX_ENTRY.iter_unpack(cursor.take(size)))
    cursor.end()
    return channel_id, entries


def pack_data_end() -> bytes:
    return pack_record(fmt.DATA_END, bytes(4))


def pack_statistics(statistics: fmt.Statistics) -> bytes:
    counts = _numbers("<HQ", statistics.channel_message_counts)
    # fmt: off
    content = struct.pack(
        "<QHIIIIQQI",
        statistics.message_count, statistics.schema_count, statistics.channel_count,
        statistics.attachment_count, statistics.metadata_count, statistics.chunk_count,
        statistics.start_time_ns, statistics.end_time_ns, len(counts),
    )
    # fmt: on
    return pack_record(fmt.STATISTICS, content + counts)


def unpack_statistics(content: Buffer) -> fmt.Statistics:
    cursor = _Cursor(content)
    messages, schemas, channels, attachments, metadata, chunks, start_time_ns, end_time_ns, size = (
        cursor.numbers("<QHIIIIQQI")
    )
    return fmt.Statistics(
        message_count=messages,
        schema_count=schemas,
        channel_count=channels,
        attachment_count=attachments,
        metadata_count=metadata,
        chunk_count=chunks,
        start_time_ns=start_time_ns,
        end_time_ns=end_time_ns,
        channel_message_counts=cursor.numbers_of("<HQ", size),
    )


def pack_chunk_index(chunk: fmt.ChunkInfo) -> bytes:
    offsets = _numbers("<HQ", chunk.message_index_offsets)
    # fmt: off
    content = struct.pack(
        "<QQQQI",
        chunk.start_time_ns, chunk.end_time_ns, chunk.start, chunk.length, len(offsets),
    )
    # fmt: on
    content += offsets + fmt.U64.pack(chunk.message_index_length) + _string(_COMPRESSION)
    return pack_record(
        fmt.CHUNK_INDEX, content + struct.pack("<QQ", chunk.records_size, chunk.records_size)
    )


def unpack_chunk_index(content: Buffer) -> fmt.ChunkInfo:
    """Without `message_counts`, which a ChunkIndex does not hold."""
    cursor = _Cursor(content)
    start_time_ns, end_time_ns, start, length, size = cursor.numbers("<QQQQI")
    offsets = cursor.numbers_of("<HQ", size)
    (index_length,) = cursor.numbers("<Q")
    compression = cursor.string()
    compressed_size, records_size = cursor.numbers("<QQ")
    if compression or compressed_size != records_size:
        raise ValueError("a compressed chunk")
    return fmt.ChunkInfo(
        start, length, records_size, start_time_ns, end_time_ns, offsets, index_length
    )


def pack_attachment_index(attachment: fmt.Attachment, placed: fmt.Placed) -> bytes:
    # fmt: off
    content = struct.pack(
        "<QQQQQ",
        placed.offset, placed.length,
        attachment.log_time_ns, attachment.create_time_ns, len(attachment.data),
    )
    # fmt: on
    content += _string(attachment.name) + _string(attachment.media_type)
    return pack_record(fmt.ATTACHMENT_INDEX, content)


def pack_metadata_index(name: str, placed: fmt.Placed) -> bytes:
    return pack_record(
        fmt.METADATA_INDEX, struct.pack("<QQ", placed.offset, placed.length) + _string(name)
    )


def unpack_metadata_index(content: Buffer) -> tuple[fmt.Placed, str]:
    cursor = _Cursor(content)
    offset, length = cursor.numbers("<QQ")
    return fmt.Placed(offset, length), cursor.string()


def pack_summary_offset(opcode: int, start: int, length: int) -> bytes:
    return pack_record(fmt.SUMMARY_OFFSET, struct.pack("<BQQ", opcode, start, length))


def pack_footer(summary_start: int, summary_offset_start: int, summary_crc: int) -> bytes:
    return pack_record(
        fmt.FOOTER, fmt.FOOTER_CONTENT.pack(summary_start, summary_offset_start, summary_crc)
    )


TRAILER = pack_data_end() + pack_footer(0, 0, 0) + fmt.MAGIC
"""What ends an unfinished slab; a constant 50 bytes."""


def _string(text: str) -> bytes:
    data = text.encode(errors="backslashreplace")  # a file name that is not UTF-8 has no bytes
    return struct.pack("<I", len(data)) + data


def _numbers(layout: str, pairs: Mapping[int, int]) -> bytes:
    return b"".join(struct.pack(layout, *pair) for pair in pairs.items())


def _map(pairs: Mapping[str, str]) -> bytes:
    data = b"".join(_string(key) + _string(value) for key, value in pairs.items())
    return struct.pack("<I", len(data)) + data


class _Cursor:
    """Reads a record's fields in order; `ValueError` where the content ends too early."""

    __slots__ = ("content", "position")

    def __init__(self, content: Buffer) -> None:
        self.content = memoryview(content)
        self.position = 0

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.content):
            raise ValueError(
                f"content of {len(self.content)} bytes is too short: expected at least {end}"
            )
        piece = bytes(self.content[self.position : end])
        self.position = end
        return piece

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def numbers_of(self, layout: str, size: int) -> dict[int, int]:
        """A map of numbers, `size` bytes in all."""
        if size % struct.calcsize(layout):
            raise ValueError(
                f"a map of {size} bytes; expected a multiple of {struct.calcsize(layout)}"
            )
        return dict(struct.iter_unpack(layout, self.take(size)))

    def string(self) -> str:
        (size,) = self.numbers("<I")
        return self.take(size).decode()  # UnicodeDecodeError is a ValueError

    def map(self) -> dict[str, str]:
        (size,) = self.numbers("<I")
        end = self.position + size
        pairs = {}
        while self.position < end:
            key = self.string()
            pairs[key] = self.string()
        if self.position != end:
            raise ValueError(f"a map of {size} bytes holds other pairs than its size says")
        return pairs

    def end(self) -> None:
        if self.position != len(self.content):
            raise ValueError(
                f"content of {len(self.content)} bytes is too long: expected {self.position}"
            )
