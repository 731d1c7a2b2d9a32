"""A live run whose recording was stopped and begun again: each stretch is a log, shown as one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from flowrun.runtime.errors import LogError, LogNotFound
from flowrun.runtime.recorded.lanes import joined
from flowrun.runtime.recorded.run import RecordedRun

__all__ = ["LiveRun", "Stretches"]


class LiveRun(Protocol):
    """What is asked of a run that goes on, or did."""

    @property
    def directories(self) -> tuple[Path, ...]:
        """Of its stretches, in order."""

    def state(self) -> str | dict[str, str]:
        """`"Running"` while it does."""


class _Held(NamedTuple):
    """A stretch that holds cycles: the first and last one, and their times."""

    run: RecordedRun
    first: int
    last: int
    from_ns: int
    to_ns: int


class Stretches:
    """The stretches of one run, the oldest first.

    goes_on: whether the run does, also while nothing is recorded.
    """

    def __init__(self, runs: Sequence[RecordedRun], goes_on: Callable[[], bool]) -> None:
        self.runs = runs
        self._goes_on = goes_on

    def at(self, cycle: int) -> RecordedRun:
        """The stretch that holds a cycle; the last one for cycles that are not yet there. `LogNotFound`
        for one that was not recorded."""
        held = self._held()
        for before, after in pairwise(held):
            if before.last < cycle < after.first:
                raise LogNotFound(
                    f"cycles {before.last + 1} to {after.first - 1} were not recorded: the recording "
                    "had been stopped"
                )
        if held and cycle > held[-1].last and not self._is_recorded():
            raise LogNotFound(
                f"cycles from {held[-1].last + 1} on were not recorded: the recording was stopped"
            )
        return next((it.run for it in held if cycle <= it.last), self.runs[-1])

    def at_time(self, at_ns: int) -> RecordedRun:
        """The stretch that holds a time; as `at`."""
        held = self._held()
        for before, after in pairwise(held):
            if before.to_ns < at_ns < after.from_ns:
                return self.at(before.last + 1)
        return next((it.run for it in held if at_ns <= it.to_ns), self.runs[-1])

    def moment(self, found: dict[str, Any]) -> dict[str, Any]:
        """A moment of one stretch, with the cycles before and after it in others."""
        held = self._held()
        previous, after = found["previous"], found["next"]
        if previous is None:
            previous = max((it.last for it in held if it.last < found["cycle"]), default=None)
        if after is None:
            after = min((it.first for it in held if it.first > found["cycle"]), default=None)
        ends = {"first_cycle": held[0].first, "last_cycle": held[-1].last}
        return {**found, **ends, "previous": previous, "next": after}

    def lanes(
        self, *, first: int | None, last: int | None, bins: int, keys: bool
    ) -> dict[str, Any]:
        """As `RecordedRun.lanes`; `gaps` are the parts of the run that were not recorded."""
        held = self._held()
        if not held:
            raise LogNotFound("the log holds no cycle")
        chosen = [
            it
            for it in held
            if (first is None or it.last >= first) and (last is None or it.first <= last)
        ]
        if not chosen:
            raise LogNotFound(f"cycles {first} to {last} were not recorded")
        (begin, from_ns), _ = chosen[0].run.span(first, None)
        _, (end, to_ns) = chosen[-1].run.span(None, last)
        counted = [
            (it.run.counted(from_ns=from_ns, to_ns=to_ns, bins=bins, keys=keys), it.last)
            for it in chosen
        ]
        state = held[-1].run.summary()
        is_over = not self._goes_on()
        return {
            "from_cycle": begin,
            "to_cycle": end,
            "from_ns": from_ns,
            "to_ns": to_ns,
            "first_cycle": held[0].first,
            "last_cycle": held[-1].last,
            "start_ns": held[0].from_ns,
            "end_ns": held[-1].to_ns,
            **joined(counted),
            "state": state["state"] if is_over else "running",
            "why": state["why"] if is_over else None,
            "missing": [],
            "gaps": [
                {
                    "from_cycle": before.last + 1,
                    "to_cycle": after.first - 1,
                    "from_ns": before.to_ns,
                    "to_ns": after.from_ns,
                }
                for before, after in pairwise(held)
            ],
        }

    def _held(self) -> list[_Held]:
        found = []
        for run in self.runs:
            try:
                (first, from_ns), (last, to_ns) = run.span(None, None)
            except LogError:  # it holds no cycle, or cannot be read
                continue
            found.append(_Held(run, first, last, from_ns, to_ns))
        return found

    def _is_recorded(self) -> bool:
        """Whether cycles are written now, as far as the last log says."""
        return not self._goes_on() or self.runs[-1].summary()["state"] == "running"
