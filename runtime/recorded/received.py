"""What a run of a fleet took of other processes: when, how late, and what never came."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from flowrun.runtime.events import Met
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.controls import Controls
from flowrun.runtime.recorded.places import Place, Places

__all__ = ["Gap", "Received", "Taken"]

_ORIGIN = "OriginMsg"


class Gap(NamedTuple):
    """Cycles of a sender that never come. at_ns, cycle: when the receiver noted it."""

    at_ns: int
    cycle: int
    text: str


@dataclass(slots=True)
class Taken:
    """What one source task of a run took.

    sender: the process, "camera/0"; "" before anything came.
    at_ns, delays_ns: of each cycle in which messages came, its time, and how much later that is than the
        sender's cycle, each by the clock of its own machine.
    skipped: number of messages that were passed over for newer ones, or too old.
    cursor: the sender's run and the last of its cycles that was taken.
    cycles: those of `at_ns`.
    met: how often the sender was reached. met_at, offsets_ns: the cycles in which it was, and by how
        much its clock was ahead then; not those of which the log does not say it.
    """

    source: str
    sender: str = ""
    at_ns: array[int] = field(default_factory=lambda: array("q"))
    delays_ns: array[int] = field(default_factory=lambda: array("q"))
    cycles: array[int] = field(default_factory=lambda: array("q"))
    skipped: int = 0
    gaps: list[Gap] = field(default_factory=list)
    cursor: tuple[int, int] = (0, -1)
    met: int = 0
    met_at: array[int] = field(default_factory=lambda: array("q"))
    offsets_ns: array[int] = field(default_factory=lambda: array("q"))
    first: Place | None = None
    read: int = 0

    @property
    def offset_ns(self) -> int | None:
        """By how much the sender's clock was ahead when it was reached last; None where the log does not
        say it."""
        return self.offsets_ns[-1] if self.offsets_ns else None

    def late_ns(self, otherwise_ns: int | None) -> list[int]:
        """`delays_ns` by one clock, corrected by how much the sender's was ahead when it had last been
        reached before. otherwise_ns: how much, where the log does not say it; None leaves them as they
        are."""
        if not self.offsets_ns:
            return [delay + (otherwise_ns or 0) for delay in self.delays_ns]
        last = (max(0, bisect_right(self.met_at, cycle) - 1) for cycle in self.cycles)
        return [delay + self.offsets_ns[it] for delay, it in zip(self.delays_ns, last, strict=True)]


class Received:
    """The deliveries of the run of `log`, by source task; `update` reads those that came since.

    They are read where an index proposes them, and only counted: nothing has checked them.
    """

    def __init__(self, log: Log, places: Places, controls: Controls) -> None:
        self._places, self._controls = places, controls
        self._topics = {
            topic.metadata["task"]: name
            for name, topic in log.topics.items()
            if topic.schema_name == _ORIGIN and "task" in topic.metadata
        }
        self._taken = {source: Taken(source) for source in self._topics}

    def update(self) -> list[Taken]:
        """All of it, one for each source task. They change with the next update."""
        for source, topic in self._topics.items():
            found = self._places.of(topic)
            first = found.place(0) if len(found) else None
            taken = self._taken[source]
            if first != taken.first:  # a flight recorder has removed the slab in which it was
                taken = self._taken[source] = Taken(source, first=first)
            for index in range(taken.read, len(found)):
                self._note(taken, found.place(index))
            taken.read = len(found)
            self._note_meetings(taken)
        return list(self._taken.values())

    def _note(self, taken: Taken, place: Place) -> None:
        cycle = self._places.cycle_at(place)
        if cycle < 0:
            return
        try:
            said: dict[str, Any] = msgpack.unpackb(self._places.payload_at(place))
            sender = f"{said['partition']}/{said['instance']}"
            cursor = int(said["run"]), int(said["cycle"])
            delay_ns = place.time_ns - int(said["time_ns"])
            skipped, is_taken = int(said["skipped"]), int(said["first"]) <= cursor[1]
            gap = _gap(said, sender)
            if is_taken:
                taken.delays_ns.append(delay_ns)
        except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException):
            return
        taken.sender, taken.cursor = sender, cursor
        taken.skipped += skipped
        if is_taken:
            taken.at_ns.append(place.time_ns)
            taken.cycles.append(cycle)
        if gap:
            taken.gaps.append(Gap(place.time_ns, cycle, gap))

    def _note_meetings(self, taken: Taken) -> None:
        met = self._controls.by.get((Met.kind, taken.source))
        for cycle in () if met is None else met.cycles[taken.met :]:
            taken.met += 1
            for event in self._controls.events(cycle):
                if isinstance(event, Met) and event.task == taken.source:
                    taken.met_at.append(cycle)
                    taken.offsets_ns.append(event.offset_ns)


def _gap(said: dict[str, Any], sender: str) -> str:
    """Which cycles never come, and why; "" where none is missing."""
    if not said["gap"]:
        return ""
    last = int(said["gap_to"])
    until = "the end of its run" if last < 0 else str(last)
    return f"cycles {int(said['gap_from'])} to {until} of {sender} never come: {said['gap']}"
