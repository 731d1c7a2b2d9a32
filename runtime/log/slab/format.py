"""The log's bytes: what stands where in a slab, and the functions that pack and unpack it.

A run is a directory of slabs `log_0000.mcap`, `log_0001.mcap`, ... and a file `.lock`, on which
whoever writes the run holds `flock(LOCK_EX)`. A slab is an MCAP file (https://mcap.dev/spec) that
is written in place through a memory mapping and is valid MCAP at every instant, so that a log can
be read while it is written and after the writer was killed, by any MCAP tool. All numbers are
little-endian; a string is a u32 byte count and UTF-8; a map is a u32 byte count and that many bytes
of pairs; times are u64 nanoseconds since the Unix epoch. Every record is an opcode u8, a length
u64, and `length` bytes of content.

Why MCAP in place: private opcodes 0x80-0xFF are skipped by every MCAP reader, so one padding record
can cover what is not written yet, and one store to it makes what was written behind it visible.

A slab
    bytes                   meaning
    MAGIC                   89 "MCAP0" 0D 0A
    Header                  profile "flowrun", library "flowrun <version>"
    Metadata*               "flowrun": format = "1", run_id, slab (its index), graph, versions, ...
    Attachment*             "graph.yaml" (source text), "graph.json" (resolved); secrets masked
    Schema* Channel*        all of the run. MUST be the same in every slab of a run, so that each
                            can be read alone. Ids count from 1; no two have one id or topic
    CHECK                   of all bytes in front of it. MUST be there: MCAP protects none of them,
                            and a flipped byte in a Channel would rename every message
    { PAD? Chunk PAD? MessageIndex* }*
                            PAD makes the Chunk start at offset % 8 == 7, so that its three sizes
                            are 8-aligned and each is one atomic store. Once a Chunk holds a
                            cycle, the PADs between it and the Chunk in front MUST be <= 64 bytes
                            together: a longer one is a chunk whose opcode was damaged
    PAD?                    behind the last chunk: room not in use yet. Where a CYCLE with the right
                            crc stands 49 bytes behind its opcode, it is a damaged chunk, too
    Metadata CHECK          "flowrun.end" {reason, cycles, ended_ns, error?}, only at the end of a
                            run's last slab; CHECK covers exactly the Metadata record
    DataEnd                 crc 0 (not computed)
    summary                 only when the slab is finished, see below
    Footer MAGIC            Footer(0, 0, 0) while unfinished

    What stands in front of the first chunk, and the summary, MUST be <= 256 MiB each. Why: a reader
    holds them in memory, and a damaged length must not make it take all there is.

    TRAILER is DataEnd, Footer(0, 0, 0), MAGIC: 50 bytes that MUST end an unfinished slab.

PAD, opcode 0x80
    bytes  name     type    meaning
    n      unused   bytes   MUST be ignored, whatever they hold
    MAY stand at top level, inside a chunk and inside a cycle. Needs 9 bytes at least, so a gap of
    1-8 bytes cannot be padded and is made 8-64 bytes larger.

CYCLE, opcode 0x81: stands in front of the messages of one cycle, only in a chunk
    bytes  name           type   meaning
    8      cycle          u64    number of the cycle. MUST grow from one CYCLE to the next, in all
                                 slabs; gaps are allowed
    8      time_ns        u64    the cycle's time. MUST NOT decrease
    4      message_count  u32    Message records that belong to the cycle
    4      byte_count     u32    bytes behind this record that belong to the cycle: its Message
                                 records and the PADs between them, nothing else. They MUST lie in
                                 the same chunk
    4      crc            u32    zlib CRC-32 of the 24 bytes above, continued over the `byte_count`
                                 bytes. Why: a chunk's CRC exists only when the chunk is closed and
                                 condemns all of it; this one finds the one torn cycle
    4      reserved       u32    MUST be 0; a reader MUST treat other values as damage
    length is 32.

CHECK, opcode 0x82
    bytes  name   type   meaning
    8      start  u64    file offset where the checked bytes begin
    4      crc    u32    zlib CRC-32 of the file from `start` to this record's opcode
    length is 12.

Message, opcode 0x05
    bytes  name          type   meaning
    2      channel       u16    id of a Channel in front
    4      sequence      u32    cycle mod 2**32. MUST match the CYCLE in front
    8      log_time      u64    the cycle's time. MUST match the CYCLE in front
    8      publish_time  u64    the message's time of validity, tov_ns
    n      data          bytes  as the Channel's message_encoding says
    A payload part of >= 4096 bytes (pixels) SHOULD start at a file offset % 64 == 0, by a PAD in
    front of the Message inside the cycle. Why: replay gets aligned views without a copy.

Channel, opcode 0x04: as in MCAP
    metadata "task" and "port" say which output the channel is; the runtime's own topics, /flowrun/*,
    have neither.
    metadata "payload" = "none": the log says that and when there were messages, not what was in
    them. Every `data` MUST then be empty, schema_id be 0 and message_encoding "". A replay can
    neither feed nor compare such a channel.
    metadata "codec" = "packets", "zstd" or "ffv1": the messages are pictures that must be decoded,
    see Payloads below. Only channels of pictures have it.

Chunk, opcode 0x06: compression MUST be "", so that records lie in the file as they are
    bytes  name               type   meaning
    8      message_start_time u64    least log_time; 0 until the chunk is closed, then patched
    8      message_end_time   u64    greatest log_time; as above
    8      uncompressed_size  u64    = records_length
    4      uncompressed_crc   u32    CRC-32 of the records; 0 until patched
    4      compression        str    empty: a u32 of 0
    8      records_length     u64    bytes of records
    n      records                   [ CYCLE (PAD* Message)* ]* PAD*
    49 bytes of head. A PAD outside the cycles is the unused rest of the open chunk. Only the last
    chunk MAY have it, and only where DataEnd follows the chunk. PADs, and the Messages of a cycle
    that is being committed, MAY follow it; a CYCLE MUST NOT. Why: a CYCLE whose opcode was damaged
    to PAD is found, not skipped in silence.

The remaining records (Header 0x01, Footer 0x02, Schema 0x03, Channel 0x04, MessageIndex 0x07,
ChunkIndex 0x08, Attachment 0x09, AttachmentIndex 0x0A, Statistics 0x0B, Metadata 0x0C,
MetadataIndex 0x0D, SummaryOffset 0x0E, DataEnd 0x0F) are exactly MCAP's; MessageIndex offsets count
from the first byte of the chunk's records. A reader MUST treat an opcode not named here as damage.

A run whose Metadata "flowrun" has "keep_slabs" = "<n>" is a flight recorder's: its writer removes all
slabs but the last n, so the first that is there MAY have any number. That is no damage.

A run whose Metadata "flowrun" has "keyframe_interval" = "<n>", n > 0, holds a message of
/flowrun/keyframe in cycle 0 and in every n-th, as `keyframe` describes it.

A slab is made whole, but without a cycle, under the name `log_0001.next`, and ahead: before the one in
front is full. Renaming it to `log_0001.mcap` begins it; the slab in front MAY be finished later than
that. Readers MUST pass over a `.next` without a CYCLE. One that has a CYCLE was begun, and a power cut
took the renaming: readers SHOULD read it.

States of an unfinished slab. Each is one store after the one before; all are valid MCAP and a
reader MUST accept all of them. "T" is where the trailer stands.
    open        the Chunk's `length`, `uncompressed_size` and `records_length` reach to T; the last
                record in it is a PAD that ends at T
    commit      of a cycle, at the open chunk's PAD at P: 1. CYCLE content at P+9, the cycle's
                records from P+41 on, and a new PAD head at P+41+byte_count that ends where the old
                one does; all of it still inside the old PAD. 2. the old PAD's length becomes 32:
                Messages are to be seen behind a PAD of 32 bytes. 3. its opcode becomes CYCLE
                0x81: one byte, the commit
    close       records_length is shortened to the last cycle's end, then uncompressed_size, then
                length. Between these stores the Chunk's content is longer than 40 + records_length:
                the bytes behind the records MUST be ignored. Then the PAD stands at top level
    next chunk  MessageIndex records, a gap PAD, and the head of the next Chunk with its own PAD to
                T are written inside the top-level PAD and committed by that PAD's head: first its
                length becomes that of the first of these records, then its opcode
    grow        1. one `pwrite` puts a new trailer at the new end, which moves the end of file with
                it: two trailers, with zeros in between; a linear reader ends at the first. 2. the
                Chunk's length grows to the new T: the old trailer is now behind the chunk's
                records, so ignored. 3. a PAD head is written over the old trailer, reaching to the
                new T. 4. uncompressed_size, 5. records_length grow. 6. the first PAD may swallow
                the second. A PAD that reaches beyond records_length (6 done early) MUST be accepted
                in the last chunk, as its end
    finished    MessageIndex*, Metadata and CHECK if it is the last slab, DataEnd, summary, Footer,
                MAGIC are written inside the last, top-level PAD and committed in the same way; the
                file is truncated behind that MAGIC

Summary of a finished slab: Schema*, Channel*, Statistics, ChunkIndex*, AttachmentIndex*,
MetadataIndex*, one SummaryOffset for each of these groups that is not empty, Footer with
summary_crc. ChunkIndex stands in the order of the chunks.

Payloads: what `data` of a Message is, by its Channel's message_encoding, schema name and metadata
    msgpack   a map of the fields that the schema, a JSON Schema, names. An array is a map {dtype, shape,
              data}: NumPy's name of the type ("<f4"), the lengths, the elements row by row
    protobuf  of a schema of Foxglove's; the schema's data is its FileDescriptorSet. What the schema
              lacks is in field 1000, length-delimited, msgpack; other readers skip it. `timestamp`
              (field 1: seconds 1, nanos 2) is tov_ns, of a log line the time of logging
      foxglove.RawImage, no "codec"
              width 2, height 3 (both fixed32), encoding 4 ("rgb8"), step 5 (= 3 * width), data 6 (the
              pixels, row by row, last in the message), frame_id 7 (`source`: which camera).
              Field 1000: [number of the frame at its source, pts or nil, fps]
      foxglove.CompressedVideo, with "codec"
              frame_id 2 (`source`), data 3, format 4 (for viewers; a reader MUST go by field 1000).
              Field 1000: a map, which says how `data` gives the pixels: `log_picture` lists it
      foxglove.Log
              level 2 (0-5: unknown, debug, info, warning, error, fatal), message 3, name 4 (the task).
              Field 1000, optional: a map of what else was logged
    Fields with the value 0 or "" MAY be left out, as in all protobuf.

Damage: a reader MUST stop at the first byte of a slab that breaks a MUST, say where, and keep what
it read in front. It MUST NOT give out a message of a cycle whose crc does not match.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from zlib_ng import zlib_ng

from flowrun.msgs.fields import Buffer

MAGIC = b"\x89MCAP0\r\n"
HEADER = 0x01
FOOTER = 0x02
SCHEMA = 0x03
CHANNEL = 0x04
MESSAGE = 0x05
CHUNK = 0x06
MESSAGE_INDEX = 0x07
CHUNK_INDEX = 0x08
ATTACHMENT = 0x09
ATTACHMENT_INDEX = 0x0A
STATISTICS = 0x0B
METADATA = 0x0C
METADATA_INDEX = 0x0D
SUMMARY_OFFSET = 0x0E
DATA_END = 0x0F
PAD = 0x80
CYCLE = 0x81
CHECK = 0x82

PROFILE = "flowrun"
FORMAT = "1"
METADATA_NAME = "flowrun"
END_NAME = "flowrun.end"
GRAPH_SOURCE = "graph.yaml"
GRAPH_RESOLVED = "graph.json"
STEPS_TOPIC = "/flowrun/steps"
CONTROL_TOPIC = "/flowrun/control"
LOG_TOPIC = "/flowrun/log"
KEYFRAME_TOPIC = "/flowrun/keyframe"
CODEC = "codec"
PAYLOAD = "payload"
"""Key of a Channel's metadata; `NO_PAYLOAD` is its only value."""
NO_PAYLOAD = "none"
KEEP_SLABS = "keep_slabs"
"""Key of the Metadata "flowrun"."""
KEYFRAME_INTERVAL = "keyframe_interval"
"""Key of the Metadata "flowrun": cycles from one keyframe to the next; "0" if there are none."""
LOCK_NAME = ".lock"
SLAB_NAME = re.compile(r"log_(\d{4,})\.mcap")
AHEAD_SUFFIX = ".next"
"""In place of ".mcap" in the name of a slab that is not begun."""
AHEAD_NAME = re.compile(r"log_(\d{4,})\.next")

