"""Golden runs: recorded runs that were right, replayed with the code and the graphs of now."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal

from flowrun.runtime.errors import LogError
from flowrun.runtime.graph.find import importable
from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.labels import Label, labels_of
from flowrun.runtime.replay.compare import Difference
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.testbench.pairs import Pair
from flowrun.runtime.testbench.replays import Job, Replayed, replay_of, replay_runs
from flowrun.runtime.wording import counted, not_given_back

__all__ = ["GoldenRun", "Verdict", "accept", "golden_runs", "put_back", "verdicts"]

_ASIDE = ".accepted"
"""Ends the name of the hidden folder next to a run in which what is accepted is made."""
_BEFORE = "before"
"""In that folder, the run as it was."""


@dataclass(frozen=True, slots=True)
class GoldenRun:
    """A recorded run that was right.

    name: what it is called, with as much of its path as tells it from the others.
    path: its directory.
    graph: the graph file that it is replayed with; None for the graph that its log holds.
    """

    name: str
    path: Path
    graph: Path | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a golden run.

    labels: what somebody said of its answers.
    """

    run: GoldenRun
    replayed: Replayed
    labels: Sequence[Label] = ()

    @property
    def state(self) -> Literal["identical", "mended", "differs", "failed"]:
        """mended: what differs is what labels say is right. failed: it could not be replayed, see
        `Replayed.error`."""
        report = self.replayed.report
        if self.replayed.error is not None or report is None:
            return "failed"
        if self.differing or report.missing:
            return "differs"
        return "mended" if report.differing else "identical"

    @property
    def is_fine(self) -> bool:
        """Whether nothing is worse than it was."""
        return self.state in ("identical", "mended")

    @property
    def mended(self) -> list[Pair]:
        """Messages that labels say were wrong, and that are now as the labels say is right."""
        labels = {(it.cycle, it.task): it for it in self.labels}
        return [
            pair
            for pair in self.replayed.pairs
            if pair.difference is not None
            for label in [
                labels.get((pair.cycle, f"{pair.task}.{pair.port}"))
                or labels.get((pair.cycle, pair.task))
            ]
            if label is not None and _is_right(pair, label)
        ]

    @property
    def compared(self) -> int:
        """Number of messages that were made again and compared."""
        return 0 if self.replayed.report is None else self.replayed.report.compared

    @property
    def differing(self) -> int:
        """Number of those that are not as they were recorded, without those that are `mended`."""
        report = self.replayed.report
        return 0 if report is None else report.differing - len(self.mended)

    @property
    def changes(self) -> list[tuple[Difference, int]]:
        """The first of all differences that are the same change at the same output, and how many there
        are of it; in the order in which they came first. Without those that are `mended`."""
        mended = {(it.cycle, it.task, it.port) for it in self.mended}
        found: dict[tuple[str, ...], tuple[Difference, int]] = {}
        for pair in self.replayed.pairs:
            it = pair.difference
            if it is not None and (it.cycle, it.task, it.port) not in mended:
                key = it.task, it.port, it.field, it.recorded, it.replayed
                first, count = found.get(key, (it, 0))
                found[key] = first, count + 1
        return list(found.values())

    @property
    def summary(self) -> str:
        """In a few words, what came of it."""
        report = self.replayed.report
        if self.state == "failed" or report is None:
            return (self.replayed.error or "").partition("\n")[0]
        if not self.compared and not report.errors:
            return "no message was made again: there is nothing to compare"
        found = f"{counted(self.compared, 'message')} identical"
        if self.differing:
            found = f"{self.differing:,} of {self.compared:,} messages differ"
        elif report.differing:
            found = f"{counted(self.compared - report.differing, 'message')} identical"
        if self.mended:
            found += f", {len(self.mended):,} more are now as labels say is right"
        if report.missing:
            found += f", {not_given_back(report.missing)}"
        return found


def golden_runs(
    paths: Sequence[Path], *, folder: Path | None, graph: Path | None
) -> list[GoldenRun]:
    """The golden runs in `paths`, as `find_runs` finds them, with the graph that each is replayed with.

    folder: where the graph files of now are. Each run gets the file at the place below it where its own
        graph was when it was recorded: of one from /home/ann/yard/graphs/gate.yaml, that is
        graphs/gate.yaml or gate.yaml. Without such a file, and for None, it gets the graph that its log
        holds.
    graph: the file for all of them; None for each its own.
    """
    names = _names(paths)
    return [
        GoldenRun(name, path, graph or _graph_of_now(path, folder))
        for name, path in zip(names, paths, strict=True)
    ]


