"""Finishes a run that its writer could not finish: keeps every good cycle, cuts off what follows.

A recovery that is interrupted is simply run again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flowrun.runtime.errors import LogDamaged, LogError, LogInUse, unwritable
from flowrun.runtime.log.lock import begun_path, is_ahead, locked, slab_files
from flowrun.runtime.log.mend import PART, SlabReport, mend_slab
from flowrun.runtime.log.reader import slab_paths
from flowrun.runtime.log.slab import disk
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.disk import write_all
from flowrun.runtime.log.slab.opening import open_file
from flowrun.runtime.log.slab.reader import SlabReader
from flowrun.runtime.log.slab.records import TRAILER

__all__ = ["RecoveryReport", "SlabReport", "recover"]


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What became of each slab of a run, in order."""

    slabs: tuple[SlabReport, ...]

    @property
    def cycles(self) -> int:
        """Cycles in the recovered slabs."""
        return sum(slab.cycles for slab in self.slabs if slab.recovered)

    @property
    def lost(self) -> str | None:
        """What was lost, slab by slab; None: nothing that had been committed."""
        return "; ".join(f"{slab.path}: {slab.lost}" for slab in self.slabs if slab.lost) or None

    def __str__(self) -> str:
        return "\n".join(map(str, self.slabs))


def recover(path: str | Path, *, progress: Callable[[float], None] | None = None) -> RecoveryReport:
    """Finish every unfinished slab of the run at `path`, a run directory or one slab.

    Each gets its index and summary, the last one also how the run ended: reason "recovered".
    Finished slabs are not touched; one that was made ahead and never begun is removed. Raises
    `LogError` while a writer holds the run, if nothing can be read, or if the files cannot be
    changed. progress: called with the part that is done, from 0 to 1. Interrupted at any moment it
    leaves a log that can be read, and recovered again.
    """
    path = Path(path)
    directory = path if path.is_dir() else path.parent
    _check_own([path] if path.is_symlink() and not path.is_dir() else [])
    if not _made_ahead(path):
        slab_paths(path)  # raises if there is nothing to recover
    with _locked(directory):
        _check_own(slab_files(path) if path.is_dir() else [path])
        _mend_names(path)
        paths = slab_paths(path)
        reports = []
        cycles = 0
        for number, slab_path in enumerate(paths):
            show = _shown(progress, number / len(paths), (number + 1) / len(paths))
            show(0)
            try:
                _mend_magic(slab_path)
                slab = SlabReader(slab_path)
            except LogError as error:
                reports.append(SlabReport(slab_path, recovered=False, lost=str(error)))
                continue
            try:
                last = slab_path == paths[-1]
                structure = slab.structure
                if structure.finished and (structure.end is not None or not last):
                    report = _finished(slab)
                else:
                    report = mend_slab(slab, cycles if last else None, show)
            except OSError as error:
                raise unwritable(
                    f"{slab_path}: cannot be recovered: {error.strerror}; free some space or make "
                    "it writable, and recover again",
                    error,
                ) from error
            finally:
                slab.close()
            cycles += report.cycles
            reports.append(report)
        _sync_names(directory)
        if not any(report.recovered or report.cycles or not report.lost for report in reports):
            raise LogDamaged(str(reports[0].lost))
        return RecoveryReport(tuple(reports))


def _shown(
    progress: Callable[[float], None] | None, start: float, end: float
) -> Callable[[float], None]:
    """`progress` for the part of the whole from `start` to `end`."""
    if progress is None:
        return lambda _: None
    return lambda part: progress(start + part * (end - start))


def _finished(slab: SlabReader) -> SlabReport:
    """The report of a slab that stays as it is; its cycles count."""
    cycles, lost = 0, slab.structure.damage
    try:
        for index in range(len(slab.structure.chunks)):
            for head in slab.cycles.heads(index):
                cycles += head.opcode == fmt.CYCLE
    except Damage as damage:
        lost = damage
    return SlabReport(
        slab.path,
        recovered=False,
        cycles=cycles,
        lost=None if lost is None else f"what came after {lost}",
    )