U64 = struct.Struct("<Q")
RECORD_HEAD = struct.Struct("<BQ")
"""Opcode, length."""
MESSAGE_HEAD = struct.Struct("<BQHIQQ")
"""Opcode, length, channel, sequence, log_time, publish_time; the data follows."""
CYCLE_RECORD = struct.Struct("<BQQQIIII")
"""Opcode, length, then `CYCLE_CONTENT`."""
CYCLE_CONTENT = struct.Struct("<QQIIII")
"""cycle, time_ns, message_count, byte_count, crc, reserved."""
CYCLE_CHECKED = struct.Struct("<QQII")
"""The part of `CYCLE_CONTENT` that its crc covers."""
CHUNK_HEAD = struct.Struct("<BQQQQIIQ")
"""Opcode, length, message_start_time, message_end_time, uncompressed_size, uncompressed_crc, length
of the (empty) compression string, records_length; the records follow."""
FOOTER_CONTENT = struct.Struct("<QQI")

HEAD_SIZE = RECORD_HEAD.size
CYCLE_SIZE = HEAD_SIZE + CYCLE_CONTENT.size
CHUNK_FIXED_SIZE = CHUNK_HEAD.size - HEAD_SIZE
"""A closed chunk's `length` is this plus its `records_length`."""
FOOTER_SIZE = HEAD_SIZE + FOOTER_CONTENT.size

