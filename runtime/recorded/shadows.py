"""What shadows said about the frames of a run, next to the tasks whose shadows they are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

import msgpack
import numpy as np

from flowrun.runtime.errors import LogError
from flowrun.runtime.events import Failed
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.shadows import Pairing, agree, answers_of, shadows_of
from flowrun.runtime.log.slab.format import STEPS_TOPIC
from flowrun.runtime.recorded.controls import Controls, Happened
from flowrun.runtime.recorded.frames import message_of
from flowrun.runtime.recorded.latencies import latency_ms
from flowrun.runtime.recorded.places import Place, Places, Times

__all__ = ["Comparisons"]

_HOUR_NS = 3_600_000_000_000
_WINDOW = 100
"""Of the last answers, as a budget of slow ones looks at them."""


class _Said(NamedTuple):
    text: str
    cycle: int


@dataclass(slots=True)
class _Compared:
    """A shadow, and the frames about which it and its task have answered, as the later of both came.

    of: the task. topics: of the answers: the task's, and the shadow's.
    first, read: of each topic, the place of its first message, and how many were read.
    cycles, times: of the later answer. said: the cycles of both answers. frames: that of the frame.
    differs: whether they say different things.
    """

    of: str
    topics: tuple[str, str]
    first: list[Place | None] = field(default_factory=list)
    read: list[int] = field(default_factory=lambda: [0, 0])
    pairing: Pairing[_Said] = field(default_factory=Pairing)
    cycles: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    said: list[tuple[int, int]] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    differs: list[bool] = field(default_factory=list)

    def number(self, cycle: int) -> int:
        """The number of frames that were compared at or before a cycle."""
        return bisect_right(self.cycles, cycle)


class Comparisons:
    """The shadows of `log`; `update` sees what came since.

    What is counted was read where an index proposed it; the texts that `find` gives were checked.
    """

    def __init__(self, log: Log, places: Places, controls: Controls) -> None:
        self._log = log
        self._places = places
        self._controls = controls
        self._all: dict[str, _Compared] = {}
        for shadow, of in shadows_of(log).items():
            topics = answers_of(log, shadow, of)
            if len(topics) == 2:  # both are logged
                own, its = sorted(topics, key=topics.__getitem__)
                self._all[shadow] = _Compared(of, (own, its))

    def update(self) -> None:
        """Read the answers that were not read yet."""
        for shadow in self._all:
            it = self._all[shadow]
            places = [self._places.of(topic) for topic in it.topics]
            first = [found.place(0) if len(found) else None for found in places]
            if any(known not in (None, now) for known, now in zip(it.first, first, strict=False)):
                it = self._all[shadow] = _Compared(
                    it.of, it.topics
                )  # a flight recorder removed some
            it.first = first
            new = [
                (cycle, bool(number), place)
                for number, found in enumerate(places)
                for place in map(found.place, range(it.read[number], len(found)))
                if (cycle := self._places.cycle_at(place)) >= 0
            ]
            it.read = list(map(len, places))
            for cycle, is_shadow, place in sorted(new, key=itemgetter(0)):
                self._note(it, cycle, place, is_shadow=is_shadow)

    def _note(self, it: _Compared, cycle: int, place: Place, *, is_shadow: bool) -> None:
        try:
            fields = msgpack.unpackb(self._places.payload_at(place))
            text, frame = str(fields["response"]), int(fields["frame_cycle"])
        except (ValueError, TypeError, KeyError, msgpack.UnpackException):
            return
        both = it.pairing.add(frame, _Said(text, cycle), is_shadow=is_shadow)
        if both is None:
            return
        it.cycles.append(cycle)
        it.times.append(place.time_ns)
        it.said.append((both[0].cycle, both[1].cycle))
        it.frames.append(frame)
        it.differs.append(not agree(both[0].text, both[1].text))

    def disagreements(self) -> Iterator[tuple[str, Times]]:
        """Of each shadow, the times at which it was known to disagree with its task."""
        for shadow, it in self._all.items():
            yield shadow, np.asarray(it.times, np.uint64)[np.asarray(it.differs, bool)]

    def counts(self, cycle: int) -> dict[str, dict[str, Any]]:
        """By shadow, how many frames were compared at or before a cycle, and about how many of them it
        disagreed."""
        found = {}
        for shadow, it in self._all.items():
            number = it.number(cycle)
            disagreed = sum(it.differs[:number])
            found[shadow] = {"of": it.of, "compared": number, "disagreed": disagreed}
        return found

    def find(
        self, cycle: int, time_ns: int, *, bins: int, most: int, budgets: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """By shadow, all that is known of it at a cycle, and how it was in the parts of the whole run.

        time_ns: of the cycle. bins: number of the parts. most: how many of the last disagreements are
        given. budgets: of the shadows that have one, as the graph has it.
        """
        counts = self.counts(cycle)
        return {
            shadow: {
                **counts[shadow],
                **self._parts(it, bins),
                "last": self._last(it, cycle, most),
                "answers": self._places.of(it.topics[1]).before(cycle),
                "errors": self._errors(shadow, cycle),
                "dropped": self._controls.drops(shadow, cycle),
                "budget": self._spent(it, shadow, time_ns, budgets.get(shadow)),
            }
            for shadow, it in self._all.items()
        }

    def _parts(self, it: _Compared, bins: int) -> dict[str, Any]:
        """Where each part begins, and in how many of the frames compared there both disagreed."""
        steps = self._places.of(STEPS_TOPIC)
        begin, end = int(steps.times[0]), int(steps.times[-1]) + 1
        edges = np.array([begin + (end - begin) * at // bins for at in range(bins + 1)], np.uint64)
        times, differs = np.asarray(it.times, np.uint64), np.asarray(it.differs, bool)
        compared, disagreed = (
            np.diff(np.searchsorted(chosen, edges, side="left")).tolist()
            for chosen in (times, times[differs])
        )
        return {
            "at_ns": edges[:-1].tolist(),
            "parts": {"compared": compared, "disagreed": disagreed},
        }

    def _last(self, it: _Compared, cycle: int, most: int) -> list[dict[str, Any]]:
        """The last disagreements at or before a cycle, the newest first."""
        chosen = np.flatnonzero(it.differs[: it.number(cycle)])[-most:] if most else ()
        return [
            {
                "cycle": it.cycles[at],
                "at_ns": it.times[at],
                "frame_cycle": it.frames[at],
                "said": self._text(it.topics[0], it.said[at][0]),
                "shadow_said": self._text(it.topics[1], it.said[at][1]),
            }
            for at in reversed(chosen)
        ]

    def _text(self, topic: str, cycle: int) -> str | None:
        """An answer; None where the log does not hold it whole."""
        try:
            return str(message_of(self._log, topic, cycle).fields.get("response", ""))
        except LogError:
            return None

    def _errors(self, shadow: str, cycle: int) -> dict[str, Any]:
        """How many errors a shadow had raised by a cycle, and the text and the cycle of the last one."""
        happened = self._controls.by.get((Failed.kind, shadow), Happened())
        number = happened.number(cycle)
        if not number:
            return {"count": 0, "text": "", "cycle": None}
        at = happened.cycles[number - 1]
        texts = [
            event.text
            for event in self._controls.events(at)
            if isinstance(event, Failed) and event.task == shadow
        ]
        return {"count": number, "text": texts[-1] if texts else "", "cycle": at}

    def _spent(
        self, it: _Compared, shadow: str, time_ns: int, budget: Any
    ) -> dict[str, Any] | None:
        """What of a budget was spent at a time: `asked` in the hour before, and `took_p99_ms` of the
        last hundred answers; next to what is allowed, `per_hour` and `p99_ms`. None without one."""
        if not isinstance(budget, dict):
            return None
        answers = self._places.of(it.topics[1])
        errors = self._controls.by.get((Failed.kind, shadow), Happened()).at_ns
        hour = np.array([max(0, time_ns - _HOUR_NS), time_ns], np.uint64)
        asked = [
            np.diff(np.searchsorted(at, hour, side="right"))[0] for at in (answers.times, errors)
        ]
        end = int(np.searchsorted(answers.times, hour[1], side="right"))
        took = [
            latency_ms(self._places.payload_at(answers.place(at)))
            for at in range(max(0, end - _WINDOW), end)
        ]
        known = [it for it in took if it is not None]
        return {
            "per_hour": budget.get("per_hour"),
            "asked": int(sum(asked)),
            "p99_ms": budget.get("p99_ms"),
            "took_p99_ms": round(float(np.percentile(known, 99)), 1) if known else None,
        }
