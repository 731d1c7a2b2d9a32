"""The runs that are shown, by id: one run, or those in a folder, and the what-ifs of each."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import LogError, LogInUse, LogNotFound, UsageError
from flowrun.runtime.log.lock import slab_files
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.damage import without_folder
from flowrun.runtime.recorded.fleet import fleet
from flowrun.runtime.recorded.run import RecordedRun, is_run, number_in, summary, unreadable
from flowrun.runtime.recorded.stretches import Chains, LiveRun, Stretches, whole
from flowrun.runtime.recorded.what_if import WHAT_IF, Asked, WhatIf, changes, check_values
from flowrun.runtime.wording import described

__all__ = ["CURRENT", "RecordedRuns"]

CURRENT = "current"
"""Another name of the first run: of the one that is live."""
_OF = "~"
"""Between the id of a run and that of a what-if of it, which is a run, too."""
_MOST_LISTED = 500
_MOST_BESIDES = 30
"""Other runs that are listed with a live one, whose process should do little else."""
_MOST_OPEN = 64
_FLEETS_IN = 2
"""Levels of folders below one of runs: of a fleet, and of each of its processes."""
_MOST_AT_ONCE = 2
"""What-ifs that run at the same time."""


class RecordedRuns:
    """Runs by id, from any thread.

    path: of a run: its directory, or one slab.
    folder: a folder whose directories are runs, too, also those that come later.
    live: a run that goes on: `CURRENT` is all that was recorded of it. The others in its folder are
        runs, too, of which the newest are listed.

    A run whose recording was stopped and begun again is one: its id is that of its first stretch. The id
    of another stretch means the same run, but where nothing says at which cycle or time: that stretch.
    """

    def __init__(
        self, path: Path | None = None, *, folder: Path | None = None, live: LiveRun | None = None
    ) -> None:
        self._path_of_one = path
        self._given_folder = folder
        self._live = live
        self._chains: Chains | None = None
        self._lock = threading.Lock()
        self._runs: dict[str, RecordedRun] = {}
        self._listed: dict[str, tuple[Any, dict[str, Any]]] = {}
        """Summaries of runs that have ended, and what their files were then."""
        self._what_ifs: dict[str, dict[str, WhatIf]] = {}

    @classmethod
    def at(cls, path: Path) -> RecordedRuns:
        """The run at `path`, or the runs in that folder. `LogError` where there is none."""
        if path.is_dir() and not is_run(path) and next(_runs_below(path), None) is not None:
            return cls(folder=path)
        with Log(path, verify=False):
            return cls(path)

    def close(self) -> None:
        """End what-ifs, without waiting for their ends, and give all files back."""
        with self._lock:
            runs = list(self._runs.values())
            asked = [it for of_run in self._what_ifs.values() for it in of_run.values()]
        for what_if in asked:
            if what_if.is_running:
                threading.Thread(target=what_if.stop, name="flowrun-what-if", daemon=True).start()
        for run in runs:
            run.close()

    def summaries(self) -> list[dict[str, Any]]:
        """The summaries of all runs, the newest first; at most 500."""
        found, chained = [], set[Path]()
        for id_, path in self._all().items():
            chain = self._chain(id_)
            if len(chain) < 2:
                found.append(self._summary(id_, path))
            elif chain[0] not in chained:
                found.append(whole([self._summary(_name(it), it) for it in chain]))
                chained.add(chain[0])
        found.sort(key=lambda it: (it["started_ns"] or 0, it["id"]), reverse=True)
        return found[:_MOST_LISTED]

    def told(self, error: Exception) -> str:
        """The text of an error for those who ask: with files by their names in the folder of the runs,
        which is on the server's machine."""
        path, folder = self._path_of_one, self._folder
        text = str(error)
        for it in (folder, None if path is None else path.parent):
            text = text if it is None else without_folder(text, it)
        return text

    def stretches(self, id_: str) -> Stretches | None:
        """All that was recorded of a run, if it was more than once."""
        chain = self._chain(id_)
        if len(chain) < 2:
            return None
        live = self._live
        runs = [self._run(_name(path)) for path in chain]
        if live is not None and chain == live.directories:
            return Stretches(runs, lambda: live.state() == "Running")
        return Stretches(runs, lambda: runs[-1].summary()["state"] == "running")

    def fleet(self, id_: str, *, bins: int) -> dict[str, Any] | None:
        """All runs of the fleet that a run is of, as `fleet` gives it; None where it is of none, or the
        others are not looked at: a live run shows its fleet itself."""
        path, folder = self._path(id_), self._folder
        if path is None or folder is None or self._live is not None:
            return None
        graph = self._summary(id_, path)["graph"]
        found: dict[str, str] = {}
        for of_fleet in (path.parent, path.parent.parent):
            # As `flowrun up` lays it out, and as one copies it from several machines.
            if of_fleet != folder and folder not in of_fleet.parents:
                continue
            parts = {}
            for name, it in self._all().items():
                if of_fleet in (it.parent, it.parent.parent):
                    said = self._summary(name, it)
                    if said["part"] is not None and said["graph"] == graph:
                        parts[name] = said["part"]
            found = max(found, parts, key=len)
        if id_ not in found or len(set(found.values())) < 2:
            return None
        return fleet([self._run(it) for it in found], bins=bins)

    def _chain(self, id_: str) -> tuple[Path, ...]:
        """The stretches of a run; none, or it alone, where there is one."""
        live = () if self._live is None else self._live.directories
        if id_ == CURRENT or id_ in map(_name, live):
            return live
        return () if self._path(id_) is None else self._chained(id_)

    def _chained(self, name: str) -> tuple[Path, ...]:
        """The run in the folder of all, or of the one, and those that continue it or are continued."""
        one = self._path_of_one
        folder = one.absolute().parent if one is not None and one.is_dir() else self._folder
        if folder is None:
            return ()
        if self._chains is None or self._chains.folder != folder:
            self._chains = Chains(folder)
        return self._chains.of(name)

    def get(self, id_: str, *, cycle: int | None = None, at_ns: int | None = None) -> RecordedRun:
        """The run of that id; of several stretches that which holds a cycle or a time.
        `LogNotFound` names those that there are, or says that it was not recorded."""
        stretches = None if cycle is None and at_ns is None else self.stretches(id_)
        if stretches is not None and cycle is not None:
            return stretches.at(cycle)
        if stretches is not None and at_ns is not None:
            return stretches.at_time(at_ns)
        return self._run(id_)

    def _run(self, id_: str) -> RecordedRun:
        name, of, number = id_, "", ""
        path = self._path(name)
        if path is None and _OF in id_:
            name, of, number = id_.rpartition(_OF)
            path = self._path(name)
        if path is None and name == CURRENT and self._paths:
            name, path = list(self._paths.items())[-1]
        if path is not None and of:
            what_if = self._what_ifs_of(name).get(number)
            path = None if what_if is None else what_if.run
        if path is None:
            paths = self._all()
            known = ", ".join(itertools.islice(paths, 5)) or "none"
            raise LogNotFound(
                f"no run {described(id_)}; runs: {known}" + (" ..." * (len(paths) > 5))
            )
        with self._lock:
            run = self._runs.pop(name + of + number, None)
            if run is None or run.path != path:
                run = RecordedRun(name + of + number, path)
            self._runs[run.id] = run  # the one that was used last is the last
            spare = list(self._runs.values())[:-_MOST_OPEN]
            for other in spare:
                del self._runs[other.id]
        for other in spare:
            other.close()
        return run

    # -- what-ifs ------------------------------------------------------------------------------

    def ask(self, id_: str, values: dict[str, Any], first: int, last: int) -> dict[str, Any]:
        """Replay cycles of a run with other values: the `id` of the what-if, and the `run` that it is.

        `UsageError` for values that are not taken; `LogInUse` while two others run.
        """
        run = self.get(id_, cycle=first)
        if self._path(run.id) is None:
            raise UsageError(
                f"{run.id} is a what-if itself; ask its run {run.id.rpartition(_OF)[0]}"
            )
        graph = run.graph()
        tasks = check_values(values, graph)
        (begin, _), (end, _) = run.span(None, None)
        if not begin <= first <= last <= end:
            raise UsageError(
                f"from_cycle {first} and to_cycle {last}: the log holds cycles {begin} to {end}"
            )
        with self._lock:
            others = [it for of_run in self._what_ifs.values() for it in of_run.values()]
        if sum(it.is_running for it in others) >= _MOST_AT_ONCE:
            raise LogInUse(
                f"{_MOST_AT_ONCE} what-ifs run already; wait for the end of one, or cancel it"
            )
        made = WhatIf.start(run.path, run.directory / WHAT_IF, Asked(values, first, last), tasks)
        self._what_ifs_of(run.id)[made.id] = made
        return {"id": made.id, "run": f"{run.id}{_OF}{made.id}"}

    def what_ifs(self, id_: str) -> list[dict[str, Any]]:
        """The progress of all what-ifs of a run, the newest last, and the `run` that each is."""
        stretches = self.stretches(id_)
        runs = [self.get(id_)] if stretches is None else stretches.runs
        return [
            {**what_if.progress(), "run": f"{run.id}{_OF}{what_if.id}"}
            for run in runs
            for what_if in sorted(self._what_ifs_of(run.id).values(), key=lambda it: int(it.id))
        ]

    def what_if(self, id_: str, number: str) -> dict[str, Any]:
        """The progress of one, and what it has changed so far; `LogNotFound` if there is none."""
        run = self.get(id_)
        what_if = self._what_if(run, number)
        state = {**what_if.progress(), "run": f"{run.id}{_OF}{number}"}
        tasks = check_values(what_if.asked.values, run.graph())
        try:
            with Log(run.path) as recorded, Log(what_if.run) as replayed:
                return state | changes(recorded, replayed, tasks)
        except LogError:  # it has written nothing yet
            return state | {"compared": 0, "differing": 0, "differs": []}

    def cancel(self, id_: str, number: str) -> dict[str, Any]:
        """End a what-if, if it runs, and wait for that; its progress. What it has written stays."""
        what_if = self._what_if(self.get(id_), number)
        what_if.cancel()
        return what_if.progress()

    def _what_if(self, run: RecordedRun, number: str) -> WhatIf:
        found = self._what_ifs_of(run.id)
        if number not in found:
            known = ", ".join(found) or "none"
            raise LogNotFound(
                f"no what-if {described(number)} of run {run.id!r}; there are: {known}"
            )
        return found[number]

    def _what_ifs_of(self, name: str) -> dict[str, WhatIf]:
        if name not in self._what_ifs:
            path = self._path(name)
            assert path is not None  # as `get` has found it
            parent = (path if path.is_dir() else path.parent) / WHAT_IF
            found = {}
            for directory in _directories(parent):
                what_if = WhatIf.found(directory) if directory.name.isdecimal() else None
                if what_if is not None:
                    found[what_if.id] = what_if
            with self._lock:
                self._what_ifs.setdefault(name, found)
        return self._what_ifs[name]

    # -- inside --------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path | None:
        if self._given_folder is None and self._live is not None and self._live.directories:
            return self._live.directories[0].parent
        return self._given_folder

    @property
    def _paths(self) -> dict[str, Path]:
        paths = () if self._live is None else self._live.directories
        one: tuple[Path, ...] = () if self._path_of_one is None else (self._path_of_one,)
        if one and one[0].is_dir():
            one = self._chained(_name(one[0]))
        return {_name(path): path for path in (*one, *paths)}

    def _path(self, name: str) -> Path | None:
        """Where the run of that name is; None if there is none. Does not read a folder of many runs."""
        paths = self._paths
        if name in paths or self._folder is None or name in {"", ".", ".."} or "/" in name:
            return paths.get(name)
        path = self._folder / name
        try:
            if not path.is_symlink() and path.is_dir() and is_run(path):
                return path
        except (OSError, ValueError):  # no name of a file
            return None
        of_fleets = () if self._live is not None else _runs_of_fleets(self._folder, _FLEETS_IN)
        return next((it for it in of_fleets if it.name == name), None)

    def _all(self) -> dict[str, Path]:
        found = dict(self._paths)
        if self._folder is not None:
            directories = _directories(self._folder)
            if self._live is None:
                directories += _runs_of_fleets(self._folder, _FLEETS_IN)
            else:
                directories = heapq.nlargest(_MOST_BESIDES, directories, key=_changed)
            found |= {path.name: path for path in directories if is_run(path)}
        return found

    def _summary(self, id_: str, path: Path) -> dict[str, Any]:
        with self._lock:
            opened = self._runs.get(id_)
        if opened is not None:
            return opened.summary()
        files = _stamp(path)
        known = self._listed.get(id_)
        if known is not None and known[0] == files:
            return known[1]
        try:
            with Log(path, verify=False) as log:
                # Where it continues another log, its end counts what came before it, too.
                end = {} if "continues" in log.metadata else log.end or {}
                cycles = number_in(end.get("cycles"))
                found = summary(id_, log, cycles=len(log) if cycles is None else cycles)
                is_over = log.finished
        except LogError as error:
            return unreadable(id_, error, path)
        if is_over:
            self._listed[id_] = files, found
        return found


def _name(path: Path) -> str:
    path = path.absolute()
    return path.name if path.is_dir() else f"{path.parent.name}.{path.stem}"


def _runs_below(folder: Path) -> Iterator[Path]:
    yield from (it for it in _directories(folder) if is_run(it))
    yield from _runs_of_fleets(folder, _FLEETS_IN)


def _runs_of_fleets(folder: Path, levels: int) -> Iterator[Path]:
    """The runs in folders of a folder: those of the processes of a fleet, and of fleets."""
    for below in _directories(folder) if levels else ():
        if not below.name.startswith(".") and not is_run(below):
            yield from (it for it in _directories(below) if is_run(it))
            yield from _runs_of_fleets(below, levels - 1)


def _directories(folder: Path) -> list[Path]:
    try:
        return sorted(it for it in folder.iterdir() if it.is_dir() and not it.is_symlink())
    except OSError:
        return []


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it has just been removed
        return 0.0


def _stamp(path: Path) -> Any:
    try:
        files = slab_files(path) if path.is_dir() else [path]
        return [(it.name, it.stat().st_size, it.stat().st_mtime_ns) for it in files]
    except OSError:
        return None
