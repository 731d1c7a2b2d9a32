"""Where the messages of each topic are, without reading them: a run of an hour has half a million.

Closed chunks have an index of theirs, and NumPy takes it as it is: 7 MB for an hour at 30 pictures a
second, against 2 GB of messages. An index has no checksum, so it only counts and proposes: what is
given out is read by `Log`, which checks it. The last chunk of a run that is being written, or was cut
off, has no index: its cycles are checked, and walked over.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.cycles import CycleHead
from flowrun.runtime.log.slab.index import MessagePlaces, message_places
from flowrun.runtime.log.slab.reader import SlabReader

__all__ = ["Place", "Places", "TopicPlaces"]

_MESSAGE_HEAD = np.dtype(
    [
        ("opcode", "u1"),
        ("length", "<u8"),
        ("channel", "<u2"),
        ("sequence", "<u4"),
        ("time_ns", "<u8"),
        ("tov_ns", "<u8"),
    ]
)
"""`format.MESSAGE_HEAD`, as NumPy reads it."""
_HALF = (fmt.SEQUENCE_MASK + 1) // 2
_EMPTY = np.empty((0, 2), np.uint64)

Times = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message is: its slab, the file offset of its record, and its cycle's time."""

    slab: Path
    offset: int
    time_ns: int


@dataclass(slots=True)
class _Chunk:
    """What is known of a chunk.

    begins: file offset of its records.
    found: by channel id, (time, offset in the records) of each message.
    walked_to: file offset up to which the cycles of a chunk without an index were read.
    is_whole: whether nothing more will come.
    """

    begins: int
    found: MessagePlaces = field(default_factory=dict)
    walked_to: int = 0
    is_whole: bool = False


