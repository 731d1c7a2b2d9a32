"""What happened to a run besides its messages, by cycle: errors, settings, drops, states of sources."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar, cast

import msgpack
import numpy as np

from flowrun.runtime.context import Playback, State, shown_state
from flowrun.runtime.errors import LogError
from flowrun.runtime.events import (
    Dropped,
    EndOfSource,
    Event,
    Failed,
    Injected,
    Met,
    Replaced,
    Set,
    SourceState,
    Switched,
    unpack,
)
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CONTROL_TOPIC
from flowrun.runtime.recorded.places import Place, Places, Times

__all__ = ["Controls", "Happened"]

_E = TypeVar("_E", bound=Event)

_OF_SOURCES = (SourceState, Switched, EndOfSource)
_KINDS = tuple(it.kind for it in (Failed, Set, Injected, Dropped, Replaced, Met, *_OF_SOURCES))


@dataclass(slots=True)
class Happened:
    """The records of one kind and task: their cycles, these cycles' times, how much each counts, and
    the cause where it has one."""

    cycles: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)

    def total(self, cycle: int) -> int:
        """What those at or before a cycle count together."""
        return int(np.asarray(self.counts)[: self.number(cycle)].sum())

    def number(self, cycle: int) -> int:
        """The number of records at or before a cycle."""
        return int(np.searchsorted(np.asarray(self.cycles), cycle, side="right"))

    @property
    def at_ns(self) -> Times:
        return np.asarray(self.times, np.uint64)


class Controls:
    """The control records of `log`; `update` sees what came since.

    What `by` gives was read where an index proposed it, and is only counted. What `events` gives was
    checked.
    """

    def __init__(self, log: Log, places: Places) -> None:
        self._log = log
        self._places = places
        self._first: Place | None = None
        self._read = 0
        self.by: dict[tuple[str, str], Happened] = {}
        """Kind and task -> the records."""
        self._events: dict[int, list[Event]] = {}

    def update(self) -> None:
        """Read the records that were not read yet."""
        found = self._places.of(CONTROL_TOPIC)
        first = found.place(0) if len(found) else None
        if first != self._first:  # a flight recorder has removed the slab in which it was
            self._first, self._read = first, 0
            self.by.clear()
        for index in range(self._read, len(found)):
            self._note(found.place(index))
        self._read = len(found)

    def _note(self, place: Place) -> None:
        cycle = self._places.cycle_at(place)
        if cycle < 0:
            return
        try:
            record = msgpack.unpackb(self._places.payload_at(place))
            kind, task = record["kind"], record["task"]
            is_drop = kind == Dropped.kind
            count = int(record["value"]) if is_drop else 1
            cause = sys.intern(record["key"]) if is_drop else ""
        except (ValueError, TypeError, KeyError, msgpack.UnpackException):
            return
        if kind in _KINDS and isinstance(task, str):
            happened = self.by.setdefault((kind, task), Happened())
            happened.cycles.append(cycle)
            happened.times.append(place.time_ns)
            happened.counts.append(count)
            happened.causes.append(cause)

    def of_kind(self, kind: str) -> Iterator[tuple[str, Happened]]:
        """Task and records, of one kind."""
        for (found, task), happened in self.by.items():
            if found == kind:
                yield task, happened

    def events(self, cycle: int) -> list[Event]:
        """What happened in a cycle, checked; nothing where the log does not hold it whole."""
        if cycle not in self._events:
            try:
                record = self._log[cycle]
                maps = [
                    self._log.message(record, entry).fields
                    for entry in record.entries
                    if entry[0] == CONTROL_TOPIC
                ]
                self._events[cycle] = [unpack(fields) for fields in maps]
            except (LogError, ValueError):
                self._events[cycle] = []
            while len(self._events) > 1000:
                del self._events[next(iter(self._events))]
        return self._events[cycle]

    def totals(self, cycle: int, *kinds: str) -> dict[str, int]:
        """What the records of these kinds at or before a cycle count together, by task."""
        found: Counter[str] = Counter()
        for kind in kinds:
            for task, happened in self.of_kind(kind):
                found[task] += happened.total(cycle)
        return {task: count for task, count in found.items() if count}

    def drops(self, task: str, cycle: int) -> dict[str, int]:
        """What a task left out at or before a cycle, by cause; as the report of a run has it."""
        found: Counter[str] = Counter()
        dropped = self.by.get((Dropped.kind, task), Happened())
        number = dropped.number(cycle)
        for cause, count in zip(dropped.causes[:number], dropped.counts, strict=False):
            found[cause] += count
        if replaced := self.by.get((Replaced.kind, task), Happened()).number(cycle):
            found["replaced"] += replaced
        return dict(found)

    def settings(self, cycle: int, *, since: int) -> dict[str, dict[str, object]]:
        """The live values that were set from cycle `since` to `cycle`, the newest ones, by task."""
        found: dict[str, dict[str, object]] = {}
        for task, happened in self.of_kind(Set.kind):
            for at in happened.cycles[happened.number(since - 1) : happened.number(cycle)]:
                for event in self.events(at):
                    if isinstance(event, Set) and event.task == task:
                        found.setdefault(task, {}).update(event.values)
        return found

    def states(self, cycle: int) -> dict[str, dict[str, str]]:
        """How each source was doing, and why, as people saw it; of those of which the log says it."""
        kinds = [kind.kind for kind in _OF_SOURCES]
        found = {}
        for task in dict.fromkeys(task for kind, task in self.by if kind in kinds):
            said = self._last(SourceState, task, cycle)
            switched = self._last(Switched, task, cycle)
            end = self._last(EndOfSource, task, cycle)
            if said or switched or end:
                state, code = shown_state(
                    ("running", "") if said is None else (cast("State", said.state), said.code),
                    asked="running" if switched is None else cast("Playback", switched.playback),
                    has_ended=end is not None,
                )
                found[task] = {"state": state, "code": code}
        return found

    def _last(self, kind: type[_E], task: str, cycle: int) -> _E | None:
        """The newest event of a kind and task at or before a cycle."""
        happened = self.by.get((kind.kind, task), Happened())
        number = happened.number(cycle)
        if not number:
            return None
        events = self.events(happened.cycles[number - 1])
        return next((it for it in reversed(events) if type(it) is kind and it.task == task), None)
