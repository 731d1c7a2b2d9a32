"""The structure of a slab that has no summary, found by walking from record to record."""

from __future__ import annotations

from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage, SlabBytes
from flowrun.runtime.log.slab.records import TRAILER, cycle_crc, pack_data_end
from flowrun.runtime.log.slab.structure import ChunkSpan, Structure, read_end
from flowrun.runtime.log.slab.summary import SUMMARY_BEGINS

__all__ = ["walk"]


def walk(data: SlabBytes, preamble_size: int) -> tuple[Structure, int | None]:
    """What is between the preamble and DataEnd, and the offset of a summary after that, which the
    file's end does not show; None where there is none.

    A live writer changes what is walked over, from one state of FORMAT.md to the next.
    """
    found = Structure()
    summary_at = None
    try:
        summary_at = _Walk(data, found).run(preamble_size)
    except Damage as damage:
        found.damage = damage
    return found, summary_at


class _Walk:
    def __init__(self, data: SlabBytes, found: Structure) -> None:
        self._data = data
        self._found = found
        self._chunks = found.chunks

    def run(self, offset: int) -> int | None:
        """Fill `found`; the offset of a summary, or None. Raises `Damage`."""
        data, chunks = self._data, self._chunks
        pads = 0
        while True:
            opcode, length = data.head(offset)
            after = offset + fmt.HEAD_SIZE + length
            if opcode == fmt.DATA_END:
                return self._summary_after(offset, length)
            self._close_last()
            if opcode == fmt.CHUNK:
                self._add_chunk(offset, length)
                if pads > fmt.MAX_PAD_BETWEEN_CHUNKS:
                    self._check_just_begun(offset, pads)
                pads = 0
            elif opcode == fmt.METADATA:
                end, after = read_end(data, offset, length)
                if end is not None:
                    self._found.end = end
            elif opcode == fmt.MESSAGE_INDEX:
                entries = length - fmt.MESSAGE_INDEX_FIXED_SIZE
                if not chunks or entries < 0 or entries % fmt.INDEX_ENTRY.size:
                    raise Damage(offset, f"unexpected MessageIndex of {length} bytes")
            elif opcode == fmt.PAD:
                self._check_hides_nothing(offset, after)
                pads += fmt.HEAD_SIZE + length
            elif opcode in SUMMARY_BEGINS and pads == len(pack_data_end()):
                return offset  # the DataEnd before it is about to be committed
            elif opcode != fmt.CHECK:
                raise Damage(offset, f"unexpected record of opcode {opcode:#04x}")
            if after > data.size:
                raise Damage(
                    offset,
                    f"truncated record: expected {length} bytes, "
                    f"got {data.size - offset - fmt.HEAD_SIZE}",
                )
            offset = after

    def _add_chunk(self, offset: int, length: int) -> None:
        head = fmt.CHUNK_HEAD.unpack(self._data.read(offset, fmt.CHUNK_HEAD.size))
        _, _, _, _, _, crc, compression, records_length = head
        if compression:
            raise Damage(offset, "a compressed chunk")
        end = offset + fmt.HEAD_SIZE + length
        records_end = min(offset + fmt.CHUNK_RECORDS_AT + records_length, self._data.size)
        self._chunks.append(ChunkSpan(offset, records_end, end, crc))
        if records_length + fmt.CHUNK_FIXED_SIZE > length:
            raise Damage(
                offset, f"chunk of {length} bytes: its {records_length} bytes of records do not fit"
            )

    def _check_just_begun(self, offset: int, pads: int) -> None:
        """The first of the records between two chunks is a PAD until it is committed, just before
        the first cycle of the second: after long PADs there is no cycle.
        """
        first = offset + fmt.CHUNK_RECORDS_AT
        if self._data.read(first, 1)[0] in fmt.CRC_STARTS:
            self._chunks.pop()
            raise Damage(
                offset,
                f"{pads} bytes of PADs before a Chunk: "
                f"expected at most {fmt.MAX_PAD_BETWEEN_CHUNKS}",
            )

    def _check_hides_nothing(self, offset: int, end: int) -> None:
        """A PAD that has a whole cycle where a chunk has its first one is a chunk's damaged opcode."""
        data = self._data
        first = offset + fmt.CHUNK_RECORDS_AT
        if first + fmt.CYCLE_SIZE > min(end, data.size):
            return
        head = data.read(first, fmt.CYCLE_SIZE)
        opcode, length, _, _, _, size, crc, reserved = fmt.CYCLE_RECORD.unpack(head)
        if opcode not in fmt.CRC_STARTS or (length, reserved) != (fmt.CYCLE_CONTENT.size, 0):
            return
        if first + fmt.CYCLE_SIZE + size <= min(end, data.size) and size <= fmt.MAX_HELD_SIZE:
            records = data.read(first + fmt.CYCLE_SIZE, size)
            # Looked at again: a live writer may have begun the chunk since.
            is_pad = data.read(offset, 1)[0] == fmt.PAD
            if is_pad and cycle_crc(head[fmt.HEAD_SIZE :], records, opcode=opcode) == crc:
                raise Damage(offset, f"a PAD over a cycle, at {first}: expected a Chunk")

    def _close_last(self) -> None:
        """The last chunk, if DataEnd does not follow it, was closed: its three sizes agree."""
        if not self._chunks or self._chunks[-1].closed:
            return
        chunk = self._chunks[-1]
        head = fmt.CHUNK_HEAD.unpack(self._data.read(chunk.start, fmt.CHUNK_HEAD.size))
        _, length, _, _, size, _, _, records_length = head
        if not length - fmt.CHUNK_FIXED_SIZE == size == records_length:
            raise Damage(
                chunk.start, f"sizes of a closed chunk differ: {length}, {size}, {records_length}"
            )
        chunk.closed = True

    def _summary_after(self, offset: int, length: int) -> int | None:
        """The offset of the summary after the DataEnd at `offset`; None if that begins the trailer."""
        available = min(self._data.size - offset, len(TRAILER))
        found = self._data.read(offset, available)
        if found == TRAILER:
            return None
        self._close_last()
        after = len(pack_data_end())
        if length != 4 or len(found) <= after or found[after] not in SUMMARY_BEGINS:
            raise Damage(offset, "the trailer is damaged or cut off")
        return offset + after
