"""The structure of a finished slab, read from its summary."""

from __future__ import annotations

from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage, SlabBytes
from flowrun.runtime.log.slab.records import (
    unpack_chunk_index,
    unpack_metadata_index,
    unpack_statistics,
)
from flowrun.runtime.log.slab.structure import ChunkSpan, Structure, read_end

__all__ = ["SUMMARY_BEGINS", "check_uncut", "read_summary"]

SUMMARY_BEGINS = (fmt.SCHEMA, fmt.CHANNEL, fmt.STATISTICS)
"""Opcodes of the record that a summary begins with."""
_OPCODES = (
    *SUMMARY_BEGINS,
    fmt.CHUNK_INDEX,
    fmt.ATTACHMENT_INDEX,
    fmt.METADATA_INDEX,
    fmt.SUMMARY_OFFSET,
)


def read_summary(data: SlabBytes, preamble_size: int) -> Structure | None:
    """What the summary says; None where the slab has none. `Damage` or `ValueError` if it is damaged."""
    footer_at = data.size - fmt.FOOTER_SIZE - len(fmt.MAGIC)
    if footer_at < preamble_size:
        return None
    tail = data.read(footer_at, fmt.FOOTER_SIZE + len(fmt.MAGIC))
    opcode, length = fmt.RECORD_HEAD.unpack_from(tail)
    if (opcode, length) != (fmt.FOOTER, fmt.FOOTER_CONTENT.size) or not tail.endswith(fmt.MAGIC):
        return None
    start, _, _ = fmt.FOOTER_CONTENT.unpack_from(tail, fmt.HEAD_SIZE)
    if start == 0:
        return None
    if not preamble_size < start <= footer_at:
        raise Damage(footer_at, f"summary at byte {start}")
    summary = memoryview(_checked(data, start, footer_at))
    found = Structure(finished=True)
    position = 0
    while position + fmt.HEAD_SIZE <= len(summary):
        opcode, length = fmt.RECORD_HEAD.unpack_from(summary, position)
        content = summary[position + fmt.HEAD_SIZE :][:length]
        if len(content) != length:
            raise Damage(start + position, "a record reaches beyond the summary")
        if opcode == fmt.CHUNK_INDEX:
            least = found.chunks[-1].end if found.chunks else preamble_size
            found.chunks.append(_chunk(unpack_chunk_index(content), least, start))
        elif opcode == fmt.STATISTICS:
            found.statistics = unpack_statistics(content)
        elif opcode == fmt.METADATA_INDEX:
            placed, name = unpack_metadata_index(content)
            if name == fmt.END_NAME:
                found.end = _end(data, placed.offset)
        position += fmt.HEAD_SIZE + length
    return found


def check_uncut(data: SlabBytes, start: int) -> None:
    """Raise `Damage` unless a summary at `start` that the file's end does not show is whole, and is
    where its Footer says: its writer was about to cut off what follows. Otherwise that may well be
    cycles."""
    try:
        at = start
        while (head := data.head(at))[0] in _OPCODES:
            at += fmt.HEAD_SIZE + head[1]
        if head[0] != fmt.FOOTER:
            raise Damage(at, f"opcode {head[0]:#04x}: expected Footer")
        _checked(data, start, at)
        (given,) = fmt.U64.unpack(data.read(at + fmt.HEAD_SIZE, fmt.U64.size))
        if given != start:
            raise Damage(at, f"Footer of a summary at byte {given}")
    except Damage as damage:
        raise Damage(start, f"a summary that is damaged or in a wrong place ({damage})") from damage


def _checked(data: SlabBytes, start: int, footer_at: int) -> bytes:
    """The records of the summary between `start` and the Footer, which has their CRC."""
    summary = data.read(start, footer_at - start)
    footer = data.read(footer_at, fmt.FOOTER_SIZE)
    _, _, crc = fmt.FOOTER_CONTENT.unpack_from(footer, fmt.HEAD_SIZE)
    actual = fmt.crc32(footer[:-4], fmt.crc32(summary))
    if actual != crc:
        raise Damage(start, f"its CRC is {actual:#010x}; expected {crc:#010x}")
    return summary


def _chunk(chunk: fmt.ChunkInfo, least: int, data_end: int) -> ChunkSpan:
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
    return ChunkSpan(chunk.start, end, end, closed=True, info=chunk)


def _end(data: SlabBytes, offset: int) -> dict[str, str] | None:
    opcode, length = data.head(offset)
    if opcode != fmt.METADATA:
        raise Damage(offset, f"opcode {opcode:#04x}: expected Metadata")
    return read_end(data, offset, length)[0]
