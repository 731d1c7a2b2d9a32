"""Records damaged films, and asks for everything back; `make torture-video`.

    PYTHONPATH=tests python -m support.torture_video [--films 1000] [--seed 1] [--only KIND]

A run of a damaged film may be refused with an error that a user understands. One that has begun keeps
the promise, also where an error ended it: its replay is identical, from its beginning and from each
keyframe; a check that decodes finds nothing; each picture is the one that the run saw, in order, at
random, one after the other as in a log that grows, and with any number of decoder threads, in the run
too; exports work. So it does where a device decodes that is wrong, refuses packets or goes away.
"""

from __future__ import annotations

import argparse
import collections
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from zlib_ng.zlib_ng import crc32

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import FlowrunError, LogError
from flowrun.runtime.export.foxglove import export_foxglove
from flowrun.runtime.export.mp4 import export_mp4
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.log.check import check_log
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures import video
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support import damaged, helpers
from support.devices import Faults, installed

MORE = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 4}"
CONFIGS = (
    *[""] * 6,
    ", loop: true",
    ", start_s: 0.2",
    ", max_fps: 12",
    ", decode: keyframes",
    *[", decode: asked"] * 2,
    ", decode: asked, loop: true",
    ", realtime: true, policy: latest",
    ", realtime: true, loop: true",
    *[", hwaccel: auto"] * 3,
    ", hwaccel: cuda, loop: true",
)


def record(film: Path, folder: Path, config: str, every: int = 1) -> Exception | None:
    """Record a run of the film into `folder`/run; the error that ended it. every: which pictures are
    read in their cycle; others may be read later."""
    tasks = f"d=Digest@every: {every}; s=Shades@every: {every}; b=Digest!"
    plan = helpers.plan_of(
        folder,
        f"a=VideoCapture(source_uri: {film}{config}); {tasks}",
        "a > d: ImageRgb8Msg; a > s: ImageRgb8Msg; a > b: ImageRgb8Msg",
        MORE,
    )
    clock = ManualClock(helpers.START_NS, step_ns=20_000_000 if "latest" in config else 1000)
    live = Run(plan, clock=clock, directory=folder / "run")
    error: Exception | None = live.run(cycles=60).error
    return error


def assert_kept(run: Path, folder: Path, rng: np.random.Generator) -> collections.Counter[str]:
    """Assert that the log of a run that ended well gives everything back; counts its pictures."""
    with Log(run) as log:
        if not len(log):  # refused before its first cycle
            return collections.Counter()
        report = Replay(log, env={}).run()
        assert report.identical, report.first
        cycles, _, problems = check_log(log)
        assert problems == []
    with Log(run) as log:
        replay = Replay(log, env={})
        keyframes = [cycle for cycle in replay.keyframes if 0 < cycle < cycles]
        for start in rng.permutation(keyframes)[:2] if keyframes else []:
            again = Replay(log, env={}).run(start=int(start))
            assert again.identical, (start, again.first)
    counts = _assert_pictures(run, rng)
    with Log(run) as log:
        if counts:
            try:
                export_mp4(log, Selection(("/a/image",)), folder / "film.mp4")
            except LogError as error:
                assert "a film has one size" in str(error)  # noqa: PT017
            export_foxglove(log, Selection(("/a/image",)), folder / "film.mcap")
    return counts


def _assert_pictures(run: Path, rng: np.random.Generator) -> collections.Counter[str]:
    with Log(run) as log:
        seen = {it.cycle: it.fields["value"] for it in log.messages("/d/crc")}
        found = [
            (it.cycle, StoredPicture.parse(it.payload).own["codec"])
            for it in log.messages("/a/image")
        ]
        assert set(seen) <= {cycle for cycle, _ in found}
        assert bool(seen) == bool(found)
        for cycle in rng.permutation(list(seen))[:3]:
            [message] = log.messages("/a/image", int(cycle), int(cycle) + 1)
            assert crc32(message.fields["pixels"].tobytes()) == seen[int(cycle)], cycle
    with Log(run, follow=True, timeout_s=10) as log:
        for frame in log.frames("/a/image"):
            pixels = crc32(frame.pixels.tobytes())
            assert pixels == seen.get(frame.cycle, pixels), frame.cycle
    return collections.Counter(codec for _, codec in found)


def with_threads(count: int) -> Any:
    """A `PacketDecoder` that uses this number of threads where it decodes ahead."""

    class Threads(video.PacketDecoder):
        def __init__(self, decoder: Any, *, ahead: bool = False, strict: bool = False) -> None:
            super().__init__(decoder, ahead=ahead, strict=strict)
            if ahead:
                self._context.thread_count = count

    return Threads


def one(
    originals: Path,
    folder: Path,
    kind: str,
    seed: int,
    *,
    configs: Sequence[str] = CONFIGS,
) -> collections.Counter[str]:
    """Damage one film and try it; counts what became of it."""
    from flowrun.runtime.pictures import decode
    from flowrun.tasks.video import hwaccel, reader

    available_cores = reader.available_cores
    rng = np.random.default_rng(seed)
    film = folder / f"film{Path(kind).suffix}"
    how = damaged.damaged(damaged.original(originals, kind), film, rng)
    config = str(rng.choice(configs))
    cores = int(rng.choice([1, 2, 3, 8]))
    faults, every, stored = Faults(), 1, hwaccel._MOST_STORED
    if "hwaccel" in config:
        faults, every = Faults.drawn(rng), int(rng.choice([1, 2, 5]))
        hwaccel._MOST_STORED = int(rng.choice([1, stored, 1000]))
    reader.available_cores = lambda: cores
    decode.PacketDecoder = with_threads(int(rng.choice([1, 2, 3, 8, 16])))  # type: ignore[misc]
    try:
        try:
            with installed(faults):
                error = record(film, folder, config, every)
        except FlowrunError as failed:
            error = failed
        if error is not None:
            assert isinstance(error, FlowrunError), error
            if not (folder / "run").exists():
                return collections.Counter(refused=1)
        counts = assert_kept(folder / "run", folder, rng)
    except Exception as error:
        error.add_note(f"{kind}, seed {seed}: {how}{config}, recorded on {cores} cores, {faults}")
        raise
    finally:
        decode.PacketDecoder = video.PacketDecoder  # type: ignore[misc]
        reader.available_cores = available_cores
        hwaccel._MOST_STORED = stored
    if error is None:
        return counts + collections.Counter({"kept": 1})
    return counts + collections.Counter({"kept up to an error" if counts else "refused": 1})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append")
    parser.add_argument("--keep", type=Path, help="keep what failed here")
    args = parser.parse_args(arguments)
    totals: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    kinds = args.only or list(damaged.KINDS)
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(args.films):
            kind, seed = kinds[number % len(kinds)], args.seed * 1_000_000 + number
            folder = Path(scratch) / "one"
            folder.mkdir()
            try:
                totals[kind] += one(Path(scratch), folder, kind, seed)
            except Exception as error:  # noqa: BLE001  # one more failure to report
                failures += 1
                totals[kind]["FAILED"] += 1
                print("".join(traceback.format_exception(error)[-6:]), flush=True)
                if args.keep is not None:
                    shutil.copytree(folder, args.keep / str(seed))
            shutil.rmtree(folder)
    for kind, counts in totals.items():
        print(f"{kind:16} {dict(sorted(counts.items()))}")
    total = sum(totals.values(), collections.Counter())
    print(f"{args.films} films: {dict(sorted(total.items()))}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
