"""Slabs made byte by byte from the tables in FORMAT.md, without any code of flowrun."""

import struct
import zlib
from dataclasses import dataclass, field

MAGIC = bytes.fromhex("89 4D 43 41 50 30 0D 0A")


def record(opcode, content):
    return struct.pack("<BQ", opcode, len(content)) + content


def text(value):
    return struct.pack("<I", len(value.encode())) + value.encode()


def pairs(values):
    body = b"".join(text(k) + text(v) for k, v in values.items())
    return struct.pack("<I", len(body)) + body


def pad(size):
    assert size >= 9
    return record(0x80, b"\xa5" * (size - 9))


def gap(offset, alignment, remainder):
    size = (remainder - offset) % alignment
    while 0 < size < 9:
        size += alignment
    return size


TRAILER = record(0x0F, bytes(4)) + record(0x02, bytes(20)) + MAGIC
GRAPH = b"tasks: []\n"
TOPICS = ("/cam/image", "/vlm/answer", "/flowrun/log")


@dataclass
class Builder:
    """Appends to `data` what a writer would have stored, in any state that it may be left in."""

    run_id: str = "run-1"
    slab: int = 0
    topics: tuple[str, ...] = TOPICS
    more: dict[str, str] = field(default_factory=dict)  # metadata of the run
    channel: dict[str, str] = field(default_factory=dict)  # metadata of the first channel
    data: bytearray = field(default_factory=bytearray)
    chunks: list = field(default_factory=list)  # (start, records_length, times, {channel: [...]})
    indexes: list = field(default_factory=list)
    metadata_places: list = field(default_factory=list)
    written: list = field(default_factory=list)  # what a reader must give back
    ends: list = field(default_factory=list)  # offset after each cycle
    records_start: int | None = None

    def __post_init__(self):
        d = self.data
        d += MAGIC + record(0x01, text("flowrun") + text("flowrun test"))
        own = {"format": "1", "run_id": self.run_id, "slab": str(self.slab), "graph": "g"}
        self.add_metadata("flowrun", own | self.more)
        content = struct.pack("<QQ", 5, 5) + text("graph.yaml") + text("application/yaml")
        content += struct.pack("<Q", len(GRAPH)) + GRAPH
        self.attachment_at = len(d)
        d += record(0x09, content + struct.pack("<I", zlib.crc32(content)))
        self.attachment_length = len(d) - self.attachment_at
        self.schemas = record(
            0x03, struct.pack("<H", 1) + text("Any") + text("jsonschema") + text('{"title":"Any"}')
        )
        self.channels = b"".join(
            record(
                0x04,
                struct.pack("<HH", number, 1)
                + text(topic)
                + text("msgpack")
                + pairs(
                    {"task": topic.split("/")[1], "port": topic.split("/")[2]}
                    | (self.channel if number == 1 else {})
                ),
            )
            for number, topic in enumerate(self.topics, 1)
        )
        d += self.schemas + self.channels
        self.add_check(0)
        self.preamble_size = len(d)

    def add_metadata(self, name, values):
        at = len(self.data)
        self.data += record(0x0C, text(name) + pairs(values))
        self.metadata_places.append((name, at, len(self.data) - at))
        return at

    def add_check(self, start):
        crc = zlib.crc32(self.data[start:])
        self.data += record(0x82, struct.pack("<QI", start, crc))

    def open_chunk(self):
        size = gap(len(self.data), 8, 7)
        if size:
            self.data += pad(size)
        self.chunk_start = len(self.data)
        self.data += struct.pack("<BQQQQIIQ", 6, 0, 0, 0, 0, 0, 0, 0)
        self.records_start = len(self.data)
        self.index = {}
        self.times = []

    def cycle(self, number, time_ns, messages):
        """messages: (channel, tov_ns, data); data of >= 4096 bytes is aligned to 64."""
        if self.records_start is None:
            self.open_chunk()
        at = len(self.data) + 41
        body = b""
        for channel, tov_ns, data in messages:
            if len(data) >= 4096:
                size = gap(at + len(body) + 31, 64, 0)
                body += pad(size) if size else b""
            self.index.setdefault(channel, []).append(
                (time_ns, at + len(body) - self.records_start)
            )
            body += record(5, struct.pack("<HIQQ", channel, number % 2**32, time_ns, tov_ns) + data)
            self.times.append(time_ns)
        head = struct.pack("<QQII", number, time_ns, len(messages), len(body))
        crc = zlib.crc32(body, zlib.crc32(head))
        self.data += record(0x81, head + struct.pack("<II", crc, 0)) + body
        self.written.append(
            (number, time_ns, [(self.topics[c - 1], tov, bytes(data)) for c, tov, data in messages])
        )
        self.ends.append(len(self.data))

    def set(self, at, value):
        struct.pack_into("<Q", self.data, at, value)

    def close_chunk(self, *, index=True, patched=True):
        size = len(self.data) - self.records_start
        for at, value in ((1, size + 40), (25, size), (41, size)):
            self.set(self.chunk_start + at, value)
        if patched:
            crc = zlib.crc32(self.data[self.records_start :])
            struct.pack_into(
                "<QQ",
                self.data,
                self.chunk_start + 9,
                min(self.times, default=0),
                max(self.times, default=0),
            )
            struct.pack_into("<I", self.data, self.chunk_start + 33, crc)
        times = (min(self.times, default=0), max(self.times, default=0))
        places = {}
        index_start = len(self.data)
        if index:
            for channel, entries in self.index.items():
                places[channel] = len(self.data)
                packed = b"".join(struct.pack("<QQ", *entry) for entry in entries)
                self.data += record(7, struct.pack("<HI", channel, len(packed)) + packed)
        counts = {channel: len(entries) for channel, entries in self.index.items()}
        self.chunks.append(
            (self.chunk_start, size, times, places, len(self.data) - index_start, counts)
        )
        self.records_start = None

    def leave_open(self, rest=300):
        """The state between two cycles: a PAD to the trailer, which the chunk's sizes reach to."""
        if self.records_start is None:
            self.open_chunk()
        self.data += pad(rest)
        size = len(self.data) - self.records_start
        for at, value in ((1, size + 40), (25, size), (41, size)):
            self.set(self.chunk_start + at, value)
        self.data += TRAILER
        return self

    def finish(self, end=None, *, truncated=True):
        if self.records_start is not None:
            self.close_chunk()
        if not truncated:
            self.data += pad(9)
        if end is not None:
            self.add_check(self.add_metadata("flowrun.end", end))
        self.data += record(0x0F, bytes(4))
        start = len(self.data)
        groups = []

        def group(opcode, content):
            if content:
                groups.append((opcode, len(self.data), len(content)))
            self.data.extend(content)

        group(3, self.schemas)
        group(4, self.channels)
        totals = {}
        for chunk in self.chunks:
            for channel, count in chunk[5].items():
                totals[channel] = totals.get(channel, 0) + count
        times = [time for chunk in self.chunks if chunk[5] for time in chunk[2]]
        counts = b"".join(struct.pack("<HQ", *item) for item in sorted(totals.items()))
        group(
            11,
            record(
                11,
                struct.pack(
                    "<QHIIIIQQI",
                    sum(totals.values()),
                    1,
                    len(self.topics),
                    1,
                    len(self.metadata_places),
                    len(self.chunks),
                    min(times, default=0),
                    max(times, default=0),
                    len(counts),
                )
                + counts,
            ),
        )
        group(
            8,
            b"".join(
                record(
                    8,
                    struct.pack("<QQQQI", *when, at, size + 49, 10 * len(places))
                    + b"".join(struct.pack("<HQ", *item) for item in places.items())
                    + struct.pack("<QIQQ", length, 0, size, size),
                )
                for at, size, when, places, length, _ in self.chunks
            ),
        )
        group(
            10,
            record(
                10,
                struct.pack("<QQQQQ", self.attachment_at, self.attachment_length, 5, 5, len(GRAPH))
                + text("graph.yaml")
                + text("application/yaml"),
            ),
        )
        group(
            13,
            b"".join(
                record(13, struct.pack("<QQ", at, length) + text(name))
                for name, at, length in self.metadata_places
            ),
        )
        offset_start = len(self.data)
        for item in groups:
            self.data += record(14, struct.pack("<BQQ", *item))
        self.data += record(2, struct.pack("<QQI", start, offset_start, 0))[:-4]
        self.data += struct.pack("<I", zlib.crc32(self.data[start:])) + MAGIC
        return self


def small(chunk_cycles=2, cycles=5, *, first=0, big=0, **kwargs):
    """A builder with some cycles of 0-3 messages, in chunks of `chunk_cycles`; the last is open."""
    builder = Builder(**kwargs)
    for number in range(first, first + cycles):
        messages = [
            (1 + place, 900 + number, bytes([0x81, 0xA1, 0x76, (number + place) % 128]))
            for place in range(number % 4)
        ]
        if big and number % 2:
            messages.append((1, 7, bytes([number]) * big))
        if number > first and (number - first) % chunk_cycles == 0:
            builder.close_chunk()
        builder.cycle(number, 1000 + 10 * number, messages)
    return builder