# Where the fields of a chunk's head stand, from its opcode on. The chunk starts at offset % 8 == 7,
# so the sizes are 8-aligned.
CHUNK_START_REMAINDER = 7
CHUNK_LENGTH_AT = 1
CHUNK_START_TIME_AT = 9
CHUNK_END_TIME_AT = 17
CHUNK_SIZE_AT = 25
CHUNK_CRC_AT = 33
CHUNK_RECORDS_LENGTH_AT = 41
CHUNK_RECORDS_AT = CHUNK_HEAD.size

ALIGNED_PART_SIZE = 4096
"""Payload parts of at least so many bytes are aligned to `PART_ALIGNMENT`."""
PART_ALIGNMENT = 64
MAX_HELD_SIZE = 256 << 20
"""Of the preamble, and of the summary: what a reader holds in memory."""
MAX_PAD_BETWEEN_CHUNKS = 64
"""Content and heads of all PADs between two chunks."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What the messages of a channel are made of."""

    id: int
    name: str
    encoding: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Channel:
    """One stream of messages; `schema_id` 0 means none."""

    id: int
    schema_id: int
    topic: str
    message_encoding: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in the log."""

    name: str
    media_type: str
    data: bytes = field(repr=False)
    log_time_ns: int = 0
    create_time_ns: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a Metadata or Attachment record stands; `length` counts its head too."""

    offset: int
    length: int


