"""The slabs of a run: found, opened, opened again as a writer goes on, and what is missing of them."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from pathlib import Path

from flowrun.runtime.errors import LogDamaged, LogError, LogNotFound
from flowrun.runtime.log.lock import is_ahead, is_begun, is_locked, slab_number
from flowrun.runtime.log.slab.bytes import Damage
from flowrun.runtime.log.slab.format import KEEP_SLABS
from flowrun.runtime.log.slab.reader import SlabReader

__all__ = ["LogFiles", "slab_paths"]


class LogFiles:
    """The slabs at `path`, a run directory or one slab, in order.

    Raises `LogError` where none can be read; `losses` says what is wrong with one of them.
    """

    def __init__(self, path: Path, *, verify: bool) -> None:
        self.path = path
        self.is_run = path.is_dir()
        """Whether it is a run's directory, not one slab of it; later it may be gone."""
        self.verify = verify
        self.slabs: list[SlabReader] = []
        self.losses: dict[Path, str] = {}
        """What could not be read of each slab, as far as was found until now."""
        self.closed = False
        self.vanished: Path | None = None
        """A slab that a flight recorder removed while it was read: maybe not to its end."""
        errors = []
        for slab_path in slab_paths(path):
            try:
                self.slabs.append(SlabReader(slab_path, verify=verify))
            except LogError as error:
                _raise_if_ours(error)
                errors.append(error)
                if not _is_gone(slab_path):  # a flight recorder may have removed it meanwhile
                    self.losses[slab_path] = str(error)
        if not self.slabs:
            raise errors[0] if errors else LogNotFound(f"{path}: the log is empty")
        for slab in self.slabs:
            if slab.structure.damage is not None:
                self.lose(slab, slab.structure.damage)
        self._check_run()

    def close(self) -> None:
        self.closed = True
        for slab in self.slabs:
            slab.close()

    def check_open(self) -> None:
        """Raise `LogError` after `close`."""
        if self.closed:
            raise LogError(f"{self.path}: the log is closed")

    def lose(self, slab: SlabReader, damage: Damage) -> None:
        """Note what ends the reading of `slab`; the first cause stays."""
        self.losses.setdefault(slab.path, f"{slab.path}: {slab.cut or damage}")

    def note_cuts(self) -> None:
        """Note which slabs were cut since they were opened."""
        for slab in self.slabs:
            if slab.cut is not None:
                self.losses[slab.path] = f"{slab.path}: {slab.cut}"

    def _check_run(self) -> None:
        first = self.slabs[0]
        begins_late = self.is_run and slab_number(first.path) > 0
        if begins_late and not self.losses and not self._keeps_the_last():
            self.losses[first.path] = f"{first.path}: the slabs before it are missing"
        run_id = first.preamble.metadata.get("run_id")
        topics = (first.preamble.channels, first.preamble.schemas)
        for number, slab in enumerate(self.slabs):
            found = slab.preamble.metadata.get("run_id")
            if found != run_id:
                raise LogDamaged(
                    f"{slab.path}: belongs to run {found!r}; {first.path.name} to run {run_id!r}"
                )
            if (slab.preamble.channels, slab.preamble.schemas) != topics:
                raise LogDamaged(f"{slab.path}: has other topics than {first.path.name}")
            before = self.slabs[number - 1] if number else None
            if before is not None and not self.losses:
                index, last = slab_number(slab.path), slab_number(before.path)
                if index != last + 1:
                    self.losses[slab.path] = (
                        f"{slab.path}: follows {before.path.name}: the slabs between are missing"
                    )

    def _keeps_the_last(self) -> bool:
        """Whether the run's own writer removes slabs: a flight recorder's, unless it has ended and
        there are fewer than it leaves."""
        keep = self.slabs[0].preamble.metadata.get(KEEP_SLABS, "")
        ended = self.slabs[-1].structure.end is not None
        return keep.isdecimal() and not (ended and len(self.slabs) < int(keep))

    # -- while it is written -------------------------------------------------------------------

    def writer_lives(self) -> bool:
        """Whether a process holds the run's lock, as its writer does to its end. `LogError` if nobody
        can say."""
        directory = self.path if self.is_run else self.path.parent
        try:
            return is_locked(directory)
        except OSError as error:
            text = f"{directory}: cannot find out whether it is being written: {error.strerror}"
            raise LogError(text) from error

    def refresh(self) -> None:
        """See what a writer has added: cycles, chunks, sections, slabs."""
        # New slabs are looked for first: when one is there, all of the slab before it is written,
        # and nothing of it is missed by opening it afterwards.
        added = self._added_paths()
        if added:
            # A flight recorder's removed slabs take room on the disk while they are mapped.
            self.slabs[:-1] = [slab for slab in self.slabs[:-1] if slab.path.exists()]
        for place in range(max(0, len(self.slabs) - 2), len(self.slabs)):
            slab = self.slabs[place]
            if slab.is_outdated() or (slab.path in self.losses and not slab.structure.finished):
                # The old reader is dropped, not closed: payloads and other iterators may use it.
                self._open_at(place, slab.path)
        for path in added:
            self._open_at(len(self.slabs), path)

    def _added_paths(self) -> list[Path]:
        if not self.is_run:
            return []
        last = slab_number(self.slabs[-1].path)
        try:
            items = list(self.path.iterdir())
        except OSError as error:
            raise LogError(f"{self.path}: cannot be read: {error.strerror}") from error
        found = [item for item in items if is_begun(item) and slab_number(item) > last]
        return sorted(found, key=slab_number)

    def _open_at(self, place: int, path: Path) -> None:
        try:
            slab = SlabReader(path, verify=self.verify)
        except LogError as error:
            _raise_if_ours(error)
            if path.exists():
                self.losses[path] = str(error)
            elif place < len(self.slabs):
                self.vanished = path
            return
        self.slabs[place : place + 1] = [slab]
        self.losses.pop(path, None)
        if slab.structure.damage is not None:
            self.lose(slab, slab.structure.damage)
        self._check_run()


