"""A simulated disk: it keeps what it was asked to keep, and of what was written later any page or none.

Nothing is cut off for real, no privilege is needed; `torture_disk` does that.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.errors import LogError
from flowrun.runtime.log import mend
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab import disk
from flowrun.runtime.log.slab import writer as log_slab
from flowrun.runtime.log.slab.mapping import MappedFile
from support import torture

PAGE = 4096


class _File:
    """What is on the disk of one file.

    kept: its pages that were synced, by their offsets.
    seen: what else each page held at some time since.
    sizes: what it had when it was synced, and since.
    """

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}
        self.seen: dict[int, set[bytes]] = {}
        self.sizes = {0}

    def sync(self, data: bytes, start: int, end: int) -> None:
        self.sizes = {len(data)}
        self.kept = {at: page for at, page in self.kept.items() if at < len(data)}
        self.seen = {at: pages for at, pages in self.seen.items() if at < len(data)}
        for at in range(start & -PAGE, min(end, len(data)), PAGE):
            self.kept[at] = data[at : at + PAGE]
            self.seen.pop(at, None)

    def notice(self, data: bytes) -> None:
        self.sizes.add(len(data))
        for at in range(0, len(data), PAGE):
            page = data[at : at + PAGE]
            if page != self.kept.get(at, bytes(len(page))):
                self.seen.setdefault(at, set()).add(page)

    def cut(self, rng: random.Random) -> bytes:
        size = rng.choice(sorted(self.sizes))
        data = bytearray(size)
        share = rng.choice([0.0, 0.2, 0.8, 1.0])
        for at in sorted({*self.kept, *self.seen}):
            page = self.kept.get(at, bytes(PAGE))
            if at in self.seen and rng.random() < share:
                page = rng.choice(sorted(self.seen[at]))
            data[at : at + PAGE] = page
        return bytes(data[:size])


class Disk:
    """What is on the disk of the slabs in `root`, while they are written."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[int, _File] = {}
        self._names: list[dict[str, int]] = [{}]
        """The names that were synced, and those since; each with the number of its file."""
        self._mapped: dict[int, int] = {}
        self._lock = threading.Lock()

    def notice(self) -> None:
        """What is in memory now may be on the disk some day."""
        with self._lock:
            names = self._present()
            self._names.append(names)
            for name, number in names.items():
                self._file(number).notice((self._root / name).read_bytes())

    def cut(self, to: Path, rng: random.Random) -> None:
        """Make in `to` what a power cut would leave."""
        to.mkdir()
        with self._lock:
            for name, number in rng.choice(self._names).items():
                (to / name).write_bytes(self._file(number).cut(rng))

    def sync_all(self) -> None:
        """All that is there now is on the disk."""
        for name, number in self._present().items():
            self._sync(number, 0, (self._root / name).stat().st_size)
        self.sync_directory(0)

    # -- in place of the system's --------------------------------------------------------------

    def sync_pages(self, address: int, start: int, end: int) -> None:
        self._sync(self._mapped[address], start, end)

    def sync_file(self, fd: int) -> None:
        self._sync(os.fstat(fd).st_ino, 0, os.fstat(fd).st_size)

    def sync_directory(self, _fd: int) -> None:
        with self._lock:
            self._names = [self._present()]

    def map(self, fd: int, size: int, **options: Any) -> MappedFile:
        made = MappedFile(fd, size, **options)
        self._mapped[made.region.address] = os.fstat(fd).st_ino
        return made

    def _sync(self, number: int, start: int, end: int) -> None:
        with self._lock:
            [name] = [name for name, it in self._present().items() if it == number]
            self._file(number).sync((self._root / name).read_bytes(), start, end)

    def _file(self, number: int) -> _File:
        return self._files.setdefault(number, _File())

    def _present(self) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in self._root.glob("log_*")}


