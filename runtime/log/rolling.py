"""The slabs of a run, one after another: each is made before the one in use is full, and finished
after the next has begun, both by a helper thread, so that a cycle never waits for the disk.

A slab, its first bytes and its name in the directory, is on the disk before a cycle goes into it, and
all of it when it is finished; in between, `sync` brings there what is committed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

from flowrun.runtime.descriptor import Descriptor
from flowrun.runtime.errors import LogDamaged, LogError, unwritable
from flowrun.runtime.log.lock import ahead_path, slab_path
from flowrun.runtime.log.slab import disk
from flowrun.runtime.log.slab import format as fmt
from flowrun.runtime.log.slab.ends import build_end, build_preamble, build_summary
from flowrun.runtime.log.slab.format import Attachment, Channel, ChunkInfo, Placed, Schema
from flowrun.runtime.log.slab.writer import FIRST_LOOK_AHEAD, Slab
from flowrun.runtime.log.spare import SpareDescriptors

__all__ = ["MIB", "RollingSlabs", "RunDescription"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What every slab of a run says of it."""

    library: str
    metadata: Mapping[str, str]
    attachments: Sequence[Attachment]
    schemas: Sequence[Schema]
    channels: Sequence[Channel]


@dataclass(frozen=True, slots=True)
class _NumberedSlab:
    """A slab, its number, and where its preamble's records are."""

    slab: Slab
    number: int
    metadata_at: list[Placed]
    attachments_at: list[Placed]


