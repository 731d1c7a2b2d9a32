"""The cycles that this process commits, for a thread of it that follows its own log.

They are read where the writer has put them, in the mapping of the slab that it writes: as the file has
them, without looking for them there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.cycles import CycleReader, Entry
from flowrun.runtime.log.slab.writer import Slab

__all__ = ["MOST_WAITING", "CommittedCycles", "FellBehind"]

MOST_WAITING = 1024


class FellBehind(Exception):  # noqa: N818 - not an error: the log has what is not here
    """Cycles are no longer here, or cannot be read here: read the log to its end, then go on here."""


class _Place(NamedTuple):
    """Where a cycle is. number: of cycles that were added before it."""

    number: int
    cycle: int
    slab: Slab
    offset: int


class CommittedCycles:
    """The last cycles that a writer has committed and nobody has taken.

    topics: by channel id. most: number of cycles; older ones are left to the log.
    """

    def __init__(self, topics: Mapping[int, str], *, most: int = MOST_WAITING) -> None:
        self._topics = topics
        self._places: deque[_Place] = deque(maxlen=most)
        self._added = self._taken = 0
        self._last: _Place | None = None
        self._reading: tuple[Slab, CycleReader] | None = None

    def add(self, cycle: int, slab: Slab, offset: int) -> None:
        """A cycle was committed at `offset` of `slab`. By the writer."""
        self._last = place = _Place(self._added, cycle, slab, offset)
        self._places.append(place)
        self._added += 1

    def take(self, start: int | None) -> Iterator[tuple[int, int, list[Entry]]]:
        """Number, time and messages of those from cycle `start` on that were not taken, in order and
        checked. Payloads are views of the slab. On one thread at a time. `FellBehind` where these are
        not all that there are."""
        places = self._places
        while places:
            place = places.popleft()
            was_added_next = place.number == self._taken
            self._taken = place.number + 1
            if start is not None and place.cycle < start:
                continue
            if not was_added_next:
                raise FellBehind
            try:
                found = self._read(place)
            except (Damage, ValueError):  # the slab is lost, or closed
                raise FellBehind from None
            yield found

    def last(self) -> tuple[int, int, list[Entry]]:
        """The cycle that was committed last, as `take` gives it; it stays to be taken. On the thread
        that commits. `FellBehind` where it cannot be read."""
        assert self._last is not None
        try:
            return _read(self._last, self._last.slab.reader(self._topics))
        except (Damage, ValueError):
            raise FellBehind from None

    def close(self) -> None:
        """Let go of the slab."""
        self._places.clear()
        self._reading = self._last = None

    def _read(self, place: _Place) -> tuple[int, int, list[Entry]]:
        if self._reading is None or self._reading[0] is not place.slab:
            self._reading = None
            self._reading = place.slab, place.slab.reader(self._topics)
        return _read(place, self._reading[1])


def _read(place: _Place, reader: CycleReader) -> tuple[int, int, list[Entry]]:
    head = reader.head_at(place.offset)
    entries = reader.entries(head)
    if place.slab.is_lost:
        raise Damage(place.offset, "it is not in the file")
    return head.cycle, head.time_ns, entries