@contextmanager
def simulated(root: Path) -> Iterator[Disk]:
    """Writers of the run `root` write to a `Disk`."""
    made = Disk(root)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sync_pages", "sync_file", "sync_directory"):
            patch.setattr(disk, name, getattr(made, name))
        patch.setattr(log_slab, "MappedFile", made.map)
        patch.setattr(log_slab, "CHUNK_SIZE", 20_000)
        patch.setattr(log_slab, "_LOOK_AHEAD", 200_000)
        yield made


def cut_trial(folder: Path, seed: int) -> int:
    """Write a log, cut the power at some instant, read and recover what is left; how many cycles of
    those that the disk was not asked to keep are left."""
    rng = random.Random(seed)
    run, left = folder / "run", folder / "left"
    largest = rng.choice([40, 3000, 90_000])
    steps = rng.randrange(1, 60)
    safe = 0
    with simulated(run) as power:
        cycles = torture.Cycles(run, largest=largest, sync_s=None)
        for _ in range(steps):
            kind = rng.random()
            if kind < 0.1:
                cycles.writer.sync()
                safe = cycles.next
            elif kind < 0.2:
                cycles.writer.log_record(1, "info", "a line", "t", {})
                cycles.writer.write_lines()
            else:
                for _ in range(rng.choice([1, 1, 20])):
                    cycles.commit()
            if rng.random() < 0.3:
                power.notice()
        ends = rng.random() < 0.3
        if ends:
            cycles.writer.finish({"reason": "test"})
            safe = cycles.next
        power.notice()
        power.cut(left, rng)
        if not ends:
            cycles.writer.finish({"reason": "test"})
    try:
        found, loss = torture.read(left, largest)
    except LogError:
        assert not safe
        return 0
    assert found[:safe] == list(range(safe))
    # What came later is there up to some cycle, or it is said that there is a hole.
    assert found == sorted(set(found))
    assert len(found) <= cycles.next
    assert loss is not None or found == list(range(len(found)))
    if ends:
        with Log(left) as log:
            assert (log.finished, log.loss, len(found)) == (True, None, cycles.next)
        return 0
    recover(left)
    again, loss = torture.read(left, largest)
    assert again == found
    assert (loss is None) == (found == list(range(len(found))))
    with Log(left) as log:
        assert log.finished
        assert check_log(log)[2] == ([] if loss is None else [loss])
    return len(found) - safe


class _Cut(BaseException):
    """The power is gone."""


def recovery_trial(folder: Path, seed: int) -> None:
    """Cut the power at some step of a recovery: what is left can be read as before, and recovered."""
    rng = random.Random(seed)
    run, left = folder / "run", folder / "left"
    with simulated(run):
        cycles = torture.Cycles(run, largest=rng.choice([40, 3000]), sync_s=None)
        for _ in range(rng.randrange(40)):
            cycles.commit()
        kept = {path.name: path.read_bytes() for path in run.glob("log_*")}
        cycles.writer.finish({"reason": "test"})
    for name, content in kept.items():
        data = bytearray(content)
        if rng.random() < 0.3:
            data[rng.randrange(len(data) // 4)] ^= 1
        (run / name).write_bytes(data)
    try:
        before, _ = torture.read(run, cycles.largest)
    except LogError:
        return
    steps = rng.randrange(30)
    with simulated(run) as power, pytest.MonkeyPatch.context() as patch:
        power.sync_all()

        def step(real: Callable[..., Any], *args: Any) -> Any:
            nonlocal steps
            if steps == 0:
                raise _Cut
            steps -= 1
            found = real(*args)
            power.notice()
            return found

        patch.setattr(mend, "write_all", partial(step, disk.write_all))
        patch.setattr(os, "ftruncate", partial(step, os.ftruncate))
        with contextlib.suppress(_Cut):
            recover(run)
        power.notice()
        power.cut(left, rng)
    assert torture.read(left, cycles.largest)[0] == before
    recover(left)
    assert torture.read(left, cycles.largest)[0] == before
    with Log(left) as log:
        assert log.finished
