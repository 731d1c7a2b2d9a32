"""The cycles of a slab's chunks, read and checked.

They are read from the file's mapping, so that payloads are views of it; only committed cycles are
touched, and those are never cut off by their writer. Where another program cuts the file meanwhile, what
is missing reads as zeros, and no cycle is made of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.faults import Region
from flowrun.runtime.log.slab.structure import ChunkSpan, Structure

__all__ = ["CycleHead", "CycleReader", "Entry"]

Entry = tuple[str, int, memoryview]
"""Topic, tov_ns, payload."""


class CycleHead(NamedTuple):
    """A CYCLE or LINES record: its opcode, its offset, where its records end, and its content."""

    opcode: int
    offset: int
    end: int
    cycle: int
    time_ns: int
    message_count: int
    crc: int


class CycleReader:
    """Reads the cycles of the chunks of `structure` from `view`, the whole slab.

    region: says whether `view` is what the file has. topics: by channel id.
    verify: check the crc of each cycle whose messages are read.
    All methods raise `Damage`.
    """

    def __init__(
        self,
        view: memoryview,
        region: Region,
        structure: Structure,
        topics: Mapping[int, str],
        *,
        verify: bool,
    ) -> None:
        self._region = region
        self._view = view
        self._structure = structure
        self._topics = topics
        self._verify = verify

    def records(
        self, index: int, start: int | None = None
    ) -> Iterator[tuple[int, int, int, int, list[Entry]]]:
        """Opcode, offset, number, time and messages of each CYCLE and LINES of chunk `index`, from that
        at `start`.

        Checked, if the slab is opened so.
        """
        # What `heads`, `check` and `entries` do, written out for a cycle that is as it should be:
        # calls, named tuples and attributes of `fmt` would take twice the time. Any other cycle is
        # left to them.
        chunk = self._structure.chunks[index]
        offset = chunk.records_start if start is None else start
        view, topics, verify, crc32 = self._view, self._topics, self._verify, fmt.crc32
        region = self._region
        unpack_cycle, unpack = fmt.CYCLE_RECORD.unpack_from, fmt.MESSAGE_HEAD.unpack_from
        cycle_opcode, cycle_length = fmt.CYCLE, fmt.CYCLE_CONTENT.size
        checked_at, checked_end = fmt.HEAD_SIZE, fmt.HEAD_SIZE + fmt.CYCLE_CHECKED.size
        cycle_size, mask = fmt.CYCLE_SIZE, fmt.SEQUENCE_MASK
        message_opcode, pad_opcode, head_size = fmt.MESSAGE, fmt.PAD, fmt.HEAD_SIZE
        data_at, fixed_size = fmt.MESSAGE_HEAD.size, fmt.MESSAGE_FIXED_SIZE
        if self._structure.finished:
            self._check_indexed(chunk)
        while True:
            while chunk.records_end - offset >= cycle_size:
                opcode, length, cycle, time_ns, count, size, crc, reserved = unpack_cycle(
                    view, offset
                )
                at = offset + cycle_size
                end = at + size
                if opcode != cycle_opcode or length != cycle_length or reserved:
                    break
                if end > chunk.records_end:
                    break
                if verify:
                    checked = crc32(view[offset + checked_at : offset + checked_end])
                    if crc32(view[at:end], checked) != crc:
                        break
                sequence = cycle & mask
                entries: list[Entry] = []
                try:
                    while at < end:
                        opcode, length, channel, number, log_time, tov_ns = unpack(view, at)
                        after = at + head_size + length
                        if opcode == message_opcode:
                            if number != sequence or log_time != time_ns or length < fixed_size:
                                break
                            entries.append((topics[channel], tov_ns, view[at + data_at : after]))
                        elif opcode != pad_opcode:
                            break
                        at = after
                except (struct.error, KeyError):
                    break
                if at != end or len(entries) != count or end > region.whole_to:
                    break
                yield cycle_opcode, offset, cycle, time_ns, entries
                offset = end
            head = next(self.heads(index, offset), None)
            if head is None:
                return
            yield head.opcode, head.offset, head.cycle, head.time_ns, self.entries(head)
            offset = head.end

    def heads(self, index: int, start: int | None = None) -> Iterator[CycleHead]:
        """The CYCLE and LINES records of chunk `index`, from the one at `start`. Their crc is not
        verified."""
        chunk = self._structure.chunks[index]
        view = self._view
        unpack = fmt.CYCLE_RECORD.unpack_from
        offset = chunk.records_start if start is None else start
        end = chunk.records_end
        if self._structure.finished:
            self._check_indexed(chunk)
        while offset < end:
            opcode = view[offset]
            if opcode not in fmt.CRC_STARTS or end - offset < fmt.CYCLE_SIZE:
                if opcode != fmt.PAD or chunk.closed:
                    if self._was_closed(chunk, offset):
                        return
                    raise Damage(
                        offset, f"unexpected record of opcode {opcode:#04x}: expected CYCLE"
                    )
                self._check_unused(chunk, offset, end)
                return
            _, length, cycle, time_ns, count, size, crc, reserved = unpack(view, offset)
            after = offset + fmt.CYCLE_SIZE + size
            if length != fmt.CYCLE_CONTENT.size or reserved or after > end:
                raise Damage(
                    offset,
                    f"CYCLE of {length} bytes, {size} bytes of messages and reserved {reserved}, "
                    f"{end - offset} bytes before the end of its chunk",
                )
            if after > self._region.whole_to:
                raise Damage(offset, "zeros: expected CYCLE")
            yield CycleHead(opcode, offset, after, cycle, time_ns, count, crc)
            offset = after

    def _check_indexed(self, chunk: ChunkSpan) -> None:
        head = fmt.CHUNK_HEAD.unpack_from(self._view, chunk.start)
        opcode, length, _, _, size, chunk.crc, compression, records_length = head
        if (opcode, length, compression) != (fmt.CHUNK, chunk.end - chunk.start - fmt.HEAD_SIZE, 0):
            raise Damage(chunk.start, "not the Chunk that the summary lists here")
        if not size == records_length == chunk.records_end - chunk.records_start:
            raise Damage(chunk.start, "a Chunk of another size than the summary lists")

    def _was_closed(self, chunk: ChunkSpan, offset: int) -> bool:
        """Whether a live writer has closed the chunk at `offset` since it was found open."""
        head = fmt.CHUNK_HEAD.unpack_from(self._view, chunk.start)
        if head[0] != fmt.CHUNK or chunk.records_start + head[-1] != offset:
            return False
        chunk.records_end = offset
        return True

    def _check_unused(self, chunk: ChunkSpan, offset: int, end: int) -> None:
        """After the first PAD at `offset` there are only PADs and a cycle that is being committed."""
        start = offset
        while end - offset >= fmt.HEAD_SIZE:
            opcode, length = fmt.RECORD_HEAD.unpack_from(self._view, offset)
            if opcode not in (fmt.PAD, fmt.MESSAGE):
                if self._view[start] in fmt.CRC_STARTS or self._was_closed(chunk, start):
                    return  # a live writer committed or closed it this moment
                raise Damage(
                    start, f"a PAD with a record of opcode {opcode:#04x} after it, at {offset}"
                )
            offset += fmt.HEAD_SIZE + length

    def head_at(self, offset: int) -> CycleHead:
        """The record at `offset`, where a writer has committed a CYCLE or LINES."""
        _, _, cycle, time_ns, count, size, crc, _ = fmt.CYCLE_RECORD.unpack_from(self._view, offset)
        opcode = self._view[offset]
        if opcode not in fmt.CRC_STARTS:
            raise Damage(offset, f"unexpected record of opcode {opcode:#04x}: expected CYCLE")
        end = offset + fmt.CYCLE_SIZE + size
        return CycleHead(opcode, offset, end, cycle, time_ns, count, crc)

    def check(self, head: CycleHead) -> None:
        """Raise `Damage` where the cycle's crc does not match."""
        offset = head.offset
        content = self._view[
            offset + fmt.HEAD_SIZE : offset + fmt.HEAD_SIZE + fmt.CYCLE_CHECKED.size
        ]
        checked = fmt.crc32(content, fmt.CRC_STARTS[head.opcode])
        crc = fmt.crc32(self._view[offset + fmt.CYCLE_SIZE : head.end], checked)
        if crc != head.crc:
            raise Damage(
                offset, f"cycle {head.cycle} has CRC {crc:#010x}; expected {head.crc:#010x}"
            )

    def entries(self, head: CycleHead) -> list[Entry]:
        """The cycle's messages in the file's order, checked if the slab is opened so."""
        if self._verify:
            self.check(head)
        view, topics = self._view, self._topics
        unpack, fixed_size = fmt.MESSAGE_HEAD.unpack_from, fmt.MESSAGE_HEAD.size
        time_ns, sequence = head.time_ns, head.cycle & fmt.SEQUENCE_MASK
        entries: list[Entry] = []
        offset, end = head.offset + fmt.CYCLE_SIZE, head.end
        while offset < end:
            if end - offset >= fixed_size:
                opcode, length, channel, number, log_time, tov_ns = unpack(view, offset)
            elif end - offset >= fmt.HEAD_SIZE:
                opcode, length = fmt.RECORD_HEAD.unpack_from(view, offset)
            else:
                raise Damage(offset, f"cycle {head.cycle} ends inside a record's head")
            after = offset + fmt.HEAD_SIZE + length
            if opcode == fmt.MESSAGE and offset + fixed_size <= after <= end:
                if number != sequence or log_time != time_ns or channel not in topics:
                    raise Damage(
                        offset,
                        f"Message of channel {channel}, sequence {number}, time {log_time} "
                        f"in cycle {head.cycle}, time {time_ns}",
                    )
                entries.append((topics[channel], tov_ns, view[offset + fixed_size : after]))
            elif opcode != fmt.PAD or after > end:
                raise Damage(
                    offset,
                    f"record of opcode {opcode:#04x} and {length} bytes in cycle {head.cycle}: "
                    f"expected a Message or PAD of at most {end - offset - fmt.HEAD_SIZE}",
                )
            offset = after
        if len(entries) != head.message_count:
            raise Damage(
                head.offset,
                f"cycle {head.cycle} has {len(entries)} messages; expected {head.message_count}",
            )
        return entries
