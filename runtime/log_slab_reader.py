"""One slab, read: its preamble, its chunks, and the cycles in them, each checked.

`log_format` says what the bytes mean. Opening reads with `pread`, because the file of a live run
may be cut while it is opened, and a mapping would answer that with SIGBUS. Cycles are read from
the mapping, so that payloads are views of the file; only committed cycles are touched, and those
are never cut off.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flowrun.runtime import log_format as lf
from flowrun.runtime.errors import LogError

__all__ = ["ChunkSpan", "CycleHead", "Damage", "Entry", "SlabReader"]

Entry = tuple[str, int, memoryview]
"""Topic, tov_ns, payload."""

_SUMMARY_OPCODES = (lf.SCHEMA, lf.CHANNEL, lf.STATISTICS)
_PREAMBLE_OPCODES = (lf.HEADER, lf.METADATA, lf.ATTACHMENT, lf.SCHEMA, lf.CHANNEL, lf.CHECK)


class Damage(Exception):  # noqa: N818 - it ends the reading of a slab, and is told, not raised, to users
    """A byte that breaks the format: where, and how."""

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(f"byte {offset}: {text}")
        self.offset = offset


@dataclass(slots=True)
class ChunkSpan:
    """A chunk's place: its opcode, its records, and the end of the whole record."""

    start: int
    records_end: int
    end: int
    crc: int = 0
    closed: bool = False

    @property
    def records_start(self) -> int:
        return self.start + lf.CHUNK_RECORDS_AT


class CycleHead(NamedTuple):
    """A CYCLE record: its offset, where its records end, and its content."""

    offset: int
    end: int
    cycle: int
    time_ns: int
    message_count: int
    crc: int