@dataclass(slots=True)
class ChunkInfo:
    """A closed chunk, as the summary lists it.

    start: offset of its opcode. length: bytes of the record, its head's 9 included.
    records_size: bytes of its records. start_time_ns, end_time_ns: of its messages; 0 without any.
    message_index_offsets: channel id -> offset of its MessageIndex record, in the file's order.
    message_index_length: bytes of all MessageIndex records behind the chunk.
    message_counts: channel id -> its messages in the chunk.
    """

    start: int
    length: int
    records_size: int
    start_time_ns: int = 0
    end_time_ns: int = 0
    message_index_offsets: dict[int, int] = field(default_factory=dict)
    message_index_length: int = 0
    message_counts: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a finished slab holds."""

    message_count: int
    schema_count: int
    channel_count: int
    attachment_count: int
    metadata_count: int
    chunk_count: int
    start_time_ns: int
    end_time_ns: int
    channel_message_counts: Mapping[int, int]


crc32: Callable[..., int] = zlib_ng.crc32
"""`crc32(data, start=0)`: zlib's CRC-32 of `data`, continued from `start`, at memory speed."""


def cycle_crc(content: Buffer, records: Buffer) -> int:
    """The crc of a CYCLE: of the checked part of its content, then of the cycle's records."""
    return crc32(records, crc32(content[: CYCLE_CHECKED.size]))


# -- records: pack and unpack ------------------------------------------------------------------
# `pack_x` returns a whole record, `unpack_x` takes a record's content and raises `ValueError`.


def pack_record(opcode: int, content: bytes) -> bytes:
    return RECORD_HEAD.pack(opcode, len(content)) + content


def pack_pad(size: int) -> bytes:
    """A PAD that fills `size` >= 9 bytes, its head included."""
    return RECORD_HEAD.pack(PAD, size - HEAD_SIZE) + bytes(size - HEAD_SIZE)


def gap_before(offset: int, *, alignment: int, remainder: int = 0) -> int:
    """Size of the PAD at `offset` after which a record starts at `remainder` modulo `alignment`.

    0 where `offset` is right already; never 1-8, which no PAD can fill.
    """
    gap = (remainder - offset) % alignment
    while 0 < gap < HEAD_SIZE:
        gap += alignment
    return gap


