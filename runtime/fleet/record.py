"""The folder of a fleet: a folder of runs for each process, and a small file that says so.

```text
runs/fleet-20260301T081502Z/
  fleet.json           the graph, and the folder of each process
  camera-0/            the runs of camera/0: a second one where it was started again
    fleet-20260301T081503Z/
```

Folders that were copied from several machines into one are a fleet too: what each run is, its own log
says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrun.runtime.atomic import whole_file
from flowrun.runtime.errors import LogError, LogNotFound
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.log.files import slab_paths
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import PARTITION, STARTED_NS

__all__ = ["FLEET_FILE", "FleetRun", "fleet_runs", "folder_of", "is_fleet", "write_fleet"]

FLEET_FILE = "fleet.json"


@dataclass(frozen=True, slots=True)
class FleetRun:
    """One run of one process.

    number: when it began, nanoseconds since 1970 UTC: what the messages that it sent say of it.
    """

    part: PartId
    number: int
    path: Path

    def __str__(self) -> str:
        return f"{self.part} ({self.path.name})"


def folder_of(fleet: Path, part: PartId) -> Path:
    """Where the runs of a process go."""
    return fleet / f"{part.partition}-{part.instance}"


def write_fleet(fleet: Path, graph: GraphSpec) -> None:
    """Write the file that says what belongs together."""
    said: dict[str, Any] = {
        "graph": graph.name,
        "graph_path": str(graph.path.absolute()),
        "parts": {
            str(part): folder_of(fleet, part).name
            for partition in graph.partitions
            for part in partition.parts
        },
    }
    with whole_file(fleet / FLEET_FILE) as file:
        file.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def is_fleet(path: Path) -> bool:
    """Whether `path` is the folder of a fleet: it says so, or what is in it are runs of processes."""
    if (path / FLEET_FILE).is_file():
        return True
    return path.is_dir() and not _is_run(path) and any(_parts_below(path))


def fleet_runs(
    fleet: Path, *, unreadable: Callable[[LogError], None] | None = None
) -> list[FleetRun]:
    """All runs in the folder of a fleet, in the order in which they began. `LogNotFound` if there is
    none, `LogError` for one that cannot be read, or is there twice.

    unreadable: called with the error of one that cannot be read, which is then left out.
    """
    found: list[FleetRun] = []
    errors: list[LogError] = []
    known: dict[tuple[PartId, int], Path] = {}

    def leave_out(error: LogError) -> None:
        if unreadable is None:
            raise error
        unreadable(error)
        errors.append(error)

    for path in _run_folders(fleet, leave_out):
        try:
            with Log(path, verify=False) as log:
                said, began = log.metadata.get(PARTITION), log.metadata.get(STARTED_NS, "")
        except LogError as error:
            leave_out(error)
            continue
        if said is None or not began.isdecimal():
            continue  # a run of a graph without partitions, or what a replay made
        partition, _, instance = said.partition("/")
        part, number = PartId(partition, instance), int(began)
        if (other := known.setdefault((part, number), path)) is not path:
            raise LogError(f"{other} and {path} are the same run of {part}: remove one of them")
        found.append(FleetRun(part, number, path))
    if not found and errors:
        raise errors[0]
    if not found:
        raise LogNotFound(f"{fleet}: there are no runs of partitions in it")
    return sorted(found, key=lambda it: (it.number, it.part))


def _parts_below(folder: Path) -> Iterable[str]:
    for path in _run_folders(folder, lambda _error: None):
        try:
            with Log(path, verify=False) as log:
                if PARTITION in log.metadata:
                    yield log.metadata[PARTITION]
        except LogError:
            continue


def _run_folders(folder: Path, unreadable: Callable[[LogError], None]) -> Iterable[Path]:
    """Runs in the folder and in its folders; not those in runs, such as what-ifs.

    unreadable: called with the error of a folder that cannot be listed.
    """
    for path in _folders(folder, unreadable):
        if path.name.startswith("."):
            continue
        if _is_run(path):
            yield path
        else:
            yield from filter(_is_run, _folders(path, unreadable))


def _folders(folder: Path, unreadable: Callable[[LogError], None]) -> list[Path]:
    try:
        return sorted(it for it in folder.iterdir() if it.is_dir())
    except FileNotFoundError:
        return []  # somebody removes the fleet
    except OSError as error:
        unreadable(LogError(f"{folder}: cannot be read: {error.strerror}"))
        return []


def _is_run(path: Path) -> bool:
    """Whether it is one, or may be: opening one that cannot be read says why."""
    try:
        return bool(slab_paths(path))
    except LogNotFound:
        return False
    except LogError:
        return True
