"""Cuts the power of real file systems, fills them and takes files away, many times; `make torture-disk`.

    PYTHONPATH=tests python -m support.torture_disk [--cuts 60] [--seed 1]

Needs root, loop devices and ext4: the file systems are images, mounted in a temporary folder, and are
unmounted whatever happens. A power cut is ext4's forced shutdown without a flush of its journal: what
was not synced is gone. cuts: how many, at random instants of a run, while slabs roll over, right after
the start, and right after the command has exited. All that a sync had found must be there, however slow
the disk or the machine is; the time that is lost is compared with what the syncs took.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import fcntl
import math
import mmap
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.writer import LogWriter
from support import torture
from support.paths import TESTS

_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2
_MOST_CYCLES = 2_000_000
_MOST_SYNCS = 64
_SYNC = struct.Struct("ddQ")
SYNC_S = 1.0
_SLACK_S = 0.25
_MOMENT_S = 0.02


# -- file systems --------------------------------------------------------------------------------


def _sh(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True)


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    _sh("mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder)
    try:
        yield folder
    finally:
        _sh("umount", "-l", folder)


class Image:
    """A file system in a file below `folder`."""

    def __init__(self, folder: Path, kind: str, size: str) -> None:
        self._image, self.root = folder / f"{kind}.img", folder / kind
        self.root.mkdir()
        _sh("truncate", "-s", size, self._image)
        _sh(f"mkfs.{kind}", "-q", "-F", "-m", "0", self._image)

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            _sh("umount", "-l", self.root)

    def mount(self) -> None:
        _sh("mount", "-o", "loop", self._image, self.root)

    def unmount(self) -> None:
        for _ in range(100):
            try:
                _sh("umount", self.root)
            except subprocess.CalledProcessError:
                time.sleep(0.05)  # the killed writer has not let go yet
            else:
                return
        raise RuntimeError(f"{self.root} stays busy")

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, and what has not is gone at the next mount."""
        fd = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)


def why_not() -> str | None:
    """Why this machine cannot do it; None if it can."""
    if os.geteuid() != 0:
        return "it needs root, for mounting"
    for program in ("mkfs.ext4", "mkfs.ext2", "mount", "umount", "truncate"):
        if shutil.which(program) is None:
            return f"it needs {program}"
    folder = Path(tempfile.mkdtemp(prefix="flowrun-disk-"))
    try:
        with Image(folder, "ext4", "32M") as image:
            image.cut_power()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"it needs a loop device and ext4's forced shutdown: {error}"
    finally:
        shutil.rmtree(folder)
    return None


# -- power cuts ----------------------------------------------------------------------------------


class Sync(NamedTuple):
    """One sync: when it began and ended, in seconds, infinite while it has not; and the number of cycles
    that had been committed before it."""

    began: float
    ended: float
    cycles: int


class Loss(NamedTuple):
    """What a power cut took.

    cycles, seconds: that are lost, and for how long the first of them had been committed.
    slowest_s: what the slowest of the last syncs took.
    late_s: by how much this machine was late to wake a thread that sleeps.
    """

    cycles: int
    seconds: float
    slowest_s: float
    late_s: float

    @property
    def allowed_s(self) -> float:
        """A sync begins `SYNC_S` / 2 after the one before had begun, or when that has ended; until it
        ends itself, all that came since the one before had begun may be lost."""
        return max(SYNC_S / 2, self.slowest_s) + self.slowest_s + self.late_s + _SLACK_S


