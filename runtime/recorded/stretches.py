"""A run whose recording was stopped and begun again: each stretch is a log, shown as one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from flowrun.runtime.errors import LogError, LogNotFound
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.lanes import joined
from flowrun.runtime.recorded.run import RecordedRun

__all__ = ["Chains", "LiveRun", "Stretches", "whole"]


class LiveRun(Protocol):
    """What is asked of a run that goes on, or did."""

    @property
    def directories(self) -> tuple[Path, ...]:
        """Of its stretches, in order."""

    def state(self) -> str | dict[str, str]:
        """`"Running"` while it does."""


class Chains:
    """Which runs of a folder are the stretches of one run: each log names the one that it continues."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen_ns = -1
        self._unread: set[str] = set()
        self._before: dict[str, str | None] = {}
        """By run, the one that it continues."""

    def of(self, name: str) -> tuple[Path, ...]:
        """The stretches of the run that `name` is one of, the oldest first: that one alone where there
        are no others."""
        self._update()
        names = [name]
        while (before := self._before.get(names[0])) in self._before and before not in names:
            assert before is not None
            names.insert(0, before)
        after = {of: name for name, of in self._before.items() if of is not None}
        while (following := after.get(names[-1])) is not None and following not in names:
            names.append(following)
        return tuple(self.folder / it for it in names)

    def _update(self) -> None:
        try:
            now_ns = self.folder.stat().st_mtime_ns
            if now_ns != self._seen_ns:
                names = {it.name for it in self.folder.iterdir() if it.is_dir()}
                self._before = {
                    name: before for name, before in self._before.items() if name in names
                }
                self._unread = names - self._before.keys()
                self._seen_ns = now_ns
        except OSError:
            return
        for name in list(self._unread):
            try:
                with Log(self.folder / name, verify=False) as log:
                    self._before[name] = log.metadata.get("continues")
            except LogError:  # it has none yet, or is something else
                continue
            self._unread.discard(name)


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

    def details(self) -> dict[str, Any]:
        """As `RecordedRun.details`, of the whole run."""
        found = [it.details() for it in self.runs]
        held = [it for it in found if it["first_cycle"] is not None] or found
        outputs: dict[str, dict[str, Any]] = {}
        for output in (it for of_run in found for it in of_run["outputs"]):
            known = outputs.setdefault(output["topic"], {**output, "messages": 0})
            known["messages"] += output["messages"]
        return {
            **found[-1],
            **whole(found),
            "path": found[0]["path"],
            "bytes": sum(it["bytes"] for it in found),
            "first_cycle": held[0]["first_cycle"],
            "last_cycle": held[-1]["last_cycle"],
            "from_ns": held[0]["from_ns"],
            "to_ns": held[-1]["to_ns"],
            "images": list(dict.fromkeys(name for it in found for name in it["images"])),
            "outputs": list(outputs.values()),
        }

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
            "missing": [
                text
                for number, it in enumerate(held)
                for text in it.run.missing(is_first=not number)
            ],
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


def whole(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The summary of a run, from those of its stretches; `stretches` are their ids."""
    first, last = found[0], found[-1]
    return {
        "id": first["id"],
        "graph": first["graph"],
        "started_ns": first["started_ns"],
        "ended_ns": last["ended_ns"],
        "state": last["state"],
        "cycles": sum(it["cycles"] for it in found),
        "why": last["why"],
        "stretches": [it["id"] for it in found],
    }
