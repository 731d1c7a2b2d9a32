"""Removes the oldest runs of a graph, so that its logs keep within what the graph file allows.

Only files that a run consists of are removed, and only from runs that nobody writes. A run whose
process was killed counts like one that ended in order: a device that is switched off, not stopped,
would otherwise never have its disk tidied.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.lock import locked, remove_lock, slab_files
from flowrun.runtime.log.slab.reader import SlabReader

__all__ = ["OldRun", "free_preallocated", "remove_old_runs"]

_WORTH_FREEING = 1 << 20


@dataclass(frozen=True, slots=True)
class OldRun:
    """A run in a log directory.

    size: bytes of disk that its slabs take.
    problem: why it could not be removed; None if it was, or if that was not tried.
    """

    path: Path
    started_ns: int
    size: int
    problem: str | None = None


def remove_old_runs(
    parent: Path,
    *,
    graph: str,
    graph_path: str,
    runs: int | None,
    size: int | None,
    present: Path | None = None,
) -> list[OldRun]:
    """Remove the oldest runs of a graph from `parent`; those that were chosen, oldest first.

    graph, graph_path: its name and its file's absolute path, as its runs' metadata have them; both
        must match. runs: how many may stay. size: how many bytes of disk those that stay may take.
        present: a run that is passed over.
    Runs that are being written count, and stay. One that cannot be removed is returned with its
    `problem`, and the next is taken instead.
    """
    left = sorted(
        _runs_of(parent, graph, graph_path, present),
        key=lambda run: (run.started_ns, run.path.name),
    )
    chosen: list[OldRun] = []
    count, total = len(left), sum(run.size for run in left)
    for run in left:
        if (runs is None or count <= runs) and (size is None or total <= size):
            break
        try:
            if not _remove(run.path):
                continue
        except OSError as error:
            chosen.append(replace(run, problem=error.strerror))
            continue
        chosen.append(run)
        count, total = count - 1, total - run.size
    return chosen


def free_preallocated(parent: Path, *, graph: str) -> None:
    """Give back what killed runs of `graph` had preallocated after their ends, up to the size of a
    slab each: a device that is switched off again and again would fill its disk with it. What
    is in the files stays as it is."""
    for path in _named(parent, graph):
        with contextlib.suppress(OSError):
            held = [slab for slab in slab_files(path) if _behind_end(slab) > _WORTH_FREEING]
            if not held:
                continue
            with locked(path, create=False) as is_ours:
                for slab in held if is_ours else []:
                    os.truncate(slab, slab.stat().st_size)


def _behind_end(slab: Path) -> int:
    found = slab.stat()
    return 512 * found.st_blocks - found.st_size


def _runs_of(parent: Path, graph: str, graph_path: str, present: Path | None) -> Iterator[OldRun]:
    for path in _named(parent, graph):
        if path == present:
            continue
        with contextlib.suppress(OSError):  # removed meanwhile, or no directory
            slabs = slab_files(path)
            metadata = _metadata(slabs)
            if metadata.get("graph") == graph and metadata.get("graph_path") == graph_path:
                started = metadata.get("started_ns", "")
                size = sum(512 * slab.stat().st_blocks for slab in slabs)
                yield OldRun(path, int(started) if started.isdecimal() else 0, size)


def _named(parent: Path, graph: str) -> list[Path]:
    """What is named like a run of `graph`: not every directory there need be opened."""
    with contextlib.suppress(OSError):  # what it means for the run, its own directory will show
        items = [path for path in parent.iterdir() if path.name.startswith(f"{graph}-")]
        return [path for path in items if not path.is_symlink()]
    return []


def _metadata(slabs: list[Path]) -> dict[str, str]:
    """The metadata of the first slab that can be read; empty where none can."""
    for path in slabs:
        try:
            slab = SlabReader(path, verify=False)
        except LogError:
            continue
        slab.close()
        return slab.preamble.metadata
    return {}


def _remove(directory: Path) -> bool:
    """False where the run is being written. From its end on: what an interruption leaves can be
    read, and is known for what it is."""
    with locked(directory, create=False) as is_ours:
        if not is_ours:
            return False
        for slab in reversed(slab_files(directory)):
            slab.unlink()
        remove_lock(directory)
        if not any(directory.iterdir()):  # what somebody put there stays
            directory.rmdir()
    return True
