"""A part of a run as one finished slab: the cycles byte for byte, so that it replays as the run does."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flowrun.runtime.atomic import whole_file
from flowrun.runtime.errors import LogNotFound
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.ends import build_end, build_summary
from flowrun.runtime.log.slab.index import message_places
from flowrun.runtime.log.slab.reader import SlabReader
from flowrun.runtime.log.slab.records import gap_before, pack_message_index, pack_pad

__all__ = ["write_clip"]


@dataclass(frozen=True, slots=True)
class _Part:
    """Cycles of a chunk that follow each other, all of them checked.

    offsets: of their CYCLE and LINES records in the slab. end: where the last one ends.
    """

    slab: SlabReader
    offsets: array[int]
    end: int
    cycles: int
    first_ns: int
    last_ns: int

    @property
    def records(self) -> memoryview:
        return self.slab.view[self.offsets[0] : self.end]


def write_clip(log: Log, first: int, last: int, path: Path) -> int:
    """Write the cycles from `first` to `last`, both included, into the new file `path`; the number of
    cycles. What is damaged is left out, as the error of its end says.

    `LogNotFound` where the log holds none of them; `LogError` where the file cannot be written.
    """
    losses: list[str] = []
    parts = list(_parts(log, first, last, losses))
    cycles = sum(part.cycles for part in parts)
    if not cycles:
        raise LogNotFound(f"{log.path}: holds none of the cycles {first} to {last}")
    with whole_file(path) as part_path, part_path.open("wb") as file:
        _write(log, parts, file, _end(parts, losses))
    return cycles


def _parts(log: Log, first: int, last: int, losses: list[str]) -> Iterator[_Part]:
    for slab in log.slabs:
        begin = slab.chunk_of(cycle=first)
        for index in range(begin, len(slab.structure.chunks)):
            at = slab.offset_of(index, cycle=first)
            offsets, end, cycles, times = array("Q"), 0, 0, [0, 0]
            is_over = False
            try:
                for head in slab.cycles.heads(index, at):
                    is_over = head.cycle > last
                    if is_over or head.cycle < first:
                        break
                    slab.cycles.check(head)
                    times = [times[0] if offsets else head.time_ns, head.time_ns]
                    offsets.append(head.offset)
                    end = head.end
                    cycles += head.opcode == fmt.CYCLE
            except Damage as damage:
                losses.append(f"{slab.path.name}: {damage}")
            if offsets:
                yield _Part(slab, offsets, end, cycles, *times)
            if is_over:
                return


def _end(parts: list[_Part], losses: list[str]) -> dict[str, str]:
    end = {
        "reason": "a clip of the run",
        "cycles": str(sum(part.cycles for part in parts)),
        "ended_ns": str(parts[-1].last_ns),
    }
    return end | ({"error": f"left out what is damaged: {'; '.join(losses)}"} if losses else {})


def _write(log: Log, parts: list[_Part], file: IO[bytes], end: Mapping[str, str]) -> None:
    preamble = log.slabs[0].preamble
    file.write(log.slabs[0].view[: preamble.size])
    chunks = []
    for part in parts:
        gap = gap_before(file.tell(), alignment=8, remainder=fmt.CHUNK_START_REMAINDER)
        file.write(pack_pad(gap) if gap else b"")
        chunks.append(_write_chunk(part, file))
    record, placed = build_end(end, offset=file.tell())
    file.write(record)
    file.write(
        build_summary(
            offset=file.tell(),
            schemas=list(preamble.schemas.values()),
            channels=list(preamble.channels.values()),
            chunks=chunks,
            attachments=[
                (item, preamble.places[name]) for name, item in preamble.attachments.items()
            ],
            metadata=[
                (fmt.METADATA_NAME, preamble.places[fmt.METADATA_NAME]),
                (fmt.END_NAME, placed),
            ],
        )
    )


def _write_chunk(part: _Part, file: IO[bytes]) -> fmt.ChunkInfo:
    records = part.records
    size = len(records)
    info = fmt.ChunkInfo(file.tell(), fmt.CHUNK_HEAD.size + size, size, part.first_ns, part.last_ns)
    file.write(
        fmt.CHUNK_HEAD.pack(
            fmt.CHUNK,
            fmt.CHUNK_FIXED_SIZE + size,
            part.first_ns,
            part.last_ns,
            size,
            fmt.crc32(records),
            0,
            size,
        )
    )
    file.write(records)
    begin = file.tell()
    places = message_places(part.slab.view, part.offsets, records_at=part.offsets[0])
    for channel, found in places.items():
        info.message_index_offsets[channel] = file.tell()
        info.message_counts[channel] = len(found)
        file.write(pack_message_index(channel, found.tobytes()))
    info.message_index_length = file.tell() - begin
    return info
