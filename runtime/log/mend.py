"""Finishes one slab that its writer could not finish: in place, or, where something is cut off that a
reader may have in its memory, in a copy.

The order is that of FORMAT.md's states: the chunk is closed, the index and the summary are written
inside the PAD after it, the PAD shrinks, the file is cut. No byte of a kept cycle is ever written, and
each step reaches the disk before the next begins.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowrun.runtime.log.slab import disk
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.cycles import CycleHead
from flowrun.runtime.log.slab.disk import write_all
from flowrun.runtime.log.slab.ends import build_end, build_summary
from flowrun.runtime.log.slab.opening import open_file
from flowrun.runtime.log.slab.reader import SlabReader
from flowrun.runtime.log.slab.records import TRAILER, pack_message_index
from flowrun.runtime.wording import counted

__all__ = ["PART", "SlabReport", "mend_slab"]

PART = ".part"
"""What the name of a slab's copy ends with while it is made."""


@dataclass(frozen=True, slots=True)
class SlabReport:
    """What became of one slab.

    recovered: False where it was finished before, or cannot be read at all.
    cycles: the cycles that it holds, as far as it can be read.
    lost: why there may have been more, and where; None where the slab ended in order after its last
        cycle.
    """

    path: Path
    recovered: bool
    cycles: int = 0
    messages: int = 0
    size: int = 0
    lost: str | None = None

    def __str__(self) -> str:
        if self.recovered:
            text = (
                f"{self.path}: kept {counted(self.cycles, 'cycle')} with "
                f"{counted(self.messages, 'message')}, {self.size} bytes"
            )
        elif self.lost is None:
            text = f"{self.path}: was finished already"
        else:
            text = f"{self.path}: left as it is"
        return text if self.lost is None else f"{text}; lost: {self.lost}"


def mend_slab(
    slab: SlabReader, cycles_before: int | None, show: Callable[[float], None]
) -> SlabReport:
    """Finish `slab`. cycles_before: cycles of the earlier slabs if this is the run's last."""
    kept = _Kept(slab, show)
    # The tail goes inside the PAD that covers everything after the last good cycle; the PAD's
    # head stays, because shortening it is the store that makes the tail valid.
    tail = _tail(slab, kept, kept.end + fmt.HEAD_SIZE, cycles_before)
    if kept.lost is None:
        with open_file(slab.path, os.O_RDWR) as fd:
            _write_end(fd, slab.size, kept, tail)
    else:
        with _replaced(slab) as fd:
            _write_end(fd, slab.size, kept, tail)
    return SlabReport(
        slab.path,
        recovered=True,
        cycles=kept.cycles,
        messages=sum(sum(info.message_counts.values()) for info in kept.chunks),
        size=kept.end + fmt.HEAD_SIZE + len(tail),
        lost=None if kept.lost is None else f"what came after {kept.lost}",
    )


@contextmanager
def _replaced(slab: SlabReader) -> Iterator[int]:
    """The descriptor of a copy, within, that takes the slab's place at the end.

    Where there is damage, cycles may come after it, and somebody may read them who does not verify
    what he reads: to cut them off in place would end his process.
    """
    part = slab.path.with_name(f"{slab.path.name}{PART}")
    part.unlink(missing_ok=True)
    with open_file(slab.path, os.O_RDONLY) as old:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.fchmod(fd, os.fstat(old).st_mode & 0o777)
            done = 0
            while n := os.sendfile(fd, old, done, slab.size):
                done += n
            yield fd
            part.rename(slab.path)
        finally:
            os.close(fd)
            part.unlink(missing_ok=True)


def _write_end(fd: int, size: int, kept: _Kept, tail: bytes) -> None:
    """Make the file of `size` bytes end after what is kept, step by step."""
    tail_at = kept.end + fmt.HEAD_SIZE
    # A trailer after all that will be written; it is written over a PAD's content.
    trailer_at = max(size, tail_at + len(tail) + fmt.HEAD_SIZE)
    write_all(fd, TRAILER, trailer_at)
    disk.sync_file(fd)
    pad = fmt.RECORD_HEAD.pack(fmt.PAD, trailer_at - tail_at)
    if kept.chunks:
        last = kept.chunks[-1]
        content = fmt.U64.pack(trailer_at - last.start - fmt.HEAD_SIZE)
        write_all(fd, content, last.start + fmt.CHUNK_LENGTH_AT)
        disk.sync_file(fd)
        write_all(fd, pad, kept.end)
        disk.sync_file(fd)
        for at, value in (
            (fmt.CHUNK_RECORDS_LENGTH_AT, last.records_size),
            (fmt.CHUNK_SIZE_AT, last.records_size),
            (fmt.CHUNK_LENGTH_AT, fmt.CHUNK_FIXED_SIZE + last.records_size),
        ):
            write_all(fd, fmt.U64.pack(value), last.start + at)
            disk.sync_file(fd)
    else:
        write_all(fd, pad, kept.end)
    for info, crc in zip(kept.chunks, kept.crcs, strict=True):
        times = struct.pack("<QQ", info.start_time_ns, info.end_time_ns)
        write_all(fd, times, info.start + fmt.CHUNK_START_TIME_AT)
        write_all(fd, struct.pack("<I", crc), info.start + fmt.CHUNK_CRC_AT)
    for at, index in kept.patches:
        write_all(fd, index, at)
    write_all(fd, tail, tail_at)
    disk.sync_file(fd)
    write_all(fd, fmt.RECORD_HEAD.pack(fmt.PAD, 0), kept.end)
    disk.sync_file(fd)
    os.ftruncate(fd, tail_at + len(tail))
    disk.sync_file(fd)


