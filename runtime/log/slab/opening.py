"""One slab, opened: what its preamble and its summary say, and where its chunks are.

FORMAT.md says what the bytes mean. Opening reads with `pread`, because the file of a live run
may be cut while it is opened, and a mapping would answer that with SIGBUS.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from flowrun.runtime.errors import LogDamaged, LogError
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.records import (
    TRAILER,
    cycle_crc,
    pack_data_end,
    unpack_attachment,
    unpack_channel,
    unpack_check,
    unpack_chunk_index,
    unpack_header,
    unpack_metadata,
    unpack_metadata_index,
    unpack_schema,
    unpack_statistics,
)

__all__ = ["ChunkSpan", "Damage", "SlabFile"]

_SUMMARY_BEGINS = (fmt.SCHEMA, fmt.CHANNEL, fmt.STATISTICS)
_SUMMARY_OPCODES = (
    *_SUMMARY_BEGINS,
    fmt.CHUNK_INDEX,
    fmt.ATTACHMENT_INDEX,
    fmt.METADATA_INDEX,
    fmt.SUMMARY_OFFSET,
)
_OPEN_TRIES = 5
"""How often a slab is read again that its writer changes while it is opened."""
_PREAMBLE_OPCODES = (fmt.HEADER, fmt.METADATA, fmt.ATTACHMENT, fmt.SCHEMA, fmt.CHANNEL, fmt.CHECK)


class Damage(Exception):  # noqa: N818 - it ends the reading of a slab, and is shown, not raised, to users
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
        return self.start + fmt.CHUNK_RECORDS_AT


class SlabFile:
    """What opening finds out about a slab; `SlabReader` reads its cycles.

    Raises `LogError` where not even the preamble can be read. `damage` says what is wrong after it,
    and ends the slab there.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.path = path
        self.verify = verify
        self.metadata: dict[str, str] = {}
        self.attachments: dict[str, fmt.Attachment] = {}
        self.schemas: dict[int, fmt.Schema] = {}
        self.channels: dict[int, fmt.Channel] = {}
        self.places: dict[str, fmt.Placed] = {}
        """Where each Metadata and Attachment record of the preamble is, by name."""
        self.chunks: list[ChunkSpan] = []
        self.statistics: fmt.Statistics | None = None
        self.finished = False
        self.end: dict[str, str] | None = None
        self.damage: Damage | None = None
        self._summary_at: int | None = None
        """Where the walk over the file came to a summary."""
        try:
            with path.open("rb") as file:
                self._fd = file.fileno()
                size = self._read()
                for _ in range(_OPEN_TRIES):
                    if self.damage is None or size == self.size:
                        break
                    # Its writer grew or finished it while we read: what looks damaged is only torn.
                    self._forget()
                    size = self._read()
                self._map = _mapped(self._fd, size)
        except OSError as error:
            raise LogError(f"{path}: cannot be read: {error.strerror}") from error
        self.view = memoryview(self._map)
        for chunk in self.chunks:
            chunk.records_end = min(chunk.records_end, size)
        self.topics = {channel.id: channel.topic for channel in self.channels.values()}
        self.channel_ids = {topic: number for number, topic in self.topics.items()}

    def close(self) -> None:
        """Give the mapping back, now or when the last payload that views it is gone."""
        self.view.release()
        with contextlib.suppress(BufferError):  # payloads still view it; the last of them frees it
            self._map.close()

    # -- opening -------------------------------------------------------------------------------

    def _read(self) -> int:
        """Read all but the cycles; the size of the file afterwards."""
        self.size = os.fstat(self._fd).st_size
        self._read_preamble()
        self._read_structure()
        return os.fstat(self._fd).st_size

    def _forget(self) -> None:
        for found in (self.metadata, self.attachments, self.schemas, self.channels, self.places):
            found.clear()
        self.chunks.clear()
        self.statistics = self.end = self.damage = self._summary_at = None
        self.finished = False

    def _pread(self, offset: int, size: int) -> bytes:
        if size < 0 or offset + size > self.size:
            raise Damage(
                offset, f"truncated record: expected {size} bytes, got {max(0, self.size - offset)}"
            )
        if size > fmt.MAX_HELD_SIZE:
            raise Damage(offset, f"{size} bytes; expected at most {fmt.MAX_HELD_SIZE}")
        data = os.pread(self._fd, size, offset)
        if len(data) < size:  # cut by its writer since it was opened
            raise Damage(offset, f"truncated record: expected {size} bytes, got {len(data)}")
        return data

    def _head(self, offset: int) -> tuple[int, int]:
        opcode, length = fmt.RECORD_HEAD.unpack(self._pread(offset, fmt.HEAD_SIZE))
        return opcode, length

    def _content(self, offset: int, length: int) -> bytes:
        return self._pread(offset + fmt.HEAD_SIZE, length)

    def _read_preamble(self) -> None:
        try:
            self._read_checked_preamble()
        except Damage as damage:
            raise LogDamaged(
                f"{self.path}: {damage}; the preamble is needed to read a slab"
            ) from None

    def _read_checked_preamble(self) -> None:
        magic = os.pread(self._fd, len(fmt.MAGIC), 0)
        if magic == bytes(len(fmt.MAGIC)):
            raise LogDamaged(f"{self.path}: byte 0: its beginning was never written")
        if magic != fmt.MAGIC:
            raise LogDamaged(f"{self.path}: byte 0: not an MCAP file: it begins with {magic!r}")
        places: list[tuple[int, int, int]] = []
        offset = len(fmt.MAGIC)
        opcode = 0
        while opcode != fmt.CHECK:
            opcode, length = self._head(offset)
            if opcode not in _PREAMBLE_OPCODES or (opcode == fmt.HEADER) != (not places):
                self._refuse_preamble(opcode, offset, places)
            available = self.size - offset - fmt.HEAD_SIZE
            if length > available:
                raise Damage(offset, f"truncated record: expected {length} bytes, got {available}")
            if not places:
                self._check_profile(offset, length)
            places.append((opcode, offset, length))
            offset += fmt.HEAD_SIZE + length
        _, at, length = places.pop()
        self._check(at, length, start=0)
        self.preamble_end = offset
        for opcode, at, length in places:
            try:
                self._keep(opcode, at, length)
            except ValueError as error:
                raise Damage(at, str(error)) from error
        written = self.metadata.get("format")
        if written != fmt.FORMAT:
            raise LogError(
                f"{self.path}: log format {written!r}; this flowrun reads format {fmt.FORMAT!r}"
            )

    def _refuse_preamble(
        self, opcode: int, offset: int, places: list[tuple[int, int, int]]
    ) -> None:
        expected = "Header" if not places else "Metadata, Attachment, Schema, Channel or CHECK"
        raise Damage(offset, f"unexpected record of opcode {opcode:#04x}: expected {expected}")

    def _check_profile(self, offset: int, length: int) -> None:
        try:
            profile, _ = unpack_header(self._content(offset, length))
        except ValueError as error:
            raise Damage(offset, f"Header: {error}") from error
        if profile != fmt.PROFILE:
            raise LogDamaged(
                f"{self.path}: an MCAP file of profile {profile!r}, not a log of flowrun"
            )

    def _keep(self, opcode: int, offset: int, length: int) -> None:
        content = self._content(offset, length)
        placed = fmt.Placed(offset, fmt.HEAD_SIZE + length)
        if opcode == fmt.METADATA:
            name, metadata = unpack_metadata(content)
            self.places[name] = placed
            if name == fmt.METADATA_NAME:
                self.metadata = metadata
        elif opcode == fmt.ATTACHMENT:
            attachment = unpack_attachment(content)
            self.attachments[attachment.name] = attachment
            self.places[attachment.name] = placed
        elif opcode == fmt.SCHEMA:
            schema = unpack_schema(content)
            if schema.id in self.schemas:
                raise ValueError(f"a second Schema of id {schema.id}")
            self.schemas[schema.id] = schema
        elif opcode == fmt.CHANNEL:
            channel = unpack_channel(content)
            if channel.id in self.channels:
                raise ValueError(f"a second Channel of id {channel.id}")
            if any(channel.topic == other.topic for other in self.channels.values()):
                raise ValueError(f"a second Channel of topic {channel.topic!r}")
            self.channels[channel.id] = channel

    def _check(self, offset: int, length: int, *, start: int) -> None:
        try:
            given_start, crc = unpack_check(self._content(offset, length))
        except ValueError as error:
            raise Damage(offset, f"CHECK: {error}") from error
        if given_start != start:
            raise Damage(offset, f"CHECK from byte {given_start}: expected from byte {start}")
        actual = fmt.crc32(self._pread(start, offset - start))
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
            if self.damage is None and self._summary_at is not None:
                self._check_uncut(self._summary_at)

    def _read_summary(self) -> bool:
        """Take chunks and counts from the summary; False where the slab has none."""
        footer_at = self.size - fmt.FOOTER_SIZE - len(fmt.MAGIC)
        if footer_at < self.preamble_end:
            return False
        tail = self._pread(footer_at, fmt.FOOTER_SIZE + len(fmt.MAGIC))
        opcode, length = fmt.RECORD_HEAD.unpack_from(tail)
        if (opcode, length) != (fmt.FOOTER, fmt.FOOTER_CONTENT.size) or not tail.endswith(
            fmt.MAGIC
        ):
            return False
        start, _, _ = fmt.FOOTER_CONTENT.unpack_from(tail, fmt.HEAD_SIZE)
        if start == 0:
            return False
        if not self.preamble_end < start <= footer_at:
            raise Damage(footer_at, f"summary at byte {start}")
        summary = self._checked_summary(start, footer_at)
        position = 0
        while position + fmt.HEAD_SIZE <= len(summary):
            opcode, length = fmt.RECORD_HEAD.unpack_from(summary, position)
            content = memoryview(summary)[position + fmt.HEAD_SIZE :][:length]
            if len(content) != length:
                raise Damage(start + position, "a record reaches beyond the summary")
            if opcode == fmt.CHUNK_INDEX:
                self._add_indexed(unpack_chunk_index(content), start)
            elif opcode == fmt.STATISTICS:
                self.statistics = unpack_statistics(content)
            elif opcode == fmt.METADATA_INDEX:
                self._read_indexed_end(content)
            position += fmt.HEAD_SIZE + length
        return True

    def _checked_summary(self, start: int, footer_at: int) -> bytes:
        """The records of the summary between `start` and the Footer, which has their CRC."""
        summary = self._pread(start, footer_at - start)
        footer = self._pread(footer_at, fmt.FOOTER_SIZE)
        _, _, crc = fmt.FOOTER_CONTENT.unpack_from(footer, fmt.HEAD_SIZE)
        actual = fmt.crc32(footer[:-4], fmt.crc32(summary))
        if actual != crc:
            raise Damage(start, f"its CRC is {actual:#010x}; expected {crc:#010x}")
        return summary

    def _add_indexed(self, chunk: fmt.ChunkInfo, data_end: int) -> None:
        least = self.chunks[-1].end if self.chunks else self.preamble_end
        end = chunk.start + chunk.length
        if not least <= chunk.start <= end <= data_end:
            raise Damage(
                chunk.start,
                f"the summary puts a chunk at {chunk.start}-{end}; "
                f"expected it between {least} and {data_end}",
            )
        if chunk.length != fmt.CHUNK_HEAD.size + chunk.records_size:
            raise Damage(
                chunk.start,
                f"the summary gives a chunk of {chunk.length} bytes {chunk.records_size} bytes of "
                f"records; expected {chunk.length - fmt.CHUNK_HEAD.size}",
            )
        self.chunks.append(ChunkSpan(chunk.start, end, end, closed=True))

    def _read_indexed_end(self, content: memoryview) -> None:
        placed, name = unpack_metadata_index(content)
        if name == fmt.END_NAME:
            opcode, length = self._head(placed.offset)
            if opcode != fmt.METADATA:
                raise Damage(placed.offset, f"opcode {opcode:#04x}: expected Metadata")
            self._read_end(placed.offset, length)

    def _read_end(self, offset: int, length: int) -> int:
        """The offset after the Metadata "flowrun.end" at `offset` and its CHECK."""
        check_at = offset + fmt.HEAD_SIZE + length
        opcode, check_length = self._head(check_at)
        if opcode != fmt.CHECK:
            raise Damage(check_at, f"opcode {opcode:#04x}: expected CHECK")
        self._check(check_at, check_length, start=offset)
        try:
            name, end = unpack_metadata(self._content(offset, length))
        except ValueError as error:
            raise Damage(offset, f"Metadata: {error}") from error
        if name == fmt.END_NAME:
            self.end = end
        return check_at + fmt.HEAD_SIZE + check_length

    def _walk_file(self) -> None:
        """Find the chunks of a slab that has no summary, from the preamble to DataEnd."""
        try:
            offset = self.preamble_end
            pads = 0
            while True:
                opcode, length = self._head(offset)
                after = offset + fmt.HEAD_SIZE + length
                if opcode == fmt.DATA_END:
                    self._check_data_end(offset, length)
                    return
                if self.chunks and not self.chunks[-1].closed:
                    self._check_closed(self.chunks[-1])
                if opcode == fmt.CHUNK:
                    self._add_chunk(offset, length)
                    if pads > fmt.MAX_PAD_BETWEEN_CHUNKS:
                        self._check_just_begun(offset, pads)
                    pads = 0
                elif opcode == fmt.METADATA:
                    after = self._read_end(offset, length)
                elif opcode == fmt.MESSAGE_INDEX:
                    entries = length - fmt.MESSAGE_INDEX_FIXED_SIZE
                    if not self.chunks or entries < 0 or entries % fmt.INDEX_ENTRY.size:
                        raise Damage(offset, f"unexpected MessageIndex of {length} bytes")
                elif opcode == fmt.PAD:
                    self._check_hides_nothing(offset, after)
                    pads += fmt.HEAD_SIZE + length
                elif opcode in _SUMMARY_BEGINS and pads == len(pack_data_end()):
                    self._summary_at = offset
                    return  # the DataEnd before it is about to be committed
                elif opcode != fmt.CHECK:
                    raise Damage(offset, f"unexpected record of opcode {opcode:#04x}")
                if after > self.size:
                    raise Damage(
                        offset,
                        f"truncated record: expected {length} bytes, "
                        f"got {self.size - offset - fmt.HEAD_SIZE}",
                    )
                offset = after
        except Damage as damage:
            self.damage = damage

    def _add_chunk(self, offset: int, length: int) -> None:
        head = fmt.CHUNK_HEAD.unpack(self._pread(offset, fmt.CHUNK_HEAD.size))
        _, _, _, _, _, crc, compression, records_length = head
        if compression:
            raise Damage(offset, "a compressed chunk")
        end = offset + fmt.HEAD_SIZE + length
        records_end = min(offset + fmt.CHUNK_RECORDS_AT + records_length, self.size)
        self.chunks.append(ChunkSpan(offset, records_end, end, crc))
        if records_length + fmt.CHUNK_FIXED_SIZE > length:
            raise Damage(
                offset, f"chunk of {length} bytes: its {records_length} bytes of records do not fit"
            )

    def _check_just_begun(self, offset: int, pads: int) -> None:
        """The first of the records between two chunks is a PAD until it is committed, just before
        the first cycle of the second: after long PADs there is no cycle.
        """
        first = offset + fmt.CHUNK_RECORDS_AT
        if self._pread(first, 1)[0] == fmt.CYCLE:
            self.chunks.pop()
            raise Damage(
                offset,
                f"{pads} bytes of PADs before a Chunk: "
                f"expected at most {fmt.MAX_PAD_BETWEEN_CHUNKS}",
            )

    def _check_hides_nothing(self, offset: int, end: int) -> None:
        """A PAD that has a whole cycle where a chunk has its first one is a chunk's damaged opcode."""
        first = offset + fmt.CHUNK_RECORDS_AT
        if first + fmt.CYCLE_SIZE > min(end, self.size):
            return
        head = self._pread(first, fmt.CYCLE_SIZE)
        opcode, length, _, _, _, size, crc, reserved = fmt.CYCLE_RECORD.unpack(head)
        if (opcode, length, reserved) != (fmt.CYCLE, fmt.CYCLE_CONTENT.size, 0):
            return
        if first + fmt.CYCLE_SIZE + size <= min(end, self.size) and size <= fmt.MAX_HELD_SIZE:
            records = self._pread(first + fmt.CYCLE_SIZE, size)
            # Looked at again: a live writer may have begun the chunk since.
            is_pad = self._pread(offset, 1)[0] == fmt.PAD
            if is_pad and cycle_crc(head[fmt.HEAD_SIZE :], records) == crc:
                raise Damage(offset, f"a PAD over a cycle, at {first}: expected a Chunk")

    def _check_closed(self, chunk: ChunkSpan) -> None:
        """A chunk that DataEnd does not follow was closed: its three sizes agree."""
        head = fmt.CHUNK_HEAD.unpack(self._pread(chunk.start, fmt.CHUNK_HEAD.size))
        _, length, _, _, size, _, _, records_length = head
        if not length - fmt.CHUNK_FIXED_SIZE == size == records_length:
            raise Damage(
                chunk.start, f"sizes of a closed chunk differ: {length}, {size}, {records_length}"
            )
        chunk.closed = True

    def _check_data_end(self, offset: int, length: int) -> None:
        available = min(self.size - offset, len(TRAILER))
        found = self._pread(offset, available)
        if found == TRAILER:
            return
        if self.chunks and not self.chunks[-1].closed:
            self._check_closed(self.chunks[-1])
        after = len(pack_data_end())
        if length != 4 or len(found) <= after or found[after] not in _SUMMARY_BEGINS:
            raise Damage(offset, "the trailer is damaged or cut off")
        self._summary_at = offset + after

    def _check_uncut(self, start: int) -> None:
        """A summary that the file's end does not show is whole, and is where its Footer says:
        its writer was about to cut off what follows. Otherwise that may well be cycles."""
        try:
            at = start
            while (head := self._head(at))[0] in _SUMMARY_OPCODES:
                at += fmt.HEAD_SIZE + head[1]
            if head[0] != fmt.FOOTER:
                raise Damage(at, f"opcode {head[0]:#04x}: expected Footer")
            self._checked_summary(start, at)
            (given,) = fmt.U64.unpack(self._pread(at + fmt.HEAD_SIZE, fmt.U64.size))
            if given != start:
                raise Damage(at, f"Footer of a summary at byte {given}")
        except Damage as damage:
            self.damage = Damage(start, f"a summary that is damaged or in a wrong place ({damage})")


def _mapped(fd: int, size: int) -> mmap.mmap:
    try:
        return mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    except ValueError as error:  # the file was cut in this moment
        raise OSError(errno.EAGAIN, f"it changes while it is opened ({error})") from error
