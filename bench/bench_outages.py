"""Whether a camera that is switched off and on comes back, and how soon.

    python bench/bench_outages.py [--times 5] [--delay-s 1] [--dir DIR]

An RTSP server of GStreamer, a process that is killed and started again, each time after random spans
on and off; the run is the command `flowrun`. Then the log says when pictures came. Each time the camera
must be back within `--delay-s` + 1 s of the moment at which the server listens; the frames' ids must
rise, and the log must replay. Exits with 1 if not. 100 times take eight minutes.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from camera_films import FPS, film_of
from camera_runs import ENV, FLOWRUN, Cameras, rtsp_server, running

from flowrun.runtime import Log
from flowrun.runtime.pictures.stored import StoredPicture

MORE_S = 1.0
ON_S, OFF_S = (2.5, 3.5), (0.2, 2.0)
FILM_S = 20


def switch(film: Path, times: int, folder: Path, delay_s: float) -> tuple[Path, list[int]]:
    """The run's log, and when the server listened again, in nanoseconds since 1970."""
    spans = random.Random(0)
    listens_ns = []
    with ExitStack() as switched_on, ExitStack() as run:
        port = switched_on.enter_context(rtsp_server(film))
        cameras = Cameras(
            [f"rtsp://127.0.0.1:{port}/cam0"],
            {"reconnect": {"delay_s": delay_s}, "timeout_s": 2},
            answer_s=0.1,
        )
        watched = run.enter_context(running(cameras, folder))
        for number in range(times):
            time.sleep(spans.uniform(*ON_S))
            switched_on.close()
            time.sleep(spans.uniform(*OFF_S))
            switched_on.enter_context(rtsp_server(film, port))
            listens_ns.append(time.time_ns())
            if (number + 1) % 20 == 0:
                print(f"  switched off and on {number + 1} times", flush=True)
        time.sleep(ON_S[1] + delay_s)
        log = watched.log
    return log, listens_ns


def pictures(log: Path) -> Iterator[tuple[int, int]]:
    """When each came, and its frame's id."""
    with Log(log) as opened:
        for message in opened.messages("/cam0/image"):
            yield message.time_ns, StoredPicture.parse(message.payload).own["frame_id"]


def back_after_s(came_ns: list[int], listens_ns: list[int]) -> list[float]:
    """Seconds from each moment to the next picture; infinite where none came before the next one."""
    found = []
    for at, until in zip(listens_ns, [*listens_ns[1:], came_ns[-1] + 1], strict=True):
        first = next((it for it in came_ns if at <= it < until), None)
        found.append(float("inf") if first is None else 1e-9 * (first - at))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--delay-s", type=float, default=1.0)
    parser.add_argument("--dir", type=Path, help="where the log goes for a while")
    args = parser.parse_args()
    film = film_of("480p", FILM_S * FPS)
    print(f"a camera is switched off and on {args.times} times, delay_s: {args.delay_s:g}")
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        log, listens_ns = switch(film, args.times, Path(name), args.delay_s)
        came_ns, ids = zip(*pictures(log), strict=True)
        replay = subprocess.run(
            [FLOWRUN, "replay", log],
            cwd=name,
            env=ENV,
            capture_output=True,
            text=True,
            check=False,
        )
    after_s = back_after_s(list(came_ns), listens_ns)
    limit = args.delay_s + MORE_S
    late = [number for number, it in enumerate(after_s) if it > limit]
    falls = [(a, b) for a, b in itertools.pairwise(ids) if b <= a]
    print(
        f"  back after {statistics.median(after_s):.2f} s (median), {max(after_s):.2f} s at most; "
        f"later than {limit:g} s: {late or 'never'}"
    )
    print(f"  {len(ids):,} pictures; ids that do not rise: {falls or 'none'}")
    print(f"  replay: exit status {replay.returncode}: {(replay.stdout + replay.stderr).strip()}")
    return 1 if late or falls or replay.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