class Lateness:
    """How late this machine wakes a thread, at worst, while the context is open."""

    def __enter__(self) -> Self:
        self.worst_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _measure(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(_MOMENT_S):
            now = time.monotonic()
            self.worst_s = max(self.worst_s, now - before - _MOMENT_S)
            before = now


class Commits:
    """When each cycle was committed, and what was synced, in memory that outlives the writer."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8 + 8 * _MOST_CYCLES)
        self._count = memoryview(self._shared)[:8].cast("Q")
        self._times = memoryview(self._shared)[8:].cast("d")
        self._syncs = mmap.mmap(-1, 8 + _SYNC.size * _MOST_SYNCS)

    def add(self) -> None:
        count = self._count[0]
        self._times[count] = time.monotonic()
        self._count[0] = count + 1

    def note_syncs(self, writer: LogWriter) -> None:
        """Note what `writer` syncs from now on."""
        real = writer.sync

        def sync() -> None:
            began, cycles = time.monotonic(), self._count[0]
            (count,) = struct.unpack_from("Q", self._syncs)
            at = 8 + _SYNC.size * (count % _MOST_SYNCS)
            _SYNC.pack_into(self._syncs, at, began, math.inf, cycles)
            struct.pack_into("Q", self._syncs, 0, count + 1)
            real()
            _SYNC.pack_into(self._syncs, at, began, time.monotonic(), cycles)

        writer.sync = sync  # type: ignore[method-assign]

    @property
    def syncs(self) -> list[Sync]:
        """The last syncs, in order."""
        (count,) = struct.unpack_from("Q", self._syncs)
        made = map(Sync._make, _SYNC.iter_unpack(memoryview(self._syncs)[8:]))
        return sorted(list(made)[:count])

    @property
    def times(self) -> array.array[float]:
        return array.array("d", self._times[: self._count[0]])


def _write(run: Path, commits: Commits, *, largest: int, pause_s: float) -> None:
    """Commit cycles until killed."""
    cycles = torture.Cycles(run, largest=largest, slab_size_mib=4, sync_s=SYNC_S)
    commits.note_syncs(cycles.writer)
    while True:
        cycles.commit()
        commits.add()
        if pause_s:
            time.sleep(pause_s)


def cut_trial(folder: Path, rng: random.Random, kind: str) -> Loss:
    """Cut the power of a writer."""
    after_s = {"start": 0.3, "run": 4.0, "roll-over": 4.0}[kind] * rng.random()
    largest, pause_s = (90_000, 0.0005) if kind == "roll-over" else (3000, 0.002)
    commits = Commits()
    with Image(folder, "ext4", "3G") as image:
        run = image.root / "runs" / "run"
        child = os.fork()
        if child == 0:
            try:
                _write(run, commits, largest=largest, pause_s=pause_s)
            finally:
                os._exit(1)
        try:
            if kind == "start":
                while not commits.times:
                    time.sleep(0.0005)
            with Lateness() as lateness:
                time.sleep(after_s)
                cut_s = time.monotonic()
                image.cut_power()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        image.unmount()
        image.mount()
        times = [at for at in commits.times if at <= cut_s]
        kept, said = _read_and_recover(run, largest)
    syncs = commits.syncs
    done = [sync for sync in syncs if sync.ended <= cut_s]
    safe = done[-1].cycles if done else 0
    assert kept >= safe, f"{safe} cycles had been synced, {kept} are there: {said}"
    lost = times[kept:]
    loss = Loss(
        len(lost),
        cut_s - lost[0] if lost else 0.0,
        max(
            (min(cut_s, sync.ended) - sync.began for sync in syncs if sync.began < cut_s), default=0
        ),
        lateness.worst_s,
    )
    assert loss.seconds <= loss.allowed_s, f"{loss}: allowed are {loss.allowed_s:.2f} s"
    return loss


def _read_and_recover(run: Path, largest: int) -> tuple[int, str]:
    """How many cycles are there from the first on, and what is said of the others."""
    try:
        found, loss = torture.read(run, largest)
    except LogError as error:
        return 0, str(error)
    kept = next((at for at, cycle in enumerate(found) if at != cycle), len(found))
    recover(run)
    again, _ = torture.read(run, largest)
    assert again == found
    with Log(run) as log:
        assert log.finished
    return kept, f"{len(found)} cycles in all; {loss}"


TASK = """
    from flowrun.msgs import BytesMsg
    from flowrun.runtime.task import Context, Output, Task, TaskConfig


    class Load(Task):
        class Config(TaskConfig):
            size: int = 1000

        def start(self, ctx: Context) -> None:
            self.next = 0

        def process(self, ctx: Context, load: Output[BytesMsg]) -> None:
            load.value = bytes([self.next % 251]) * self.config.size
            load.publish(tov_ns=self.next)
            self.next += 1
"""


def write_graph(
    folder: Path, *, size: int = 1000, more: str = "", rate_hz: float = 200, slab_mib: int = 4
) -> Path:
    (folder / "load.py").write_text(textwrap.dedent(TASK))
    graph = folder / "g.yaml"
    graph.write_text(
        f"tasks:\n  - {{id: load, type: load.Load, config: {{size: {size}}}, rate_hz: {rate_hz}}}\n"
        f"logging: {{slab_size_mib: {slab_mib}, section_size_mib: 1{more}}}\n"
    )
    return graph


def exit_trial(folder: Path, rng: random.Random) -> int:
    """Cut the power right after the command has exited; how many cycles the run has."""
    graph = write_graph(folder, rate_hz=5000)
    count = rng.randrange(1, 1500)
    with Image(folder, "ext4", "1G") as image:
        command = [*torture._flowrun(), graph, "--log-dir", image.root / "runs", "--plain"]
        subprocess.run([*command, "--cycles", str(count)], check=True, stdout=subprocess.DEVNULL)
        image.cut_power()
        image.unmount()
        image.mount()
        [run] = (path for path in (image.root / "runs").iterdir() if path.is_dir())
        with Log(run) as log:
            assert log.finished, "the finished run is not finished any more"
            assert len(log) == count, (len(log), count)
            assert check_log(log)[2] == []
    return count


# -- full disks, limits, files that are taken away -----------------------------------------------


def _run_until_error(
    graph: Path, runs: Path, *, timeout: float, limit: tuple[int, int] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*torture._flowrun(), graph, "--log-dir", runs, "--plain"],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        preexec_fn=(lambda: resource.setrlimit(limit[0], (limit[1], limit[1]))) if limit else None,
    )


def _error_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, (done.returncode, done.stderr[-2000:])
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return lines[0]


def _cycles_of(done: subprocess.CompletedProcess[str]) -> int:
    found = re.search(r"^g: ([\d,]+) cycles", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    return int(found[1].replace(",", ""))


def _values(run: Path) -> list[int]:
    with Log(run) as log:
        found = [message.tov_ns for message in log.messages("/load/load")]
        assert found == list(range(len(found)))
        return found


def _only_run(runs: Path) -> Path:
    [run] = (path for path in runs.iterdir() if path.is_dir())
    return run


def full_trial(folder: Path, kind: str, slab_mib: int) -> str:
    """Fill a file system; what was written until then is all there."""
    graph = write_graph(folder, size=20_000, rate_hz=2000, slab_mib=slab_mib)
    with contextlib.ExitStack() as held:
        if kind == "tmpfs":
            root = held.enter_context(tmpfs(folder / "full", "24m"))
        else:
            root = held.enter_context(Image(folder, kind, "24M")).root
        done = _run_until_error(graph, root / "runs", timeout=120)
        error = _error_of(done)
        assert "No space left" in error or "disk is full" in error, error
        run = _only_run(root / "runs")
        cycles = _cycles_of(done)
        kept = len(_values(run))
        assert cycles - 1 <= kept <= cycles, (cycles, kept)
    return f"{kept} of {cycles} cycles there; {error}"


def backing_trial(folder: Path) -> str:
    """Fill the disk under a file system that is not full; how soon that is noticed."""
    graph = write_graph(folder, size=20_000, rate_hz=500, more=f", sync_s: {SYNC_S}")
    with tmpfs(folder / "backing", "40m") as backing, Image(backing, "ext4", "1G") as image:
        began = time.monotonic()
        done = _run_until_error(graph, image.root / "runs", timeout=120)
        took = time.monotonic() - began
        error = _error_of(done)
        cycles = _cycles_of(done)
    # 40 MiB are full after some 4 s; the next sync finds it. A busy machine takes longer to fill them.
    assert took < 90, took
    return f"after {took:.1f} s and {cycles} cycles: {error}"


def limit_trial(folder: Path, limit: int, value: int) -> str:
    graph = write_graph(folder, size=20_000, rate_hz=2000)
    done = _run_until_error(graph, folder / "runs", timeout=60, limit=(limit, value))
    error = _error_of(done)
    if (folder / "runs").exists() and list((folder / "runs").glob("*/*.mcap")):
        _values(_only_run(folder / "runs"))
    return error


def removal_trial(folder: Path, what: str) -> str:
    """Take the run's directory, or its slab, away; how soon that is noticed."""
    graph = write_graph(folder, rate_hz=50)
    runs = folder / "runs"
    with subprocess.Popen(
        [*torture._flowrun(), graph, "--log-dir", runs, "--plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        while not list(runs.glob("*/log_0000.mcap")):
            time.sleep(0.01)
        time.sleep(1)
        run = _only_run(runs)
        began = time.monotonic()
        if what == "directory":
            shutil.rmtree(run)
        else:
            (run / "log_0000.mcap").unlink()
        try:
            out, err = running.communicate(timeout=20)
        finally:
            running.kill()
    took = time.monotonic() - began
    error = _error_of(subprocess.CompletedProcess([], running.returncode, out, err))
    assert took < 5, took
    return f"after {took:.1f} s: {error}"


def truncation_trials(folder: Path, rng: random.Random) -> str:
    """Cut slabs under their writers and readers, on a real file system."""
    cycles, count = 0, 20
    with Image(folder, "ext4", "1G") as image:
        for number in range(count):
            place = image.root / str(number)
            place.mkdir()
            cycles += torture.truncation_trial(place, rng)
            shutil.rmtree(place)
    return f"{count} slabs cut under their writer; {cycles} cycles, each cut noticed, none wrong"


# -- all -----------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None,
        help="where the images are (memory: the machine's own disk may take seconds to sync)",
    )
    parser.add_argument("--only", default="", help="trials whose name begins so")
    args = parser.parse_args()
    why = why_not()
    if why is not None:
        print(f"skipped: {why}")
        return 0
    os.environ["PYTHONPATH"] = str(TESTS)
    rng = random.Random(args.seed)
    root = Path(tempfile.mkdtemp(prefix="flowrun-torture-disk-", dir=args.dir))
    wrong = 0

    def trial(name: str, run: Callable[[Path], str]) -> None:
        nonlocal wrong
        if not name.startswith(args.only):
            return
        folder = root / name.replace(" ", "-")
        folder.mkdir()
        try:
            print(f"{name}: {run(folder)}", flush=True)
        except Exception as error:  # noqa: BLE001 - the others are tried all the same
            wrong += 1
            print(f"{name}: WRONG: {type(error).__name__}: {error}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)

    def cuts(kind: str, count: int) -> str:
        losses = []
        for number in range(count):
            folder = root / f"cut-{kind}-{number}"
            folder.mkdir()
            losses.append(cut_trial(folder, rng, kind))
            shutil.rmtree(folder)
        lost = sorted(loss.seconds for loss in losses)
        return (
            f"{count} power cuts; lost at most {lost[-1]:.2f} s and "
            f"{max(loss.cycles for loss in losses)} cycles, {lost[count // 2]:.2f} s in the median, "
            f"{sum(seconds > SYNC_S for seconds in lost)} times more than sync_s; the slowest sync took "
            f"{max(loss.slowest_s for loss in losses):.2f} s, and this machine was up to "
            f"{max(loss.late_s for loss in losses):.2f} s late"
        )

    def exits(count: int) -> str:
        cycles = 0
        for number in range(count):
            folder = root / f"exit-{number}"
            folder.mkdir()
            cycles += exit_trial(folder, rng)
            shutil.rmtree(folder)
        return f"{count} power cuts right after exit 0: all {cycles} cycles there, finished"

    try:
        for kind, share in (("run", 0.4), ("roll-over", 0.25), ("start", 0.2)):
            count = max(1, round(args.cuts * share))
            trial(f"cut {kind}", lambda _, kind=kind, count=count: cuts(kind, count))
        trial("cut exit", lambda _: exits(max(1, round(args.cuts * 0.15))))
        for kind in ("ext4", "ext2", "tmpfs"):
            trial(f"full {kind}", lambda folder, kind=kind: full_trial(folder, kind, 4))
        trial("full ext2, one slab", lambda folder: full_trial(folder, "ext2", 1024))
        trial("full backing store", backing_trial)
        trial("limit of a file", lambda it: limit_trial(it, resource.RLIMIT_FSIZE, 3 << 20))
        trial("removed directory", lambda folder: removal_trial(folder, "directory"))
        trial("removed slab", lambda folder: removal_trial(folder, "slab"))
        trial("cut slab", lambda folder: truncation_trials(folder, rng))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
