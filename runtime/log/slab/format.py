"""The constants of the format: opcodes, names, sizes and places. FORMAT.md says what they mean."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from zlib_ng import zlib_ng

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
LINES = 0x83

PROFILE = "flowrun"
FORMAT = "1"
METADATA_NAME = "flowrun"
END_NAME = "flowrun.end"
GRAPH_SOURCE = "graph.yaml"
GRAPH_RESOLVED = "graph.json"
ENVIRONMENT = "environment"
STEPS_TOPIC = "/flowrun/steps"
CONTROL_TOPIC = "/flowrun/control"
LOG_TOPIC = "/flowrun/log"
KEYFRAME_TOPIC = "/flowrun/keyframe"
CODEC = "codec"
PAYLOAD = "payload"
"""Key of a Channel's metadata; `NO_PAYLOAD` is its only value."""
NO_PAYLOAD = "none"
STARTED_NS = "started_ns"
"""Key of the Metadata "flowrun": when the run began."""
RUN_NUMBER = "run_number"
"""Key of the Metadata "flowrun": which run it is of those that were begun in its log directory."""
KEEP_SLABS = "keep_slabs"
"""Key of the Metadata "flowrun"."""
KEYFRAME_INTERVAL = "keyframe_interval"
"""Key of the Metadata "flowrun": cycles from one keyframe to the next; "0" if there are none."""
MISSION = "mission"
"""Key of the Metadata "flowrun": the mission of the graph that ran; missing where it has none."""
PARTITION = "partition"
"""Key of the Metadata "flowrun": the process of a partition that ran, "gpu/0"; missing where a graph has
no partitions."""
REACHED = "reached"
"""Key of the Metadata "flowrun": how far the process had come with what other partitions send when the
run began, JSON: by source task, the run and the cycle that are wanted next."""
PEAK_MEMORY = "peak_memory_bytes"
"""Key of the Metadata with which a run ends: the most memory that its process had."""
SETTINGS = "settings"
"""Key of the Metadata "flowrun": the values that were given besides the graph file, as JSON."""
SHADOWS = "shadows"
"""Key of the Metadata "flowrun": shadow -> the task whose shadow it is, as JSON; missing without one."""
STEP_TASKS = "steps"
"""Key of the Metadata "flowrun": the task of each step of the plan, separated by spaces."""

U64 = struct.Struct("<Q")
RECORD_HEAD = struct.Struct("<BQ")
"""Opcode, length."""
MESSAGE_HEAD = struct.Struct("<BQHIQQ")
"""Opcode, length, channel, sequence, log_time, publish_time; the data follows."""
MESSAGE_FRONT = struct.Struct("<BQH")
MESSAGE_STAMP = struct.Struct("<IQQ")
"""`MESSAGE_HEAD` in two parts: what depends on the data's size, and what messages of a cycle share."""
CYCLE_RECORD = struct.Struct("<BQQQIIII")
"""Opcode, length, then `CYCLE_CONTENT`."""
CYCLE_CONTENT = struct.Struct("<QQIIII")
"""cycle, time_ns, message_count, byte_count, crc, reserved."""
CYCLE_CHECKED = struct.Struct("<QQII")
CYCLE_UNCHECKED = struct.Struct("<II")
"""`CYCLE_CONTENT` in two parts: what its crc covers, and crc and reserved."""
CHUNK_HEAD = struct.Struct("<BQQQQIIQ")
"""Opcode, length, message_start_time, message_end_time, uncompressed_size, uncompressed_crc, length
of the (empty) compression string, records_length; the records follow."""
INDEX_ENTRY = struct.Struct("<QQ")
"""log_time, offset of the Message in the chunk's records."""
FOOTER_CONTENT = struct.Struct("<QQI")

HEAD_SIZE = RECORD_HEAD.size
SEQUENCE_MASK = 0xFFFFFFFF
"""A Message's `sequence` is its cycle's number within this."""
MESSAGE_FIXED_SIZE = MESSAGE_HEAD.size - HEAD_SIZE
"""A Message's `length` is this plus the size of its data."""
CYCLE_SIZE = HEAD_SIZE + CYCLE_CONTENT.size
MESSAGE_INDEX_FIXED_SIZE = struct.calcsize("<HI")
"""A MessageIndex begins with its channel and the size of its entries."""
MESSAGE_INDEX_SIZE = HEAD_SIZE + MESSAGE_INDEX_FIXED_SIZE
CHUNK_FIXED_SIZE = CHUNK_HEAD.size - HEAD_SIZE
"""A closed chunk's `length` is this plus its `records_length`."""
FOOTER_SIZE = HEAD_SIZE + FOOTER_CONTENT.size

# Where the fields of a chunk's head are, from its opcode on. The chunk starts at offset % 8 == 7,
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
"""Payload parts of at least this size are aligned to `PART_ALIGNMENT`."""
PART_ALIGNMENT = 64
MAX_HELD_SIZE = 256 << 20
"""The most that a preamble or a summary may have: a reader holds them in memory."""
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
    log_time_ns: int
    create_time_ns: int


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a Metadata or Attachment record is; `length` counts its head too."""

    offset: int
    length: int


@dataclass(slots=True)
class ChunkInfo:
    """A closed chunk, as the summary lists it.

    start: offset of its opcode. length: bytes of the record, its head's 9 included.
    records_size: bytes of its records. start_time_ns, end_time_ns: of its messages; 0 without any.
    message_index_offsets: channel id -> offset of its MessageIndex record, in the file's order.
    message_index_length: bytes of all MessageIndex records after the chunk.
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

CRC_STARTS: Mapping[int, int] = {CYCLE: 0, LINES: crc32(bytes([LINES]))}
"""The records before messages: from what their crc is continued, so that none is taken for another."""