def pack_header(library: str) -> bytes:
    return pack_record(HEADER, _string(PROFILE) + _string(library))


def unpack_header(content: Buffer) -> tuple[str, str]:
    """Profile and library."""
    cursor = _Cursor(content)
    return cursor.string(), cursor.string()


def pack_metadata(name: str, metadata: Mapping[str, str]) -> bytes:
    return pack_record(METADATA, _string(name) + _map(metadata))


def unpack_metadata(content: Buffer) -> tuple[str, dict[str, str]]:
    cursor = _Cursor(content)
    return cursor.string(), cursor.map()


def pack_check(start: int, checked: Buffer) -> bytes:
    """A CHECK of `checked`, which stands at `start` in the file, directly in front."""
    return pack_record(CHECK, struct.pack("<QI", start, crc32(checked)))


def unpack_check(content: Buffer) -> tuple[int, int]:
    """Start and crc."""
    cursor = _Cursor(content)
    start, crc = cursor.numbers("<QI")
    cursor.end()
    return start, crc


def pack_attachment(attachment: Attachment) -> bytes:
    content = b"".join(
        (
            struct.pack("<QQ", attachment.log_time_ns, attachment.create_time_ns),
            _string(attachment.name),
            _string(attachment.media_type),
            U64.pack(len(attachment.data)),
            attachment.data,
        )
    )
    return pack_record(ATTACHMENT, content + struct.pack("<I", crc32(content)))


def unpack_attachment(content: Buffer) -> Attachment:
    cursor = _Cursor(content)
    log_time_ns, create_time_ns = cursor.numbers("<QQ")
    name, media_type = cursor.string(), cursor.string()
    (size,) = cursor.numbers("<Q")
    data = cursor.take(size)
    checked = cursor.position
    (crc,) = cursor.numbers("<I")
    if crc not in (0, crc32(memoryview(content)[:checked])):
        raise ValueError(f"attachment {name!r} does not match its CRC")
    return Attachment(name, media_type, data, log_time_ns, create_time_ns)


def pack_schema(schema: Schema) -> bytes:
    return pack_record(
        SCHEMA,
        struct.pack("<H", schema.id) + _string(schema.name) + _string(schema.encoding)
        + struct.pack("<I", len(schema.data)) + schema.data,
    )  # fmt: skip


def unpack_schema(content: Buffer) -> Schema:
    cursor = _Cursor(content)
    (schema_id,) = cursor.numbers("<H")
    name, encoding = cursor.string(), cursor.string()
    (size,) = cursor.numbers("<I")
    return Schema(schema_id, name, encoding, cursor.take(size))


def pack_channel(channel: Channel) -> bytes:
    return pack_record(
        CHANNEL,
        struct.pack("<HH", channel.id, channel.schema_id) + _string(channel.topic)
        + _string(channel.message_encoding) + _map(channel.metadata),
    )  # fmt: skip


def unpack_channel(content: Buffer) -> Channel:
    cursor = _Cursor(content)
    channel_id, schema_id = cursor.numbers("<HH")
    return Channel(channel_id, schema_id, cursor.string(), cursor.string(), cursor.map())


def pack_chunk_head(
    records_length: int, *, start_time_ns: int = 0, end_time_ns: int = 0, crc: int = 0
) -> bytes:
    """The 49 bytes in front of a chunk's records; times and crc 0 for an open one."""
    return CHUNK_HEAD.pack(
        CHUNK, CHUNK_FIXED_SIZE + records_length, start_time_ns, end_time_ns, records_length, crc,
        0, records_length,
    )  # fmt: skip


def pack_cycle_head(cycle: int, time_ns: int, message_count: int, records: Buffer) -> bytes:
    """The CYCLE record of `records`, the cycle's Messages and PADs."""
    checked = CYCLE_CHECKED.pack(cycle, time_ns, message_count, len(records))
    return (
        RECORD_HEAD.pack(CYCLE, CYCLE_CONTENT.size)
        + checked
        + struct.pack("<II", cycle_crc(checked, records), 0)
    )


def pack_message_index(channel_id: int, entries: Sequence[tuple[int, int]]) -> bytes:
    """entries: log_time and offset of each Message, from the first byte of the chunk's records."""
    packed = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    return pack_record(MESSAGE_INDEX, struct.pack("<HI", channel_id, len(packed)) + packed)


