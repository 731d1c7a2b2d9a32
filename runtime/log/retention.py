"""Removes the oldest runs of a graph, so that its logs keep within what the graph file allows.

Runs are counted when they begin, and are removed in that order: the clock of a device that was off, or
that somebody has set, says nothing about which is older.

Runs that hold no cycle go first: a process that ends at once, and is started again and again, must not
cost what was recorded before.

Only files that a run consists of are removed, and only from runs that nobody writes. A run whose
process was killed counts like one that ended in order: a device that is switched off, not stopped,
would otherwise never have its disk tidied.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.directory import make_directory
from flowrun.runtime.log.lock import LOCK_NAME, is_ahead, locked, remove_lock, slab_files
from flowrun.runtime.log.slab import disk
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.format import CYCLE, PARTITION, RUN_NUMBER, STARTED_NS
from flowrun.runtime.log.slab.opening import open_file
from flowrun.runtime.log.slab.reader import SlabReader

__all__ = ["OldRun", "number_run", "remove_old_runs", "tidy"]

_COUNTER = ".last_run"
"""The file of a log directory that holds the number of the run that was begun last."""
_WORTH_FREEING = 1 << 20


@dataclass(frozen=True, slots=True)
class OldRun:
    """A run in a log directory.

    number: which run it is of those that were begun in the directory; 0 if nobody has counted it.
    started_ns: when it began, by the clock that it had then.
    size: bytes of disk that its slabs take.
    partition: the process of a partition whose run it is, "gpu/0"; None for a graph without any.
    problem: why it could not be removed; None if it was, or if that was not tried.
    """

    path: Path
    number: int
    started_ns: int
    size: int
    partition: str | None = None
    problem: str | None = None


def remove_old_runs(
    parent: Path,
    *,
    graph: str,
    graph_path: str,
    runs: int | None,
    size: int | None,
    partition: str | None = None,
    present: Path | None = None,
) -> list[OldRun]:
    """Remove the oldest runs of a graph from `parent`, those without a cycle first; those that were
    chosen, in this order.

    graph, graph_path: its name and its file's absolute path, as its runs' metadata have them; both
        must match. partition: the process of one, "gpu/0"; must match too. runs: how many may stay.
        size: how many bytes of disk those that stay may take.
        present: a run that is passed over.
    Runs that are being written count, and stay. One that cannot be removed is returned with its
    `problem`, and the next is taken instead.
    """
    left = sorted(
        (it for it in _runs_of(parent, graph, graph_path, present) if it.partition == partition),
        key=lambda run: (run.number, run.started_ns, run.path.name),
    )
    if not _fits(len(left), sum(run.size for run in left), runs=runs, size=size):
        left.sort(key=lambda run: _has_cycle(run.path))
    chosen: list[OldRun] = []
    count, total = len(left), sum(run.size for run in left)
    for run in left:
        if _fits(count, total, runs=runs, size=size):
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


def _fits(count: int, total: int, *, runs: int | None, size: int | None) -> bool:
    return (runs is None or count <= runs) and (size is None or total <= size)


def _has_cycle(path: Path) -> bool:
    """Whether a run holds a cycle, or something that cannot be read."""
    with contextlib.suppress(OSError, LogError, Damage):
        return any(map(_slab_has_cycle, slab_files(path)))
    return True


def _slab_has_cycle(path: Path) -> bool:
    slab = SlabReader(path, verify=False)
    try:
        chunks = range(len(slab.structure.chunks))
        return any(it.opcode == CYCLE for index in chunks for it in slab.cycles.heads(index))
    finally:
        slab.close()


def number_run(parent: Path, *, graph: str, graph_path: str, after_all: bool) -> int:
    """A number for a run that begins in `parent`, greater than those of all before.

    after_all: look at the runs of the graph that are there, too; one may have been copied from another
        log directory, with a greater number. They are looked at in any case where nobody has counted
        yet. graph, graph_path: as in `remove_old_runs`.
    `OSError` if the counter cannot be written.
    """
    make_directory(parent)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    counter = os.open(parent / _COUNTER, flags, 0o644)
    try:
        fcntl.flock(counter, fcntl.LOCK_EX)  # for as long as it takes to count
        text = os.pread(counter, 32, 0).decode(errors="replace").strip()
        number = int(text) if text.isdecimal() else 0
        if after_all or not number:
            there = (run.number for run in _runs_of(parent, graph, graph_path, None))
            number = max(number, *there, 0)
        os.pwrite(counter, f"{number + 1:<31}\n".encode(), 0)
        disk.sync_file(counter)
    finally:
        os.close(counter)
    return number + 1


def tidy(parent: Path, *, graph: str) -> None:
    """Remove what killed processes have left of runs of `graph` that hold nothing, and give back what
    they had preallocated after the ends of others, up to the size of a slab each: a device that is
    switched off again and again would fill its disk with it. What is in the files stays as it is."""
    for path in _named(parent, graph):
        with contextlib.suppress(OSError, LogError):
            if _is_litter(path):
                _remove(path)
                continue
            held = [slab for slab in slab_files(path) if _behind_end(slab) > _WORTH_FREEING]
            if not held:
                continue
            with locked(path, create=False) as is_ours:
                for slab in held if is_ours else []:
                    with open_file(slab, os.O_RDWR) as fd:
                        os.ftruncate(fd, os.fstat(fd).st_size)


def _is_litter(path: Path) -> bool:
    """Whether a directory holds nothing of a run but its lock, and slabs without a cycle that were not
    begun: its process was killed while it began the run, or removed it."""
    items = list(path.iterdir())
    if not items:
        return False  # a run may be about to begin
    for item in items:
        if is_ahead(item):
            if _holds_cycle(item):
                return False
        elif item.name != LOCK_NAME:
            return False
    return True


def _holds_cycle(path: Path) -> bool:
    try:
        slab = SlabReader(path, verify=False)
    except LogError:
        return False
    try:
        return bool(slab.structure.chunks) and slab.first(0) is not None
    finally:
        slab.close()


def _behind_end(slab: Path) -> int:
    found = slab.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        return 0
    return _held(found) - found.st_size


def _held(found: os.stat_result) -> int:
    """Bytes of disk that a file takes."""
    return 512 * found.st_blocks


def _runs_of(parent: Path, graph: str, graph_path: str, present: Path | None) -> Iterator[OldRun]:
    for path in _named(parent, graph):
        if path == present:
            continue
        with contextlib.suppress(OSError):  # removed meanwhile, or no directory
            slabs = slab_files(path)
            metadata = _metadata(slabs)
            if metadata.get("graph") == graph and metadata.get("graph_path") == graph_path:
                size = sum(_held(slab.lstat()) for slab in slabs)
                number, started_ns = (_whole(metadata, key) for key in (RUN_NUMBER, STARTED_NS))
                yield OldRun(path, number, started_ns, size, metadata.get(PARTITION))


def _whole(metadata: dict[str, str], key: str) -> int:
    text = metadata.get(key, "")
    return int(text) if text.isdecimal() else 0


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
            slab.unlink(missing_ok=True)
        remove_lock(directory)
        if not any(directory.iterdir()):  # what somebody put there stays
            directory.rmdir()
    return True