def _check_own(paths: Sequence[Path]) -> None:
    """Raise `LogError` for a slab that is not the run's alone: recovery would change something else."""
    for path in paths:
        try:
            found = path.lstat()
        except OSError as error:
            raise LogError(f"{path}: cannot be recovered: {error.strerror}") from error
        why = None
        if stat.S_ISLNK(found.st_mode):
            why = "it is a symbolic link"
        elif not stat.S_ISREG(found.st_mode):
            why = "it is not a regular file"
        elif found.st_nlink > 1:
            why = "the file has another name, too (a hard link)"
        if why is not None:
            raise LogError(f"{path}: is not recovered: {why}; recover a copy of the run (cp -rL)")


def _sync_names(directory: Path) -> None:
    """Bring the names that were changed to the disk."""
    # Reading the directory may be forbidden where writing its files is allowed.
    with suppress(PermissionError):
        fd = os.open(directory, os.O_RDONLY)
        try:
            disk.sync_directory(fd)
        finally:
            os.close(fd)


def _made_ahead(directory: Path) -> list[Path]:
    """The slabs of a run that have not got their names, in order."""
    if not directory.is_dir():
        return []
    return [path for path in slab_files(directory) if is_ahead(path)]


def _mend_names(directory: Path) -> None:
    """Remove slabs that were made ahead and never begun, and copies of which an earlier recovery made
    only a part; name slabs that hold something, whose renaming did not reach the disk."""
    if directory.is_dir():
        for part in directory.glob(f"log_*{PART}"):
            part.unlink(missing_ok=True)
    for path in _made_ahead(directory):
        try:
            with open_file(path, os.O_RDONLY) as fd:
                holds_nothing = _holds_nothing(fd)
            if holds_nothing:
                path.unlink()
            else:
                path.rename(begun_path(path))
        except OSError as error:
            raise LogError(f"{path}: cannot be recovered: {error.strerror}") from error


def _mend_magic(path: Path) -> None:
    """Write the MAGIC of a slab that has zeros there, followed by its Header: that may be all of the
    file's first sector that did not reach the disk."""
    try:
        with open_file(path, os.O_RDWR) as fd:
            beginning = os.pread(fd, len(fmt.MAGIC) + 1, 0)
            if beginning == bytes(len(fmt.MAGIC)) + bytes([fmt.HEADER]):
                write_all(fd, fmt.MAGIC, 0)
    except OSError as error:
        raise LogError(f"{path}: cannot be recovered: {error.strerror}") from error


def _holds_nothing(fd: int) -> bool:
    """Whether a slab was never begun: zeros after the beginning that its writer made, or had made a
    part of when it was killed."""
    end = os.fstat(fd).st_size - len(TRAILER)
    offset = len(fmt.MAGIC)
    while offset + fmt.HEAD_SIZE <= end:
        opcode, length = fmt.RECORD_HEAD.unpack(os.pread(fd, fmt.HEAD_SIZE, offset))
        if opcode == fmt.CHUNK:
            offset += fmt.CHUNK_RECORDS_AT + fmt.HEAD_SIZE
            break
        if opcode == fmt.PAD and length > fmt.MAX_PAD_BETWEEN_CHUNKS:
            # Not yet committed after its head: a PAD, the head of a chunk, the head of its PAD.
            offset += 2 * fmt.MAX_PAD_BETWEEN_CHUNKS + fmt.CHUNK_RECORDS_AT
            break
        if opcode == 0 or offset + fmt.HEAD_SIZE + length > end:
            offset += fmt.HEAD_SIZE
            break
        offset += fmt.HEAD_SIZE + length
    while offset < end:
        piece = os.pread(fd, min(1 << 20, end - offset), offset)
        if piece.count(0) != len(piece):
            return False
        offset += len(piece)
    return True


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the run as its writer does."""
    with ExitStack() as held:
        try:
            is_ours = held.enter_context(locked(directory))
        except OSError as error:
            raise LogError(f"{directory}: cannot be locked: {error.strerror}") from error
        if not is_ours:
            raise LogInUse(
                f"{directory}: the run is being written; stop it first, it then needs no recovery"
            )
        yield