class TopicPlaces:
    """The messages of one topic, in order; `times` are those of their cycles, in nanoseconds."""

    def __init__(self, places: Places, parts: list[tuple[Path, int, MessagePlaces, int]]) -> None:
        self._places = places
        self._parts = [
            (slab, begins, found[channel])
            for slab, begins, found, channel in parts
            if channel in found
        ]
        entries = [found for _, _, found in self._parts]
        self.times: Times = np.concatenate([it[:, 0] for it in entries or [_EMPTY]])
        self._ends = np.cumsum([len(it) for it in entries], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def goes_back(self) -> bool:
        """Whether a time is before that of an earlier message, so that times are not found. No writer of
        ours lets that happen."""
        return bool((self.times[1:] < self.times[:-1]).any())

    def place(self, index: int) -> Place:
        """Of message number `index`."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        slab, begins, found = self._parts[part]
        time_ns, offset = found[index - (int(self._ends[part - 1]) if part else 0)]
        return Place(slab, begins + int(offset), int(time_ns))

    def cycle(self, index: int) -> int:
        """The cycle of message number `index`; -1 where there is no message: the index is damaged."""
        return self._places.cycle_at(self.place(index))

    def at_or_before(self, index: int) -> int | None:
        """The cycle of message number `index`, or of the last one before it that is there."""
        return next((it for at in range(index, -1, -1) if (it := self.cycle(at)) >= 0), None)

    def at_or_after(self, index: int) -> int | None:
        """The cycle of message number `index`, or of the first one after it that is there."""
        return next((it for at in range(index, len(self)) if (it := self.cycle(at)) >= 0), None)

    def near(self, index: int) -> int:
        """The cycle of message number `index`, or of the nearest before it, or else after it, that is
        there; -1 where none is."""
        found = self.at_or_before(index)
        found = self.at_or_after(index) if found is None else found
        return -1 if found is None else found

    def cycles(self, indexes: NDArray[np.int64]) -> NDArray[np.int64]:
        """`near` of many messages at once."""
        found = np.full(len(indexes), -1, np.int64)
        of_part = np.searchsorted(self._ends, indexes, side="right")
        for part in np.unique(of_part).tolist():
            slab, begins, entries = self._parts[part]
            chosen = of_part == part
            first = int(self._ends[part - 1]) if part else 0
            found[chosen] = self._places.cycles_at(slab, begins, entries[indexes[chosen] - first])
        for at in np.flatnonzero(found < 0).tolist():
            found[at] = self.near(int(indexes[at]))
        return found

    def before(self, cycle: int) -> int:
        """The number of messages at or before a cycle, up to the last of them that is there."""
        number = bisect_right(range(len(self)), cycle, key=self._known_cycle)
        while number and self.cycle(number - 1) < 0:
            number -= 1
        return number

    def _known_cycle(self, index: int) -> int:
        found = self.at_or_before(index)
        return -1 if found is None else found


class Places:
    """The places of all messages of `log`; `update` sees what came since."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._chunks: dict[tuple[Path, int], _Chunk] = {}
        self._slabs: dict[Path, SlabReader] = {}
        self._some_cycles: dict[Path, int] = {}
        """The number of a cycle of each slab that has a whole one."""
        self._topics: dict[str, TopicPlaces] = {}
        self._channels = {
            channel.topic: channel.id for channel in log.slabs[0].preamble.channels.values()
        }

    def update(self) -> bool:
        """See what a writer has added, and what it removed; whether there was something."""
        slabs = {slab.path: slab for slab in self._log.slabs}
        changed = slabs.keys() != self._slabs.keys()
        self._some_cycles = {path: it for path, it in self._some_cycles.items() if path in slabs}
        for key in [key for key in self._chunks if key[0] not in slabs]:
            del self._chunks[key]
        self._slabs = slabs
        for path, slab in slabs.items():
            for index in range(len(slab.structure.chunks)):
                changed |= self._look(path, slab, index)
        if changed:
            self._topics.clear()
        return changed

    def of(self, topic: str) -> TopicPlaces:
        """The places of a topic's messages; none where the log does not have it, or none is there."""
        if topic not in self._topics:
            channel = self._channels.get(topic, -1)
            parts = [
                (path, chunk.begins, chunk.found, channel)
                for (path, _), chunk in self._chunks.items()
            ]
            found = TopicPlaces(self, parts)
            is_there = len(found) and found.near(0) >= 0
            self._topics[topic] = found if is_there else TopicPlaces(self, [])
        return self._topics[topic]

    def cycle_at(self, place: Place) -> int:
        """The cycle of the message at a place; -1 where there is none of that time."""
        slab = self._slabs[place.slab]
        if place.offset + fmt.MESSAGE_HEAD.size > len(slab.view):
            return -1
        opcode, _, _, sequence, time_ns, _ = fmt.MESSAGE_HEAD.unpack_from(slab.view, place.offset)
        known = self._some_cycle(slab)
        if opcode != fmt.MESSAGE or time_ns != place.time_ns or known is None:
            return -1
        return known + ((int(sequence) - known + _HALF) & fmt.SEQUENCE_MASK) - _HALF

    def cycles_at(self, path: Path, begins: int, entries: NDArray[np.uint64]) -> NDArray[np.int64]:
        """`cycle_at` of many messages of a slab.

        begins: file offset of their chunk's records. entries: time and offset there of each.
        """
        slab = self._slabs[path]
        known = self._some_cycle(slab)
        size = len(slab.view) - fmt.MESSAGE_HEAD.size
        offsets = entries[:, 1].astype(np.int64) + begins
        is_there = (offsets >= 0) & (offsets <= size)
        if known is None or size < 0:
            return np.full(len(entries), -1, np.int64)
        heads = np.ndarray((size + 1,), _MESSAGE_HEAD, buffer=slab.view, strides=(1,))
        found = heads[np.where(is_there, offsets, 0)]
        is_there &= (found["opcode"] == fmt.MESSAGE) & (found["time_ns"] == entries[:, 0])
        after = (found["sequence"].astype(np.int64) - known + _HALF) & fmt.SEQUENCE_MASK
        return np.where(is_there, known + after - _HALF, -1)

    def _some_cycle(self, slab: SlabReader) -> int | None:
        """The number of a whole cycle of a slab: of a message's cycle, the message has 32 bits alone."""
        if slab.path not in self._some_cycles:
            head = next(
                (it for at in range(len(slab.structure.chunks)) if (it := _whole(slab, at))), None
            )
            if head is None:
                return None
            self._some_cycles[slab.path] = head.cycle
        return self._some_cycles[slab.path]

    def payload_at(self, place: Place) -> memoryview:
        """The payload of the message at a place, which nothing has checked."""
        view = self._slabs[place.slab].view
        _, length = fmt.RECORD_HEAD.unpack_from(view, place.offset)
        return view[place.offset + fmt.MESSAGE_HEAD.size : place.offset + fmt.HEAD_SIZE + length]

    def _look(self, path: Path, slab: SlabReader, index: int) -> bool:
        span = slab.structure.chunks[index]
        chunk = self._chunks.get((path, index))
        if chunk is None or chunk.begins != span.records_start:
            chunk = _Chunk(span.records_start, walked_to=span.records_start)
            self._chunks[path, index] = chunk
        if chunk.is_whole:
            return False
        indexed = slab.places(index) if chunk.walked_to == chunk.begins else None
        if indexed is not None:
            chunk.found = {
                channel: places[places[:, 1] < span.records_end - span.records_start]
                for channel, places in indexed.items()
            }
            chunk.is_whole = True
            return True
        return self._walk(slab, index, chunk)

    def _walk(self, slab: SlabReader, index: int, chunk: _Chunk) -> bool:
        """Note the messages of cycles that came since the last look."""
        offsets = array("Q")
        try:
            for head in slab.cycles.heads(index, chunk.walked_to):
                slab.cycles.check(head)
                offsets.append(head.offset)
                chunk.walked_to = head.end
        except Damage:
            pass  # it ends what the log holds of this chunk; `Log.loss` says so when it is read
        else:
            chunk.is_whole = slab.structure.chunks[index].closed
        if not offsets:
            return False
        new = message_places(slab.view, offsets, records_at=chunk.begins)
        for channel, places in new.items():
            known = chunk.found.get(channel, _EMPTY)
            chunk.found[channel] = np.concatenate([known, places])
        return True


def _whole(slab: SlabReader, index: int) -> CycleHead | None:
    """The first cycle of chunk `index` that is as it was written."""
    with suppress(Damage):
        for head in slab.cycles.heads(index):
            with suppress(Damage):
                slab.cycles.check(head)
                return head
    return None