class _Kept:
    """What a walk over a slab found good."""

    def __init__(self, slab: SlabReader, show: Callable[[float], None]) -> None:
        self.chunks: list[fmt.ChunkInfo] = []
        self.crcs: list[int] = []
        self.index: dict[int, list[tuple[int, int]]] = {}
        """Message index of the last kept chunk."""
        self.patches: list[tuple[int, bytes]] = []
        """Message indexes of earlier chunks whose bytes are not as they should be."""
        self.cycles = 0
        self.last: CycleHead | None = None
        """The last CYCLE."""
        self.end = slab.preamble.size
        """Offset after the last good cycle."""
        self.lost = slab.structure.damage
        try:
            count = len(slab.structure.chunks)
            for number in range(count):
                show(number / count)
                self._take_chunk(slab, number)
        except Damage as damage:
            self.lost = damage

    def _take_chunk(self, slab: SlabReader, number: int) -> None:
        span = slab.structure.chunks[number]
        heads = slab.cycles.heads(number)
        head = next(heads, None)
        if head is None:
            return
        info = fmt.ChunkInfo(span.start, 0, 0)
        while head is not None:
            entries = _index_entries(slab, head)
            if self.last is not None and head.cycle <= self.last.cycle:
                raise Damage(head.offset, f"cycle {head.cycle} after cycle {self.last.cycle}")
            if not info.records_size:
                self._begin(info, slab.view)
            for channel, offset in entries:
                self.index.setdefault(channel, []).append(
                    (head.time_ns, offset - span.records_start)
                )
            self._extend(info, span.records_start, head, slab.view)
            head = next(heads, None)

    def _begin(self, info: fmt.ChunkInfo, view: memoryview) -> None:
        if self.chunks:
            self._take_index(self.chunks[-1], info.start, view)
        self.chunks.append(info)
        self.crcs.append(0)
        self.index = {}

    def _take_index(self, info: fmt.ChunkInfo, end: int, view: memoryview) -> None:
        """The MessageIndex records between a chunk and the next one, at `end`.

        Where they have the right size they are kept, or put right; else the summary lists none.
        """
        start = offset = info.start + info.length
        while offset < end and view[offset] == fmt.MESSAGE_INDEX:
            _, length = fmt.RECORD_HEAD.unpack_from(view, offset)
            offset += fmt.HEAD_SIZE + length
        packed = self.pack_index(info, start)
        if offset - start != len(packed):
            info.message_index_offsets, info.message_index_length = {}, 0
        elif view[start:offset] != packed:
            self.patches.append((start, packed))

    def pack_index(self, info: fmt.ChunkInfo, offset: int) -> bytes:
        """The last kept chunk's MessageIndex records, to be at `offset`; noted in `info`."""
        packed = b""
        for channel, entries in sorted(self.index.items()):
            info.message_index_offsets[channel] = offset + len(packed)
            packed += pack_message_index(
                channel, b"".join(fmt.INDEX_ENTRY.pack(*entry) for entry in entries)
            )
        info.message_index_length = len(packed)
        return packed

    def _extend(
        self, info: fmt.ChunkInfo, records_start: int, head: CycleHead, view: memoryview
    ) -> None:
        self.crcs[-1] = fmt.crc32(view[head.offset : head.end], self.crcs[-1])
        info.records_size = head.end - records_start
        info.length = fmt.CHUNK_HEAD.size + info.records_size
        if head.message_count:
            info.start_time_ns = info.start_time_ns if info.message_counts else head.time_ns
            info.end_time_ns = head.time_ns
        info.message_counts = {channel: len(entries) for channel, entries in self.index.items()}
        if head.opcode == fmt.CYCLE:
            self.cycles += 1
            self.last = head
        self.end = head.end


def _index_entries(slab: SlabReader, head: CycleHead) -> list[tuple[int, int]]:
    """Channel and offset of each Message of a cycle, which is checked."""
    slab.cycles.entries(head)
    found = []
    offset = head.offset + fmt.CYCLE_SIZE
    while offset < head.end:
        opcode, length = fmt.RECORD_HEAD.unpack_from(slab.view, offset)
        if opcode == fmt.MESSAGE:
            (channel,) = struct.unpack_from("<H", slab.view, offset + fmt.HEAD_SIZE)
            found.append((channel, offset))
        offset += fmt.HEAD_SIZE + length
    return found


def _tail(slab: SlabReader, kept: _Kept, offset: int, cycles_before: int | None) -> bytes:
    """MessageIndex records of the last chunk, how the run ended, and the summary."""
    tail = bytearray()
    if kept.chunks:
        tail += kept.pack_index(kept.chunks[-1], offset)
    preamble = slab.preamble
    metadata = [(fmt.METADATA_NAME, preamble.places[fmt.METADATA_NAME])]
    if cycles_before is not None:
        end = {
            "reason": "recovered",
            "cycles": str(cycles_before + kept.cycles),
            "ended_ns": str(kept.last.time_ns if kept.last else 0),
        }
        if kept.lost is not None:
            end["error"] = f"lost what came after {kept.lost}"
        record, placed = build_end(end, offset=offset + len(tail))
        tail += record
        metadata.append((fmt.END_NAME, placed))
    tail += build_summary(
        offset=offset + len(tail),
        schemas=list(preamble.schemas.values()),
        channels=list(preamble.channels.values()),
        chunks=kept.chunks,
        attachments=[(item, preamble.places[name]) for name, item in preamble.attachments.items()],
        metadata=metadata,
    )
    return bytes(tail)
