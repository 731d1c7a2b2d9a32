"""The cycles of one slab, read and checked, and found by number and time.

They are read from the file's mapping, so that payloads are views of it; only committed cycles are
touched, and those are never cut off.
"""

from __future__ import annotations

import contextlib
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.opening import ChunkSpan, Damage, SlabFile

__all__ = ["ChunkSpan", "CycleHead", "Damage", "Entry", "SlabReader"]

Entry = tuple[str, int, memoryview]
"""Topic, tov_ns, payload."""


class CycleHead(NamedTuple):
    """A CYCLE record: its offset, where its records end, and its content."""

    offset: int
    end: int
    cycle: int
    time_ns: int
    message_count: int
    crc: int


class SlabReader(SlabFile):
    """One slab file, finished or not, damaged or whole, and also while it is written.

    Raises `LogError` where not even the preamble can be read. A snapshot: sections and chunks that
    a live writer adds later are not seen (`is_outdated` says so), cycles that it adds in the
    present chunk are.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        super().__init__(path, verify=verify)
        self._firsts: dict[int, CycleHead | None] = {}
        self._heads: tuple[int, list[CycleHead]] = (-1, [])
        self._found_end = self.chunks[-1].records_end if self.chunks else 0

    def is_outdated(self) -> bool:
        """Whether a writer has grown, closed or finished what was the slab's end when it was opened,
        or whether that end was damaged or was not final; opened again, the slab may show more."""
        if self.finished:
            return False
        if self.damage is not None or not self.chunks or self.chunks[-1].closed:
            return True
        last = self.chunks[-1]
        (length,) = fmt.U64.unpack_from(self.view, last.start + fmt.CHUNK_RECORDS_LENGTH_AT)
        try:
            size = self.path.stat().st_size
        except OSError:
            size = 0  # removed
        return last.records_start + int(length) != self._found_end or size != len(self.view)

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
        view, topics, verify, crc32 = self.view, self.topics, self.verify, fmt.crc32
        unpack_cycle, unpack = fmt.CYCLE_RECORD.unpack_from, fmt.MESSAGE_HEAD.unpack_from
        if self.finished:
            self._check_indexed(chunk)
        while True:
            while chunk.records_end - offset >= fmt.CYCLE_SIZE:
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

        Their crc is not verified.
        """
        chunk = self.chunks[index]
        view = self.view
        unpack = fmt.CYCLE_RECORD.unpack_from
        offset = chunk.records_start if start is None else start
        end = chunk.records_end
        if self.finished:
            self._check_indexed(chunk)
        while offset < end:
            opcode = view[offset]
            if opcode != fmt.CYCLE or end - offset < fmt.CYCLE_SIZE:
                if opcode != fmt.PAD or chunk.closed:
                    if self._was_closed(chunk, offset):
                        return
                    raise Damage(
                        offset, f"unexpected record of opcode {opcode:#04x}: expected CYCLE"
                    )
                self._check_unused(offset, end)
                return
            _, length, cycle, time_ns, count, size, crc, reserved = unpack(view, offset)
            after = offset + fmt.CYCLE_SIZE + size
            if length != fmt.CYCLE_CONTENT.size or reserved or after > end:
                raise Damage(
                    offset,
                    f"CYCLE of {length} bytes, {size} bytes of messages and reserved {reserved}, "
                    f"{end - offset} bytes before the end of its chunk",
                )
            yield CycleHead(offset, after, cycle, time_ns, count, crc)
            offset = after

    def _check_indexed(self, chunk: ChunkSpan) -> None:
        head = fmt.CHUNK_HEAD.unpack_from(self.view, chunk.start)
        opcode, length, _, _, size, chunk.crc, compression, records_length = head
        if (opcode, length, compression) != (fmt.CHUNK, chunk.end - chunk.start - fmt.HEAD_SIZE, 0):
            raise Damage(chunk.start, "not the Chunk that the summary lists here")
        if not size == records_length == chunk.records_end - chunk.records_start:
            raise Damage(chunk.start, "a Chunk of another size than the summary lists")

    def _was_closed(self, chunk: ChunkSpan, offset: int) -> bool:
        """Whether a live writer has closed the chunk at `offset` since it was found open."""
        if self.finished or chunk is not self.chunks[-1]:
            return False
        head = fmt.CHUNK_HEAD.unpack_from(self.view, chunk.start)
        if head[0] != fmt.CHUNK or chunk.records_start + head[-1] != offset:
            return False
        chunk.records_end = offset
        return True

    def _check_unused(self, offset: int, end: int) -> None:
        """After the first PAD at `offset` there are only PADs and a cycle that is being committed."""
        start = offset
        while end - offset >= fmt.HEAD_SIZE:
            opcode, length = fmt.RECORD_HEAD.unpack_from(self.view, offset)
            if opcode not in (fmt.PAD, fmt.MESSAGE):
                if self.view[start] == fmt.CYCLE or self._was_closed(self.chunks[-1], start):
                    return  # a live writer committed or closed it this moment
                raise Damage(
                    start, f"a PAD with a record of opcode {opcode:#04x} after it, at {offset}"
                )
            offset += fmt.HEAD_SIZE + length

    def check(self, head: CycleHead) -> None:
        """Raise `Damage` where the cycle's crc does not match."""
        offset = head.offset
        content = self.view[
            offset + fmt.HEAD_SIZE : offset + fmt.HEAD_SIZE + fmt.CYCLE_CHECKED.size
        ]
        crc = fmt.crc32(self.view[offset + fmt.CYCLE_SIZE : head.end], fmt.crc32(content))
        if crc != head.crc:
            raise Damage(
                offset, f"cycle {head.cycle} has CRC {crc:#010x}; expected {head.crc:#010x}"
            )

    def entries(self, head: CycleHead) -> list[Entry]:
        """The cycle's messages in the file's order, checked if the slab is opened so."""
        if self.verify:
            self.check(head)
        view, topics = self.view, self.topics
        unpack, fixed_size = fmt.MESSAGE_HEAD.unpack_from, fmt.MESSAGE_HEAD.size
        time_ns, sequence = head.time_ns, head.cycle & 0xFFFFFFFF
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
            if head is None:  # reading from before it finds what is wrong there
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

        Where there is none, the offset after those that there are. Where the chunk's index does
        not say, all heads of the chunk are read, and kept for the next call.
        """
        kept, heads = self._heads
        if kept != index:
            sought = self._seek(index, cycle=cycle, time_ns=time_ns)
            if sought is not None:
                return sought
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

    def _seek(self, index: int, *, cycle: int | None, time_ns: int | None) -> int | None:
        """`offset_of` in O(log n), by the chunk's longest MessageIndex; None where it does not say.

        An index has no checksum, so it only proposes: each entry that is looked at must be that of
        a message of its channel and time, and what is found a cycle that passes its check, with
        the very number that is asked for.
        """
        chunk, view = self.chunks[index], self.view
        first = self.first(index)
        found = self._longest_index(chunk)
        target = cycle if time_ns is None else time_ns
        if first is None or found is None or target is None or None not in (cycle, time_ns):
            return None
        channel, base, count = found

        def place_of(entry: int) -> int:
            time, at = fmt.INDEX_ENTRY.unpack_from(view, base + entry * fmt.INDEX_ENTRY.size)
            place = chunk.records_start + int(at)
            if place + fmt.MESSAGE_HEAD.size > chunk.records_end:
                raise LookupError(entry)
            opcode, _, owner, _, log_time, _ = fmt.MESSAGE_HEAD.unpack_from(view, place)
            if (opcode, owner, log_time) != (fmt.MESSAGE, channel, time):
                raise LookupError(entry)
            return place

        def value_of(entry: int) -> int:
            _, _, _, sequence, log_time, _ = fmt.MESSAGE_HEAD.unpack_from(view, place_of(entry))
            if cycle is None:
                return int(log_time)
            return first.cycle + ((int(sequence) - first.cycle) & 0xFFFFFFFF)

        try:
            entry = bisect_left(range(count), target, key=value_of)
            offset = chunk.records_start
            if entry:
                # The rest of the cycle of the message before is passed over.
                offset = place_of(entry - 1)
                while view[offset] in (fmt.MESSAGE, fmt.PAD):
                    _, length = fmt.RECORD_HEAD.unpack_from(view, offset)
                    offset += fmt.HEAD_SIZE + length
            for head in self.heads(index, offset):
                if (head.cycle if time_ns is None else head.time_ns) >= target:
                    self.check(head)
                    return head.offset if cycle in (None, head.cycle) else None
        except (LookupError, Damage, struct.error):
            pass
        return None

    def _longest_index(self, chunk: ChunkSpan) -> tuple[int, int, int] | None:
        """Channel, offset of the first entry, and number of entries; None where there is no index."""
        if not chunk.closed or chunk.end != chunk.records_end:
            return None
        best, offset, view = None, chunk.end, self.view
        fixed = fmt.MESSAGE_INDEX_FIXED_SIZE
        while len(view) - offset > fmt.HEAD_SIZE and view[offset] == fmt.MESSAGE_INDEX:
            _, length = fmt.RECORD_HEAD.unpack_from(view, offset)
            content = offset + fmt.HEAD_SIZE
            offset = content + length
            count = (length - fixed) // fmt.INDEX_ENTRY.size
            if offset <= len(view) and count > (best[2] if best else 0):
                best = (
                    int.from_bytes(view[content : content + 2], "little"),
                    content + fixed,
                    count,
                )
        return best