def unpack_message_index(content: Buffer) -> tuple[int, list[tuple[int, int]]]:
    cursor = _Cursor(content)
    channel_id, size = cursor.numbers("<HI")
    if size % 16:
        raise ValueError(f"message index of {size} bytes; expected a multiple of 16")
    entries = list(struct.iter_unpack("<QQ", cursor.take(size)))
    cursor.end()
    return channel_id, entries


def pack_data_end() -> bytes:
    return pack_record(DATA_END, bytes(4))


def pack_statistics(statistics: Statistics) -> bytes:
    counts = statistics.channel_message_counts
    return pack_record(
        STATISTICS,
        struct.pack(
            "<QHIIIIQQI",
            statistics.message_count, statistics.schema_count, statistics.channel_count,
            statistics.attachment_count, statistics.metadata_count, statistics.chunk_count,
            statistics.start_time_ns, statistics.end_time_ns, 10 * len(counts),
        )
        + b"".join(struct.pack("<HQ", *item) for item in counts.items()),
    )  # fmt: skip


def unpack_statistics(content: Buffer) -> Statistics:
    cursor = _Cursor(content)
    messages, schemas, channels, attachments, metadata, chunks, start_time_ns, end_time_ns, size = (
        cursor.numbers("<QHIIIIQQI")
    )
    return Statistics(
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


def pack_chunk_index(chunk: ChunkInfo) -> bytes:
    offsets = chunk.message_index_offsets
    return pack_record(
        CHUNK_INDEX,
        struct.pack(
            "<QQQQI",
            chunk.start_time_ns, chunk.end_time_ns, chunk.start, chunk.length, 10 * len(offsets),
        )
        + b"".join(struct.pack("<HQ", *item) for item in offsets.items())
        + U64.pack(chunk.message_index_length)
        + _string("")
        + struct.pack("<QQ", chunk.records_size, chunk.records_size),
    )  # fmt: skip


def unpack_chunk_index(content: Buffer) -> ChunkInfo:
    """Without `message_counts`, which a ChunkIndex does not hold."""
    cursor = _Cursor(content)
    start_time_ns, end_time_ns, start, length, size = cursor.numbers("<QQQQI")
    offsets = cursor.numbers_of("<HQ", size)
    (index_length,) = cursor.numbers("<Q")
    compression = cursor.string()
    compressed_size, records_size = cursor.numbers("<QQ")
    if compression or compressed_size != records_size:
        raise ValueError("a compressed chunk")
    return ChunkInfo(start, length, records_size, start_time_ns, end_time_ns, offsets, index_length)


def pack_attachment_index(attachment: Attachment, placed: Placed) -> bytes:
    return pack_record(
        ATTACHMENT_INDEX,
        struct.pack(
            "<QQQQQ",
            placed.offset, placed.length, attachment.log_time_ns, attachment.create_time_ns,
            len(attachment.data),
        )
        + _string(attachment.name)
        + _string(attachment.media_type),
    )  # fmt: skip


def pack_metadata_index(name: str, placed: Placed) -> bytes:
    return pack_record(
        METADATA_INDEX, struct.pack("<QQ", placed.offset, placed.length) + _string(name)
    )


def unpack_metadata_index(content: Buffer) -> tuple[Placed, str]:
    cursor = _Cursor(content)
    offset, length = cursor.numbers("<QQ")
    return Placed(offset, length), cursor.string()


def pack_summary_offset(opcode: int, start: int, length: int) -> bytes:
    return pack_record(SUMMARY_OFFSET, struct.pack("<BQQ", opcode, start, length))


def pack_footer(summary_start: int, summary_offset_start: int, summary_crc: int) -> bytes:
    return pack_record(
        FOOTER, FOOTER_CONTENT.pack(summary_start, summary_offset_start, summary_crc)
    )


TRAILER = pack_data_end() + pack_footer(0, 0, 0) + MAGIC
"""What ends an unfinished slab; a constant 50 bytes."""


# -- fields ------------------------------------------------------------------------------------


def _string(text: str) -> bytes:
    data = text.encode(errors="backslashreplace")  # a file name that is not UTF-8 has no bytes
    return struct.pack("<I", len(data)) + data


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
            raise ValueError(f"a map of {size} bytes; expected a multiple of "
                             f"{struct.calcsize(layout)}")  # fmt: skip
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
