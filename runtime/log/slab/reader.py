"""One slab, finished or not, damaged or whole, and also while it is written."""

from __future__ import annotations

import contextlib
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.cycles import CycleHead, CycleReader
from flowrun.runtime.log.slab.index import MessagePlaces
from flowrun.runtime.log.slab.opening import open_slab
from flowrun.runtime.log.slab.structure import ChunkSpan

__all__ = ["SlabReader"]


class SlabReader:
    """A slab file: its `preamble`, its `structure` and its `cycles`, which it finds by number and time.

    Raises `LogError` where not even the preamble can be read; `structure.damage` says what is wrong
    after it. A snapshot: sections and chunks that a live writer adds later are not seen
    (`is_outdated` says so), cycles that it adds in the present chunk are.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        opened = open_slab(path)
        self.path = path
        self.size = opened.size
        self.preamble = opened.preamble
        self.structure = opened.structure
        self._region = opened.mapped.region
        self.view = opened.mapped.view
        topics = {channel.id: channel.topic for channel in opened.preamble.channels.values()}
        self.cycles = CycleReader(self.view, self._region, opened.structure, topics, verify=verify)
        self._verify = verify
        chunks = opened.structure.chunks
        self._found_end = chunks[-1].records_end if chunks else 0
        self._firsts: dict[int, CycleHead | None] = {}
        """What `first` found."""
        self._heads: tuple[int | None, list[CycleHead]] = (None, [])
        """The last chunk of which `offset_of` read all heads."""

    def close(self) -> None:
        """Give the mapping back, now or when the last payload that views it is gone."""
        self.view.release()

    @property
    def cut(self) -> Damage | None:
        """Where another program has cut the file since it was opened, if reading has come there."""
        if not self._region.is_cut:
            return None
        return Damage(self._region.whole_to, "another program cut the file while it was read")

    def is_outdated(self) -> bool:
        """Whether a writer has grown, closed or finished what was the slab's end when it was opened,
        or whether that end was damaged or was not final; opened again, the slab may show more."""
        structure = self.structure
        if structure.finished:
            return False
        if structure.damage is not None or not structure.chunks or structure.chunks[-1].closed:
            return True
        last = structure.chunks[-1]
        (length,) = fmt.U64.unpack_from(self.view, last.start + fmt.CHUNK_RECORDS_LENGTH_AT)
        try:
            size = self.path.stat().st_size
        except OSError:
            size = 0  # removed
        return last.records_start + int(length) != self._found_end or size != len(self.view)

    def first(self, index: int) -> CycleHead | None:
        """The first CYCLE of chunk `index`; None where it has none, or a damaged one."""
        if index in self._firsts:
            return self._firsts[index]
        try:
            head = next(self.cycles.heads(index), None)
            if head is not None and self._verify:
                self.cycles.check(head)
        except Damage:
            head = None
        if head is not None or self.structure.finished:
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

        found = bisect_right(range(len(self.structure.chunks)), x=False, key=is_behind)
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
        if kept != index or not self.structure.chunks[index].closed:
            with contextlib.suppress(Damage):  # found again when the cycles are read
                heads.extend(self.cycles.heads(index, heads[-1].end if heads else None))
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
        chunk, view = self.structure.chunks[index], self.view
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
            return first.cycle + ((int(sequence) - first.cycle) & fmt.SEQUENCE_MASK)

        try:
            entry = bisect_left(range(count), target, key=value_of)
            offset = chunk.records_start
            if entry:
                # The rest of the cycle of the message before is passed over.
                offset = place_of(entry - 1)
                while view[offset] in (fmt.MESSAGE, fmt.PAD):
                    _, length = fmt.RECORD_HEAD.unpack_from(view, offset)
                    offset += fmt.HEAD_SIZE + length
            for head in self.cycles.heads(index, offset):
                if (head.cycle if time_ns is None else head.time_ns) >= target:
                    self.cycles.check(head)
                    return head.offset if cycle in (None, head.cycle) else None
        except (LookupError, Damage, struct.error):
            pass
        return None

    def places(self, index: int) -> MessagePlaces | None:
        """Where the messages of chunk `index` are, as its MessageIndex records say; None where it has
        none. They have no checksum: what they say is to be compared with what is there."""
        chunk, view = self.structure.chunks[index], self.view
        found: MessagePlaces = {}
        for channel, at, count in self._indexes(chunk):
            size = count * fmt.INDEX_ENTRY.size
            found[channel] = np.frombuffer(view[at : at + size], "<u8").reshape(count, 2).copy()
        return found or None

    def index_at(self, chunk: ChunkSpan) -> int:
        """Where the MessageIndex records of a closed chunk begin, if it has any: a recovery leaves a PAD
        before them."""
        offset, view = chunk.end, self.view
        while len(view) - offset > fmt.HEAD_SIZE and view[offset] == fmt.PAD:
            _, length = fmt.RECORD_HEAD.unpack_from(view, offset)
            if length > fmt.MAX_PAD_BETWEEN_CHUNKS:
                break
            offset += fmt.HEAD_SIZE + length
        return offset

    def _longest_index(self, chunk: ChunkSpan) -> tuple[int, int, int] | None:
        """Channel, offset of the first entry, and number of entries; None where there is no index."""
        return max(self._indexes(chunk), key=lambda index: index[2], default=None)

    def _indexes(self, chunk: ChunkSpan) -> Iterator[tuple[int, int, int]]:
        """Channel, offset of the first entry, and number of entries of each index of a chunk."""
        if not chunk.closed or chunk.end != chunk.records_end:
            return
        offset, view = self.index_at(chunk), self.view
        fixed = fmt.MESSAGE_INDEX_FIXED_SIZE
        while len(view) - offset > fmt.HEAD_SIZE and view[offset] == fmt.MESSAGE_INDEX:
            _, length = fmt.RECORD_HEAD.unpack_from(view, offset)
            content = offset + fmt.HEAD_SIZE
            offset = content + length
            count = (length - fixed) // fmt.INDEX_ENTRY.size
            if offset <= len(view) and count > 0:
                channel = int.from_bytes(view[content : content + 2], "little")
                yield channel, content + fixed, count