class SlabReader:
    """One slab file, finished or not, damaged or whole, and also while it is written.

    Raises `LogError` where not even the preamble can be read. Whatever is wrong behind it is told
    by `damage`, and ends the slab there. A snapshot: sections that a live writer adds later are not
    seen, cycles that it adds in the present chunk are.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.path = path
        self.verify = verify
        self.metadata: dict[str, str] = {}
        self.attachments: dict[str, lf.Attachment] = {}
        self.schemas: dict[int, lf.Schema] = {}
        self.channels: dict[int, lf.Channel] = {}
        self.places: dict[str, lf.Placed] = {}
        """Where each Metadata and Attachment record of the preamble stands, by name."""
        self.chunks: list[ChunkSpan] = []
        self.statistics: lf.Statistics | None = None
        self.finished = False
        self.end: dict[str, str] | None = None
        self.damage: Damage | None = None
        self._firsts: dict[int, CycleHead | None] = {}
        self._heads: tuple[int, list[CycleHead]] = (-1, [])
        try:
            with path.open("rb") as file:
                self._fd = file.fileno()
                self.size = os.fstat(self._fd).st_size
                self._read_preamble()
                self._read_structure()
                # A live writer may have grown or finished the file meanwhile.
                size = os.fstat(self._fd).st_size
                self._map = _mapped(self._fd, size)
        except OSError as error:
            raise LogError(f"{path}: cannot be read: {error.strerror}") from error
        self.view = memoryview(self._map)
        for chunk in self.chunks:
            chunk.records_end = min(chunk.records_end, size)
        self.topics = {channel.id: channel.topic for channel in self.channels.values()}

    def close(self) -> None:
        """Give the mapping back, now or when the last payload that views it is gone."""
        self.view.release()
        with contextlib.suppress(BufferError):  # payloads still view it; the last of them frees it
            self._map.close()

    # -- opening -------------------------------------------------------------------------------

    def _pread(self, offset: int, size: int) -> bytes:
        if size < 0 or offset + size > self.size:
            raise Damage(
                offset, f"truncated record: expected {size} bytes, got {max(0, self.size - offset)}"
            )
        if size > lf.MAX_HELD_SIZE:
            raise Damage(offset, f"{size} bytes; expected at most {lf.MAX_HELD_SIZE}")
        data = os.pread(self._fd, size, offset)
        if len(data) < size:  # cut by its writer since it was opened
            raise Damage(offset, f"truncated record: expected {size} bytes, got {len(data)}")
        return data

    def _head(self, offset: int) -> tuple[int, int]:
        opcode, length = lf.RECORD_HEAD.unpack(self._pread(offset, lf.HEAD_SIZE))
        return opcode, length

    def _content(self, offset: int, length: int) -> bytes:
        return self._pread(offset + lf.HEAD_SIZE, length)

    def _read_preamble(self) -> None:
        try:
            self._read_checked_preamble()
        except Damage as damage:
            raise LogError(
                f"{self.path}: {damage}; the preamble is needed to read a slab"
            ) from None

    def _read_checked_preamble(self) -> None:
        magic = os.pread(self._fd, len(lf.MAGIC), 0)
        if magic != lf.MAGIC:
            raise LogError(f"{self.path}: byte 0: not an MCAP file: it begins with {magic!r}")
        places: list[tuple[int, int, int]] = []
        offset = len(lf.MAGIC)
        opcode = 0
        while opcode != lf.CHECK:
            opcode, length = self._head(offset)
            if opcode not in _PREAMBLE_OPCODES or (opcode == lf.HEADER) != (not places):
                self._refuse_preamble(opcode, offset, places)
            available = self.size - offset - lf.HEAD_SIZE
            if length > available:
                raise Damage(offset, f"truncated record: expected {length} bytes, got {available}")
            if not places:
                self._check_profile(offset, length)
            places.append((opcode, offset, length))
            offset += lf.HEAD_SIZE + length
        _, at, length = places.pop()
        self._check(at, length, start=0)
        self.preamble_end = offset
        for opcode, at, length in places:
            try:
                self._keep(opcode, at, length)
            except ValueError as error:
                raise Damage(at, str(error)) from error
        written = self.metadata.get("format")
        if written != lf.FORMAT:
            raise LogError(
                f"{self.path}: log format {written!r}; this flowrun reads format {lf.FORMAT!r}"
            )

    def _refuse_preamble(
        self, opcode: int, offset: int, places: list[tuple[int, int, int]]
    ) -> None:
        expected = "Header" if not places else "Metadata, Attachment, Schema, Channel or CHECK"
        raise Damage(offset, f"unexpected record of opcode {opcode:#04x}: expected {expected}")

    def _check_profile(self, offset: int, length: int) -> None:
        try:
            profile, _ = lf.unpack_header(self._content(offset, length))
        except ValueError as error:
            raise Damage(offset, f"Header: {error}") from error
        if profile != lf.PROFILE:
            raise LogError(
                f"{self.path}: an MCAP file of profile {profile!r}, not a log of flowrun"
            )

    def _keep(self, opcode: int, offset: int, length: int) -> None:
        content = self._content(offset, length)
        placed = lf.Placed(offset, lf.HEAD_SIZE + length)
        if opcode == lf.METADATA:
            name, metadata = lf.unpack_metadata(content)
            self.places[name] = placed
            if name == lf.METADATA_NAME:
                self.metadata = metadata
        elif opcode == lf.ATTACHMENT:
            attachment = lf.unpack_attachment(content)
            self.attachments[attachment.name] = attachment
            self.places[attachment.name] = placed
        elif opcode == lf.SCHEMA:
            schema = lf.unpack_schema(content)
            self.schemas[schema.id] = schema
        elif opcode == lf.CHANNEL:
            channel = lf.unpack_channel(content)
            self.channels[channel.id] = channel

    def _check(self, offset: int, length: int, *, start: int) -> None:
        try:
            given_start, crc = lf.unpack_check(self._content(offset, length))
        except ValueError as error:
            raise Damage(offset, f"CHECK: {error}") from error
        if given_start != start:
            raise Damage(offset, f"CHECK from byte {given_start}: expected from byte {start}")
        actual = lf.crc32(self._pread(start, offset - start))
        if actual != crc:
            raise Damage(
                start, f"bytes up to {offset} have CRC {actual:#010x}; expected {crc:#010x}"
            )

    def _read_structure(self) -> None:
        try:
            self.finished = self._read_summary()
        except (Damage, ValueError) as error:
            # The data may well be whole: read it from its beginning, but say so.
            self.chunks, self.statistics, self.end = [], None, None
            self._walk_file()
            if self.damage is None:
                offset = error.offset if isinstance(error, Damage) else self.size
                self.damage = Damage(offset, f"the summary is damaged ({error})")
            return
        if not self.finished:
            self._walk_file()

    def _read_summary(self) -> bool:
        """Take chunks and counts from the summary; False where the slab has none."""
        footer_at = self.size - lf.FOOTER_SIZE - len(lf.MAGIC)
        if footer_at < self.preamble_end:
            return False
        tail = self._pread(footer_at, lf.FOOTER_SIZE + len(lf.MAGIC))
        opcode, length = lf.RECORD_HEAD.unpack_from(tail)
        if (opcode, length) != (lf.FOOTER, lf.FOOTER_CONTENT.size) or not tail.endswith(lf.MAGIC):
            return False
        start, _, crc = lf.FOOTER_CONTENT.unpack_from(tail, lf.HEAD_SIZE)
        if start == 0:
            return False
        if not self.preamble_end < start <= footer_at:
            raise Damage(footer_at, f"summary at byte {start}")
        summary = self._pread(start, footer_at - start)
        actual = lf.crc32(tail[: lf.FOOTER_SIZE - 4], lf.crc32(summary))
        if actual != crc:
            raise Damage(start, f"its CRC is {actual:#010x}; expected {crc:#010x}")
        position = 0
        while position + lf.HEAD_SIZE <= len(summary):
            opcode, length = lf.RECORD_HEAD.unpack_from(summary, position)
            content = memoryview(summary)[position + lf.HEAD_SIZE :][:length]
            if len(content) != length:
                raise Damage(start + position, "a record reaches beyond the summary")
            if opcode == lf.CHUNK_INDEX:
                self._add_indexed(lf.unpack_chunk_index(content), start)
            elif opcode == lf.STATISTICS:
                self.statistics = lf.unpack_statistics(content)
            elif opcode == lf.METADATA_INDEX:
                self._read_indexed_end(content)
            position += lf.HEAD_SIZE + length
        return True

    def _add_indexed(self, chunk: lf.ChunkInfo, data_end: int) -> None:
        least = self.chunks[-1].end if self.chunks else self.preamble_end
        end = chunk.start + chunk.length
        if not least <= chunk.start <= end <= data_end or chunk.length != (
            lf.CHUNK_HEAD.size + chunk.records_size
        ):
            raise Damage(chunk.start, "a chunk whose place in the summary cannot be")
        self.chunks.append(ChunkSpan(chunk.start, end, end, closed=True))

    def _read_indexed_end(self, content: memoryview) -> None:
        placed, name = lf.unpack_metadata_index(content)
        if name == lf.END_NAME:
            opcode, length = self._head(placed.offset)
            if opcode != lf.METADATA:
                raise Damage(placed.offset, f"opcode {opcode:#04x}: expected Metadata")
            self._read_end(placed.offset, length)

    def _read_end(self, offset: int, length: int) -> int:
        """The offset behind the Metadata "flowrun.end" at `offset` and its CHECK."""
        check_at = offset + lf.HEAD_SIZE + length
        opcode, check_length = self._head(check_at)
        if opcode != lf.CHECK:
            raise Damage(check_at, f"opcode {opcode:#04x}: expected CHECK")
        self._check(check_at, check_length, start=offset)
        try:
            name, end = lf.unpack_metadata(self._content(offset, length))
        except ValueError as error:
            raise Damage(offset, f"Metadata: {error}") from error
        if name == lf.END_NAME:
            self.end = end
        return check_at + lf.HEAD_SIZE + check_length

    def _walk_file(self) -> None:
        """Find the chunks of a slab that has no summary, from the preamble to DataEnd."""
        try:
            offset = self.preamble_end
            pads = 0
            while True:
                opcode, length = self._head(offset)
                after = offset + lf.HEAD_SIZE + length
                if opcode == lf.DATA_END:
                    self._check_data_end(offset, length)
                    return
                if self.chunks and not self.chunks[-1].closed:
                    self._check_closed(self.chunks[-1])
                if opcode == lf.CHUNK:
                    self._add_chunk(offset, length)
                    if pads > lf.MAX_PAD_BETWEEN_CHUNKS:
                        self._check_just_begun(offset, pads)
                    pads = 0
                elif opcode == lf.METADATA:
                    after = self._read_end(offset, length)
                elif opcode == lf.MESSAGE_INDEX:
                    if not self.chunks or length < 6 or (length - 6) % 16:
                        raise Damage(offset, f"unexpected MessageIndex of {length} bytes")
                elif opcode == lf.PAD:
                    pads += lf.HEAD_SIZE + length
                elif opcode in _SUMMARY_OPCODES and pads == len(lf.pack_data_end()):
                    return  # the DataEnd in front is about to be committed
                elif opcode != lf.CHECK:
                    raise Damage(offset, f"unexpected record of opcode {opcode:#04x}")
                if after > self.size:
                    raise Damage(
                        offset,
                        f"truncated record: expected {length} bytes, "
                        f"got {self.size - offset - lf.HEAD_SIZE}",
                    )
                offset = after
        except Damage as damage:
            self.damage = damage

    def _add_chunk(self, offset: int, length: int) -> None:
        head = lf.CHUNK_HEAD.unpack(self._pread(offset, lf.CHUNK_HEAD.size))
        _, _, _, _, _, crc, compression, records_length = head
        if compression:
            raise Damage(offset, "a compressed chunk")
        end = offset + lf.HEAD_SIZE + length
        records_end = min(offset + lf.CHUNK_RECORDS_AT + records_length, self.size)
        self.chunks.append(ChunkSpan(offset, records_end, end, crc))
        if records_length + lf.CHUNK_FIXED_SIZE > length:
            raise Damage(
                offset, f"chunk of {length} bytes: its {records_length} bytes of records do not fit"
            )

    def _check_just_begun(self, offset: int, pads: int) -> None:
        """The first of the records between two chunks is a PAD until it is committed, just before
        the first cycle of the second: behind long PADs there is no cycle.
        """
        first = offset + lf.CHUNK_RECORDS_AT
        if self._pread(first, 1)[0] == lf.CYCLE:
            self.chunks.pop()
            raise Damage(
                offset,
                f"{pads} bytes of PADs in front of a Chunk: "
                f"expected at most {lf.MAX_PAD_BETWEEN_CHUNKS}",
            )

    def _check_closed(self, chunk: ChunkSpan) -> None:
        """A chunk that DataEnd does not follow was closed: its three sizes agree."""
        head = lf.CHUNK_HEAD.unpack(self._pread(chunk.start, lf.CHUNK_HEAD.size))
        _, length, _, _, size, _, _, records_length = head
        if not length - lf.CHUNK_FIXED_SIZE == size == records_length:
            raise Damage(
                chunk.start, f"sizes of a closed chunk differ: {length}, {size}, {records_length}"
            )
        chunk.closed = True

    def _check_data_end(self, offset: int, length: int) -> None:
        available = min(self.size - offset, len(lf.TRAILER))
        found = self._pread(offset, available)
        if found == lf.TRAILER:
            return
        if self.chunks and not self.chunks[-1].closed:
            self._check_closed(self.chunks[-1])
        behind = len(lf.pack_data_end())
        if length != 4 or len(found) <= behind or found[behind] not in _SUMMARY_OPCODES:
            raise Damage(offset, "the trailer is damaged or cut off")

    # -- reading -------------------------------------------------------------------------------

    def records(
        self, index: int, start: int | None = None
    ) -> Iterator[tuple[int, int, int, list[Entry]]]:
        """Offset, number, time and messages of each cycle of chunk `index`, from that at `start`.

        Checked, if the slab is opened so. Raises `Damage`.
        """
        # What `heads`, `check` and `entries` do, written out for a cycle that is as it should be:
        # calls and named tuples would take twice the time. Any other cycle is left to them.
        chunk = self.chunks[index]
        offset = chunk.records_start if start is None else start
        view, topics, verify, crc32 = self.view, self.topics, self.verify, lf.crc32
        unpack_cycle, unpack = lf.CYCLE_RECORD.unpack_from, lf.MESSAGE_HEAD.unpack_from
        if self.finished:
            self._check_indexed(chunk)
        while True:
            while chunk.records_end - offset >= lf.CYCLE_SIZE:
                opcode, length, cycle, time_ns, count, size, crc, reserved = unpack_cycle(
                    view, offset
                )
                at = offset + 41
                end = at + size
                if opcode != 0x81 or length != 32 or reserved or end > chunk.records_end:
                    break
                if verify and crc32(view[at:end], crc32(view[offset + 9 : offset + 33])) != crc:
                    break
                sequence = cycle & 0xFFFFFFFF
                entries: list[Entry] = []
                try:
                    while at < end:
                        opcode, length, channel, number, log_time, tov_ns = unpack(view, at)
                        after = at + 9 + length
                        if opcode == 0x05:
                            if number != sequence or log_time != time_ns or length < 22:
                                break
                            entries.append((topics[channel], tov_ns, view[at + 31 : after]))
                        elif opcode != 0x80:
                            break
                        at = after
                except (struct.error, KeyError):
                    break
                if at != end or len(entries) != count:
                    break
                yield offset, cycle, time_ns, entries
                offset = end
            head = next(self.heads(index, offset), None)
            if head is None:
                return
            yield head.offset, head.cycle, head.time_ns, self.entries(head)
            offset = head.end

    def heads(self, index: int, start: int | None = None) -> Iterator[CycleHead]:
        """The CYCLE records of chunk `index`, from the one at `start`; raises `Damage`.

        Nobody has checked their crc yet.
        """
        chunk = self.chunks[index]
        view = self.view
        unpack = lf.CYCLE_RECORD.unpack_from
        offset = chunk.records_start if start is None else start
        end = chunk.records_end
        if self.finished:
            self._check_indexed(chunk)
        while offset < end:
            opcode = view[offset]
            if opcode != lf.CYCLE or end - offset < lf.CYCLE_SIZE:
                if opcode != lf.PAD or chunk.closed:
                    if self._was_closed(chunk, offset):
                        return
                    raise Damage(
                        offset, f"unexpected record of opcode {opcode:#04x}: expected CYCLE"
                    )
                self._check_unused(offset, end)
                return
            _, length, cycle, time_ns, count, size, crc, reserved = unpack(view, offset)
            after = offset + lf.CYCLE_SIZE + size
            if length != lf.CYCLE_CONTENT.size or reserved or after > end:
                raise Damage(
                    offset,
                    f"CYCLE of {length} bytes, {size} bytes of messages and reserved {reserved}, "
                    f"{end - offset} bytes before the end of its chunk",
                )
            yield CycleHead(offset, after, cycle, time_ns, count, crc)
            offset = after

    def _check_indexed(self, chunk: ChunkSpan) -> None:
        head = lf.CHUNK_HEAD.unpack_from(self.view, chunk.start)
        opcode, length, _, _, size, chunk.crc, compression, records_length = head
        if (opcode, length, compression) != (lf.CHUNK, chunk.end - chunk.start - lf.HEAD_SIZE, 0):
            raise Damage(chunk.start, "not the Chunk that the summary lists here")
        if not size == records_length == chunk.records_end - chunk.records_start:
            raise Damage(chunk.start, "a Chunk of another size than the summary lists")

    def _was_closed(self, chunk: ChunkSpan, offset: int) -> bool:
        """Whether a live writer has closed the chunk at `offset` since it was found open."""
        if self.finished or chunk is not self.chunks[-1]:
            return False
        head = lf.CHUNK_HEAD.unpack_from(self.view, chunk.start)
        if head[0] != lf.CHUNK or chunk.records_start + head[-1] != offset:
            return False
        chunk.records_end = offset
        return True

    def _check_unused(self, offset: int, end: int) -> None:
        """Behind the first PAD at `offset` only PADs and a cycle that is being committed stand."""
        start = offset
        while end - offset >= lf.HEAD_SIZE:
            opcode, length = lf.RECORD_HEAD.unpack_from(self.view, offset)
            if opcode not in (lf.PAD, lf.MESSAGE):
                if self.view[start] == lf.CYCLE or self._was_closed(self.chunks[-1], start):
                    return  # a live writer committed or closed it this moment
                raise Damage(
                    start, f"a PAD with a record of opcode {opcode:#04x} behind it, at {offset}"
                )
            offset += lf.HEAD_SIZE + length

    def check(self, head: CycleHead) -> None:
        """Raise `Damage` where the cycle's crc does not match."""
        offset = head.offset
        content = self.view[offset + lf.HEAD_SIZE : offset + lf.HEAD_SIZE + lf.CYCLE_CHECKED.size]
        crc = lf.crc32(self.view[offset + lf.CYCLE_SIZE : head.end], lf.crc32(content))
        if crc != head.crc:
            raise Damage(
                offset, f"cycle {head.cycle} has CRC {crc:#010x}; expected {head.crc:#010x}"
            )

    def entries(self, head: CycleHead) -> list[Entry]:
        """The cycle's messages in the file's order, checked if the slab is opened so."""
        if self.verify:
            self.check(head)
        view, topics = self.view, self.topics
        unpack, fixed_size = lf.MESSAGE_HEAD.unpack_from, lf.MESSAGE_HEAD.size
        time_ns, sequence = head.time_ns, head.cycle & 0xFFFFFFFF
        entries: list[Entry] = []
        offset, end = head.offset + lf.CYCLE_SIZE, head.end
        while offset < end:
            if end - offset >= fixed_size:
                opcode, length, channel, number, log_time, tov_ns = unpack(view, offset)
            elif end - offset >= lf.HEAD_SIZE:
                opcode, length = lf.RECORD_HEAD.unpack_from(view, offset)
            else:
                raise Damage(offset, f"cycle {head.cycle} ends inside a record's head")
            after = offset + lf.HEAD_SIZE + length
            if opcode == lf.MESSAGE and offset + fixed_size <= after <= end:
                if number != sequence or log_time != time_ns or channel not in topics:
                    raise Damage(
                        offset,
                        f"Message of channel {channel}, sequence {number}, time {log_time} "
                        f"in cycle {head.cycle}, time {time_ns}",
                    )
                entries.append((topics[channel], tov_ns, view[offset + fixed_size : after]))
            elif opcode != lf.PAD or after > end:
                raise Damage(
                    offset,
                    f"record of opcode {opcode:#04x} and {length} bytes in cycle {head.cycle}: "
                    f"expected a Message or PAD of at most {end - offset - lf.HEAD_SIZE}",
                )
            offset = after
        if len(entries) != head.message_count:
            raise Damage(
                head.offset,
                f"cycle {head.cycle} has {len(entries)} messages; expected {head.message_count}",
            )
        return entries

    def first(self, index: int) -> CycleHead | None:
        """The first CYCLE of chunk `index`; None where it has none, or a damaged one."""
        if index in self._firsts:
            return self._firsts[index]
        try:
            head = next(self.heads(index), None)
            if head is not None and self.verify:
                self.check(head)
        except Damage:
            head = None
        if head is not None or self.finished:
            self._firsts[index] = head
        return head

    def chunk_of(self, *, cycle: int | None = None, time_ns: int | None = None) -> int:
        """The last chunk that may hold the first cycle that is not before both; O(log n)."""
        if cycle is None and time_ns is None:
            return 0

        def is_behind(index: int) -> bool:
            head = self.first(index)
            if head is None:  # reading from in front of it tells what is wrong there
                return True
            return (cycle is not None and head.cycle > cycle) or (
                time_ns is not None and head.time_ns >= time_ns
            )

        found = bisect_right(range(len(self.chunks)), x=False, key=is_behind)
        return max(0, found - 1)

    def offset_of(
        self, index: int, *, cycle: int | None = None, time_ns: int | None = None
    ) -> int | None:
        """Offset of the first cycle of chunk `index` that is not before both.

        Where there is none, the offset behind those that there are. The heads of the chunk asked
        for last are kept.
        """
        kept, heads = self._heads
        if kept != index:
            heads = []
        if kept != index or not self.chunks[index].closed:
            with contextlib.suppress(Damage):  # found again when the cycles are read
                heads.extend(self.heads(index, heads[-1].end if heads else None))
            self._heads = (index, heads)

        def is_wanted(head: CycleHead) -> bool:
            return (cycle is None or head.cycle >= cycle) and (
                time_ns is None or head.time_ns >= time_ns
            )

        found = bisect_right(heads, x=False, key=is_wanted)
        if found < len(heads):
            return heads[found].offset
        return heads[-1].end if heads else None


def _mapped(fd: int, size: int) -> mmap.mmap:
    try:
        return mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    except ValueError as error:  # the file was cut in this moment
        raise OSError(errno.EAGAIN, f"it changes while it is opened ({error})") from error