def _raise_if_ours(error: LogError) -> None:
    """Raise an error that says nothing about the file: this process can open no more."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error


_GRAPHS = (".yaml", ".yml")


def slab_paths(path: Path) -> list[Path]:
    """The slabs at `path`, a run directory or one slab, in order. `LogError` if there are none.

    A slab that a writer made and has not begun is left out.
    """
    try:
        if not path.is_dir():
            path.stat()
            if path.suffix in _GRAPHS:
                raise LogNotFound(
                    f"{path} is a graph file; give a recorded run: `flowrun {path}` makes one in runs/"
                )
            return [path.resolve() if path.is_symlink() else path]
        items = list(path.iterdir())
        begun = [item for item in items if is_begun(item)]
        begun += [it for it in items if is_ahead(it) and _holds_cycles(it)]
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        kind = LogNotFound if missing else LogError
        raise kind(f"{path}: cannot be read: {error.strerror}") from error
    if not begun:
        newest = _newest_run(items)
        inside = "" if newest is None else f"; it holds runs, the newest: {newest}"
        if newest is not None and newest.parent != path:
            inside = (
                f"; it holds folders of runs, as a fleet's does: name one run, such as {newest}"
            )
        raise LogNotFound(f"{path}: not a run: it holds no slab (log_0000.mcap){inside}")
    return sorted(begun, key=slab_number)


def _is_gone(path: Path) -> bool:
    """Whether there is no such file; one in a folder that may only be listed is there."""
    try:
        return not path.exists()
    except OSError:
        return False


def _newest_run(paths: Sequence[Path]) -> Path | None:
    """The directory among `paths`, or in one of them, whose slabs were written last; None if none holds
    a slab. The runs of a fleet are in a folder for each of its processes."""
    made: dict[Path, int] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            for run in (path, *filter(Path.is_dir, path.iterdir())):
                for slab in filter(is_begun, run.iterdir()):
                    made[run] = slab.stat().st_mtime_ns
    return max(made, key=lambda path: made[path], default=None)


def _holds_cycles(path: Path) -> bool:
    """Whether a slab was begun, though its name says that it was not."""
    try:
        slab = SlabReader(path, verify=False)
    except LogError:
        return False  # not yet made, or begun since it was listed
    try:
        return bool(slab.structure.chunks) and slab.first(0) is not None
    finally:
        slab.close()