def verdicts(
    runs: Sequence[GoldenRun],
    common: Job,
    *,
    processes: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Verdict]:
    """Replay golden runs; yields what came of each when it is done, not in their order.

    common: how all of them are replayed; its run and graph do not count.
    processes, progress: as `replay_runs` has them.
    """
    by_path = {run.path: run for run in runs}
    jobs = [replace(common, run=run.path, graph=run.graph) for run in runs]
    for replayed in replay_runs(jobs, processes=processes, progress=progress):
        run = by_path[replayed.job.run]
        try:
            labels, problems = labels_of(run.path, run.path.name)
        except LogError as error:
            labels, problems = [], [str(error)]
        replayed.notes.extend(f"left out: {problem}" for problem in problems)
        yield Verdict(run, replayed, labels)


def _is_right(pair: Pair, label: Label) -> bool:
    """Whether what is made now is what a label says is right."""
    now = pair.now or {}
    if label.expected == "":
        return False
    if label.field:
        return bool(now.get(label.field) == label.expected)
    if isinstance(label.expected, dict):
        return all(now.get(name) == value for name, value in label.expected.items())
    made = now.get("response", now.get("value"))
    expected = label.expected  # 3 may have been typed for the answer "3"
    return bool(made == expected or (isinstance(made, str) and made == str(expected)))


def accept(run: GoldenRun, common: Job, *, now_ns: int) -> None:
    """Have what is made now be what was recorded: the run's directory then holds the slabs that a replay
    writes; its labels, clips and whatever else is in it stay. If this is cut off, `put_back` gives the
    directory as it was.

    common: as `verdicts` has it.
    now_ns: the time, in nanoseconds since 1970 UTC, for the new run's metadata.

    Raises what `Replay` and `ReplayLog` raise; `LogError` for a run that is a single file, and where
    the folder cannot be written.
    """
    if not run.path.is_dir():
        raise LogError(f"{run.path}: only a run that is a directory can be recorded again")
    path = run.path.resolve()  # what a link leads to
    aside = path.with_name(f".{path.name}{_ASIDE}")
    new = aside / path.name  # a run is called as its directory
    job = replace(common, run=run.path, graph=run.graph)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        with Log(path) as log:
            replay = replay_of(job, log)
            with (
                importable(replay.plan.graph.spec.path.parent),
                ReplayLog(replay, new, config=job.config, now_ns=now_ns) as recorder,
            ):
                replay.run(recorder=recorder)
        slabs = {it.name for it in slab_paths(path)}
        for kept in path.iterdir():
            if kept.name not in slabs and not (new / kept.name).exists():
                copy = shutil.copytree if kept.is_dir() else shutil.copy2
                copy(kept, new / kept.name)
        path.rename(aside / _BEFORE)
        new.rename(path)
        shutil.rmtree(aside)
    except OSError as error:
        raise LogError(f"{path}: cannot be recorded again: {error.strerror or error}") from error


def put_back(folders: Iterable[Path]) -> list[Path]:
    """Put back the runs in `folders`, or below, that an `accept` was moving when it was killed, so that
    none is left out of the golden runs. Which ones these are."""
    found = []
    for folder in folders:
        for before in sorted(folder.glob(f"**/.*{_ASIDE}/{_BEFORE}")):
            name = before.parent.name.removeprefix(".").removesuffix(_ASIDE)
            path = before.parent.with_name(name)
            if not path.exists():
                before.rename(path)
                found.append(path)
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many more as no two have in common."""
    absolute = [path.absolute() for path in paths]
    names = []
    for path in absolute:
        count = 1
        while sum(it.parts[-count:] == path.parts[-count:] for it in absolute) > 1:
            count += 1
        names.append("/".join(path.parts[-count:]))
    return names


def _graph_of_now(run: Path, folder: Path | None) -> Path | None:
    if folder is None:
        return None
    try:
        with Log(run, verify=False) as log:
            recorded = PurePath(log.metadata.get("graph_path", ""))
    except LogError:  # its replay says why
        return None
    parts = [part for part in recorded.parts if part not in (recorded.anchor, "..", ".")]
    for first in range(len(parts)):
        found = folder.joinpath(*parts[first:])
        if found.is_file():
            return found
    return None
