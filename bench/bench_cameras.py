"""Whether many cameras can be logged for long: nothing lost, memory flat, one core at most.

    python bench/bench_cameras.py [--cameras 100] [--minutes 1] [--from files|rtsp] [--size 1080p]
        [--decode keyframes] [--answer-s 10] [--dir DIR]

Each camera sends 30 pictures a second, all of which are logged as they came, and a task reads one of
them every `--answer-s` seconds. files: a film that each plays in a loop, at its own speed and from a
place of its own. rtsp: a server of GStreamer plays it to each (its work does not count). The run is the
command `flowrun`, looked at from outside: a line a minute. Then the pictures in the log are compared
with the film's, byte by byte. Exits with 1 if a limit was missed. 100 cameras of 1080p write 2.6 GB a
minute.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from camera_films import FPS, SIZES, film_of, long_film, mbits, phased_films
from camera_runs import Cameras, Usage, Watched, losses, rtsp_server, running

MOST_CORES = 1.0
MOST_GROWN_MIB = 16.0
"""By how much the last quarter's memory may be above that of the quarter after the first."""
MOST_LATE_S = 3.0
"""By how much a camera's packets may be fewer than its time says: the last ones wait for a picture."""
FILM_S = 20
PHASES = 20
"""How many films there are, whose key frames come at other times."""
SETTLE_S = 10.0
"""Seconds that do not count: the cameras' first pictures come all at once."""
LOOK_S = 1.0


@contextmanager
def cameras_of(args: argparse.Namespace, film: Path, folder: Path) -> Iterator[Cameras]:
    shared = {"decode": args.decode}
    if args.source == "files":
        films = phased_films(film, min(args.cameras, PHASES), folder)
        sources = [str(films[number % len(films)]) for number in range(args.cameras)]
        yield Cameras(sources, {**shared, "realtime": True, "loop": True}, answer_s=args.answer_s)
        return
    # Cameras that connect late play on while the first ones end.
    longer = long_film(film, folder / "long.mp4", 60 * args.minutes + 60 + args.cameras)
    with rtsp_server(longer) as port:
        addresses = [f"rtsp://127.0.0.1:{port}/cam{number}" for number in range(args.cameras)]
        yield Cameras(addresses, shared, answer_s=args.answer_s)


def watch(watched: Watched, minutes: float) -> list[Usage]:
    """What the run uses, second by second; prints a line a minute."""
    print(f"  {'minute':>6}{'cores':>8}{'MiB':>8}{'log MiB':>9}")
    time.sleep(SETTLE_S)
    seen = [watched.usage()]
    minute = seen[0]
    while seen[-1].at_s - seen[0].at_s < 60 * minutes:
        time.sleep(LOOK_S)
        seen.append(watched.usage())
        if seen[-1].at_s - minute.at_s >= 60 or seen[-1].at_s - seen[0].at_s >= 60 * minutes:
            last = seen[-1]
            print(
                f"  {(last.at_s - seen[0].at_s) / 60:6.1f}{cores(minute, last):8.2f}"
                f"{last.memory_mib:8.0f}{watched.log_mib():9.0f}",
                flush=True,
            )
            minute = last
    return seen


def cores(first: Usage, last: Usage) -> float:
    return (last.cpu_s - first.cpu_s) / (last.at_s - first.at_s)


def grown_mib(seen: list[Usage]) -> float:
    """By how much the memory of the last quarter is above that of the second."""
    quarter = max(1, len(seen) // 4)
    early, late = seen[quarter : 2 * quarter], seen[-quarter:]
    return statistics.median(it.memory_mib for it in late) - statistics.median(
        it.memory_mib for it in early
    )


def check(what: str, value: float, limit: float) -> bool:
    reached = value <= limit
    print(f"  {what}: {value:.2f}, wanted <= {limit:g}: {'reached' if reached else 'MISSED'}")
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--from", dest="source", choices=["files", "rtsp"], default="files")
    parser.add_argument("--size", choices=SIZES, default="1080p")
    parser.add_argument("--decode", default="keyframes")
    parser.add_argument("--answer-s", type=float, default=10.0)
    parser.add_argument("--dir", type=Path, help="where the log goes for a while")
    args = parser.parse_args()
    film = film_of(args.size, FILM_S * FPS)
    print(
        f"{args.cameras} cameras from {args.source}, {args.size}, {mbits(film):.1f} Mbit/s, decode: "
        f"{args.decode}, a picture of each read every {args.answer_s:g} s",
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        with cameras_of(args, film, folder) as cameras, running(cameras, folder) as watched:
            seen = watch(watched, args.minutes)
        found = losses(watched.log, cameras, film)
    packets = sum(one.packets for one in found)
    gaps = [(number, gap) for number, one in enumerate(found) for gap in one.gaps]
    for number, gap in gaps[:10]:
        print(f"  camera {number}: {gap}")
    pixels = sum(one.pixels for one in found)
    print(f"  in the log: {packets:,} packets, and {pixels:,} pictures as pixels")
    held = [
        check("packets lost or doubled", len(gaps), 0),
        check("the camera that is latest, s", max(one.late_s for one in found), MOST_LATE_S),
        check("cores", cores(seen[0], seen[-1]), MOST_CORES),
        check("memory grown, MiB", grown_mib(seen), MOST_GROWN_MIB),
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