class RollingSlabs:
    """The slabs of the run in `directory`, of which `slab` is the one in use.

    description: what each slab says of the run.
    slab_size, section_size: bytes of a slab, and by which its file grows.
    keep_slabs: number of slabs to keep, including the one in use; a slab made ahead comes on top.
        None keeps all.
    make_room: called before each slab is made, with the bytes that the run takes with it; on the
        helper thread, except for the first.
    Raises `LogError` if the first slab cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        description: RunDescription,
        *,
        slab_size: int,
        section_size: int,
        keep_slabs: int | None,
        make_room: Callable[[int], None],
    ) -> None:
        self._directory = directory
        self._description = description
        self._slab_size = slab_size
        self._section_size = section_size
        self._keep_slabs = keep_slabs
        self._make_room = make_room
        self._closed_bytes = 0
        self._names = Descriptor(os.open(directory, os.O_RDONLY), directory)
        self._spare = SpareDescriptors(self._names)
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="flowrun-slabs")
        self._next: Future[_NumberedSlab] | None = None
        """The slab after the present one, being made by the helper."""
        self._finishing: Future[None] | None = None
        self._sizes: dict[int, int] = {}
        """Bytes of each finished slab that is kept, by its number."""
        try:
            self._present = _begun(self._new_slab(0, slab_size))
            self._sync_names()
        except BaseException:
            self._close()
            raise
        self.slab = self._present.slab
        self._begun = self._synced_names = 1
        """Number of slabs that have been begun, and of those whose names are on the disk."""
        self._unfinished: tuple[_NumberedSlab, ...] = (self._present,)

    @property
    def size(self) -> int:
        """Bytes of all slabs so far, without what is preallocated."""
        return self._closed_bytes + self.slab.position

    def attend(self) -> None:
        """`Slab.attend` of the slab in use, and have the next one made when this one is nearly full."""
        self.slab.attend()
        if self.slab.position >= self.slab.prepare_at and self._next is None:
            number = self._present.number + 1
            self._next = self._helper.submit(self._new_slab, number, self._slab_size)

    def go_on(self, cycle_size: int) -> None:
        """Begin the next slab, which has room for a cycle of `cycle_size` bytes; the helper finishes
        this one. `LogError` if there is no room for one: this slab then stays in use."""
        self.slab.forget_uncommitted()
        self._wait_for_finished()
        # First: without a next slab, this one stays and can be finished.
        made = _begun(self._take_next(cycle_size))
        full = self._present
        self._present, self.slab = made, made.slab
        self._unfinished = (full, made)
        self._begun += 1
        self._closed_bytes += full.slab.position
        self._finishing = self._helper.submit(self._finish_full, full)

    def finish(self, end: Mapping[str, str]) -> None:
        """Finish the last slab; `end` says how the run ended. `LogError` if that is impossible."""
        with ExitStack() as steps:  # each is taken whatever became of those before
            steps.callback(self._close)
            steps.callback(self._sync_names)
            steps.callback(self._finish_slab, self._present, end)
            steps.callback(self._wait_for_finished)
            steps.callback(self._discard_next)

    # -- for other threads ---------------------------------------------------------------------

    def sync(self) -> None:
        """Bring to the disk all that was committed before the call. `LogError` if the disk did not take
        it, or did not take what was written earlier."""
        begun = self._begun
        for made in self._unfinished:
            try:
                made.slab.sync()
            except OSError as error:
                raise _not_taken(made.slab.path, error) from error
        if begun > self._synced_names:
            self._sync_names()
            self._synced_names = begun
        finishing = self._finishing
        if finishing is not None:
            finishing.result()  # brings to the disk what `Slab.sync` then leaves to it

    def look(self, lock: Lock) -> None:
        """`LogError` if a file of the run was removed or cut, or another put in its place.

        lock: what a writer holds while it stores into the slab.
        """
        last = self._present
        keep = self._keep_slabs
        first = 0 if keep is None else max(0, last.number + 1 - keep)
        for number in range(first, last.number):
            _look_at_finished(slab_path(self._directory, number), self._sizes.get(number, 0))
        if _is_gone(last.slab.path, last.slab.identity) and last is self._present:
            raise LogError(f"{last.slab.path}: the log was removed while it was written")
        try:
            is_whole = last.slab.is_whole
        except OSError:
            is_whole = False
        if not is_whole:
            with lock:  # it may only be about to grow, or another have followed
                self._look_again()
        self._spare.fill()

    def _look_again(self) -> None:
        slab = self._present.slab
        try:
            slab.check()
        except OSError as error:
            raise LogError(f"{slab.path}: {error.strerror}") from error

    # -- inside --------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Let go of the files as they are."""
        self._close()

    def _close(self) -> None:
        self._helper.shutdown()
        self._spare.close()
        self._names.close()

    def _sync_names(self) -> None:
        try:
            disk.sync_directory(self._names.number)
        except OSError as error:
            raise _not_taken(self._directory, error) from error

    def _new_slab(self, number: int, capacity: int) -> _NumberedSlab:
        taken = self.size if number else 0
        if self._keep_slabs is not None:
            taken = min(taken, self._keep_slabs * self._slab_size)
        self._make_room(taken + capacity)
        path = slab_path(self._directory, number)
        description = self._description
        preamble, metadata_at, attachments_at = build_preamble(
            description.library,
            {**description.metadata, "slab": str(number)},
            attachments=description.attachments,
            schemas=description.schemas,
            channels=description.channels,
        )
        try:
            slab = self._spare.lend(
                partial(
                    Slab,
                    path,
                    ahead=ahead_path(path),
                    capacity=capacity,
                    section=self._section_size,
                    head=preamble,
                    look_ahead=self.slab.look_ahead if number else FIRST_LOOK_AHEAD,
                )
            )
            try:
                slab.sync()
                disk.sync_directory(self._names.number)
            except OSError:
                slab.discard()
                raise
        except OSError as error:
            raise _slab_error(path, capacity, error) from error
        return _NumberedSlab(slab, number, metadata_at, attachments_at)

    def _take_next(self, cycle_size: int) -> _NumberedSlab:
        future, self._next = self._next, None
        if future is not None:
            try:
                made = future.result()
            except LogError:
                pass  # there may be room by now
            else:
                if made.slab.reserve(made.slab.position + fmt.CYCLE_SIZE + cycle_size):
                    return made
                made.slab.discard()
        needed = self.slab.head_size + cycle_size + self._section_size
        needed += needed // 7  # of which a slab may hold an eighth back
        return self._new_slab(self._present.number + 1, max(self._slab_size, needed))

    def _discard_next(self) -> None:
        future, self._next = self._next, None
        if future is not None and future.exception() is None:
            future.result().slab.discard()

    def _wait_for_finished(self) -> None:
        """Usually there is nothing to wait for; a writer that fills slabs faster waits for the disk."""
        future, self._finishing = self._finishing, None
        if future is not None:
            future.result()

    def _finish_full(self, full: _NumberedSlab) -> None:
        """Finish a slab that another has followed; where only some are kept, remove the oldest."""
        self._finish_slab(full, None)
        if self._keep_slabs is not None and full.number + 1 >= self._keep_slabs:
            number = full.number + 1 - self._keep_slabs
            self._sizes.pop(number, None)
            oldest = slab_path(self._directory, number)
            try:
                oldest.unlink(missing_ok=True)
            except OSError as error:
                raise LogError(f"{oldest}: cannot be removed: {error.strerror}") from error

    def _finish_slab(self, made: _NumberedSlab, end: Mapping[str, str] | None) -> None:
        slab, description = made.slab, self._description

        def tail(offset: int, chunks: list[ChunkInfo]) -> bytes:
            ending = b""
            metadata = [(fmt.METADATA_NAME, place) for place in made.metadata_at]
            if end is not None:
                ending, placed = build_end(end, offset=offset)
                metadata.append((fmt.END_NAME, placed))
            return ending + build_summary(
                offset=offset + len(ending),
                schemas=description.schemas,
                channels=description.channels,
                chunks=chunks,
                attachments=list(zip(description.attachments, made.attachments_at, strict=True)),
                metadata=metadata,
            )

        try:
            removed = slab.is_removed
            self._sizes[made.number] = slab.finish(tail)
        except OSError as error:
            text = f"{slab.path}: cannot finish the log: {error.strerror}"
            raise unwritable(text, error) from error
        if removed:
            raise LogError(f"{slab.path}: the log was removed while it was written")


def _look_at_finished(path: Path, size: int) -> None:
    """`LogError` if a slab of `size` bytes was removed, or cut."""
    try:
        found = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise LogError(f"{path}: was removed while the run was logged") from None
    except OSError:
        return  # nobody can say
    if found < size:
        raise LogDamaged(
            f"{path}: another program cut it from {size} to {found} bytes while the run was logged"
        )


def _is_gone(path: Path, identity: tuple[int, int]) -> bool:
    """Whether there is no such file, or another than that of `identity`."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # nobody can say
    return identity != (found.st_dev, found.st_ino)


def _not_taken(path: Path, error: OSError) -> LogError:
    text = f"{path}: the disk did not take what was written to the log: {error.strerror}"
    return unwritable(text, error)


def _begun(made: _NumberedSlab) -> _NumberedSlab:
    slab = made.slab
    try:
        slab.begin()
    except OSError as error:
        slab.discard()
        raise _slab_error(slab.path, slab.capacity, error) from error
    return made


def _slab_error(path: Path, capacity: int, error: OSError) -> LogError:
    text = f"{path}: cannot create the log: {error.strerror}"
    if error.errno == errno.ENOSPC:
        text = (
            f"{path}: cannot preallocate {capacity // MIB} MiB: the disk is full; free some space, "
            "or set a smaller logging: {slab_size_mib}"
        )
    return unwritable(text, error)
