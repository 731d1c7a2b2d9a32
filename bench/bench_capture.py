"""What it costs to get a camera's pictures to a task, beside other programs that do it.

    python bench/bench_capture.py [--only read unread streams latency] [--sizes 1080p 480p]
        [--frames 600] [--rounds 5] [--seconds 10] [--dir DIR]

read: a task reads every frame of a film, with the log off and with the camera's packets in the log.
unread: it gets every frame, and looks at none; with `decode: all`, where each is decoded all the same,
and with `decode: asked`.
streams: how many cameras one core takes that log 30 pictures a second, by what is decoded, and by how
often a task reads a picture.
latency: a live camera of 30 pictures a second; from the decoder to the entry of a task. The floor is a
thread that decodes, puts each picture into a queue, and does nothing else. InferencePipeline converts a
picture before it hands it over: its time begins with the converted picture, and is that of both columns.

The others: PyAV in a loop (the floor decodes, and does no more); OpenCV's `VideoCapture`; the
`InferencePipeline` of streamvision with a model that does nothing. `make bench-peers` installs those
that flowrun does not need into a venv of their own; without it they are left out. Each is a process of
its own; all take turns, and each ratio is that of one round. "CPU" is the work on all cores for one
frame, which other programs on the machine disturb less than the clock. One number alone, quickly:

    python bench/bench_capture.py --only read --sizes 1080p --frames 200 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from camera_films import FPS, SIZES, film_of, mbits, phased_films
from camera_runs import Cameras, losses, measured
from rounds import Samples, in_turns, ratio

from flowrun.runtime.pictures.convert.kernel import is_compiled
from flowrun.tasks.video.settings import VideoSettings

HERE = Path(__file__).resolve().parent
PEERS_PYTHON = HERE.parent / ".venv-peers" / "bin" / "python"
PIPELINE = "InferencePipeline"
LEAST_READ, HOPED_READ, LEAST_UNREAD, MOST_MORE_MIB = 1.0, 1.3, 0.95, 20.0
MOST_P50_MS, MOST_P99_MS = 0.1, 1.0
LEAST_STREAMS = 100
STREAMS = {"all": 4, "keyframes": 50, "asked": 50}
"""What is decoded, and how many cameras are run to measure it."""
MOST_LATE_S = 3.0
"""By how much a camera's packets may be late in the log: those after its last picture are not in it."""


@dataclass(frozen=True)
class Contender:
    """A program of capture_program.py.

    is_logged: whether it writes a log.
    is_peer: whether flowrun is compared with it.
    """

    program: str
    is_logged: bool = False
    is_peer: bool = True

    @property
    def python(self) -> Path:
        needs_peers = self.program.startswith(("cv2", "streamvision"))
        return PEERS_PYTHON if needs_peers else Path(sys.executable)


FLOOR = "PyAV, decoding alone"
READ = {
    FLOOR: Contender("pyav-decode", is_peer=False),
    "PyAV, rgb24": Contender("pyav-rgb24"),
    "cv2.VideoCapture": Contender("cv2-read"),
    PIPELINE: Contender("streamvision"),
    "flowrun, log off": Contender("flowrun-reads", is_peer=False),
    "flowrun, packets": Contender("flowrun-reads", is_logged=True, is_peer=False),
}
UNREAD = {
    FLOOR: Contender("pyav-decode", is_peer=False),
    "cv2 grab": Contender("cv2-grab"),
    "flowrun, log off": Contender("flowrun-unread", is_peer=False),
    "flowrun, packets": Contender("flowrun-unread", is_logged=True, is_peer=False),
    "asked, log off": Contender("flowrun-asked", is_peer=False),
    "asked, packets": Contender("flowrun-asked", is_logged=True, is_peer=False),
}
HANDED_OVER = "PyAV and a queue"
LATENCY = {
    HANDED_OVER: Contender("pyav-live", is_peer=False),
    PIPELINE: Contender("streamvision-live"),
    "flowrun, log off": Contender("flowrun-live", is_peer=False),
    "flowrun, packets": Contender("flowrun-live", is_logged=True, is_peer=False),
}


@dataclass
class Found:
    """What a contender's rounds gave, besides times."""

    answers: list[dict[str, Any]] = field(default_factory=list)

    def median(self, key: str) -> float:
        return statistics.median(answer[key] for answer in self.answers)

    def percentile(self, key: str, q: float) -> float:
        """Of all frames of all rounds."""
        return float(np.percentile([it for answer in self.answers for it in answer[key]], q))


def installed(contenders: dict[str, Contender]) -> dict[str, Contender]:
    """Those that can be run; the others are named."""
    missing = [name for name, it in contenders.items() if not it.python.exists()]
    if missing:
        print(f"  left out, as `make bench-peers` has not been run: {', '.join(missing)}")
    return {name: it for name, it in contenders.items() if name not in missing}


def measure(contender: Contender, source: str, found: Found, *options: str) -> dict[str, Any]:
    """Run a contender once."""
    with tempfile.TemporaryDirectory(dir=OPTIONS.dir) as folder:
        log = ("--log", f"{folder}/run") if contender.is_logged else ()
        words = [HERE / "capture_program.py", contender.program, source, *log, *options]
        done = subprocess.run(
            [contender.python, *words], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"{contender.program} failed:\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    found.answers.append(answer)
    return answer


def compare(
    contenders: dict[str, Contender], film: Path
) -> tuple[dict[str, Found], dict[str, Samples]]:
    """Play the film by each in turns. Samples: seconds of a frame, and of work on one."""
    found = {name: Found() for name in contenders}

    def turn(name: str) -> Callable[[], tuple[list[float], float]]:
        def play() -> tuple[list[float], float]:
            answer = measure(contenders[name], str(film), found[name])
            assert answer["frames"] == OPTIONS.frames, (name, answer["frames"])
            return [1 / answer["fps"]], answer["cpu_ms"]

        return play

    return found, in_turns({name: turn(name) for name in contenders}, OPTIONS.rounds)


def table(contenders: dict[str, Contender], film: Path) -> dict[str, tuple[Found, Samples]]:
    contenders = installed(contenders)
    found, samples = compare(contenders, film)
    peers = [name for name, it in contenders.items() if it.is_peer]
    best = max(peers, key=lambda name: found[name].median("fps"))
    print(
        f"  {'':<22}{'fps':>6}{'CPU ms':>8}{'peak MiB':>10}   rate / floor       rate, CPU / {best}"
    )
    for name in contenders:
        one = found[name]
        to_floor, to_best = (
            ratio(samples[other].totals(), samples[name].totals()) for other in (FLOOR, best)
        )
        work = ratio(samples[name].whole, samples[best].whole)
        print(
            f"  {name:<22}{one.median('fps'):6.0f}{one.median('cpu_ms'):8.2f}"
            f"{one.median('peak_mib'):10.0f}   {to_floor}   {to_best}   {work}"
        )
    return {name: (found[name], samples[name]) for name in contenders}


def median_ratio(one: list[float], other: list[float]) -> float:
    """one / other, round by round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def verdict(what: str, value: float, limit: float, *, at_most: bool = False) -> None:
    reached = value <= limit if at_most else value >= limit
    sign = "<=" if at_most else ">="
    print(f"  {what}: {value:.2f}, wanted {sign} {limit:g}: {'reached' if reached else 'MISSED'}")


def bench_read() -> None:
    for size in OPTIONS.sizes:
        film = film_of(size, OPTIONS.frames)
        print(f"\nevery frame read: {size}, {OPTIONS.frames} frames, {mbits(film):.1f} Mbit/s")
        found = table(READ, film)
        if PIPELINE not in found:
            continue
        pipeline, theirs = found[PIPELINE]
        for name in ("flowrun, log off", "flowrun, packets"):
            ours, samples = found[name]
            rate = median_ratio(theirs.totals(), samples.totals())
            verdict(f"{name}, rate / {PIPELINE} (then {HOPED_READ:g})", rate, LEAST_READ)
            work = median_ratio(samples.whole, theirs.whole)
            verdict(f"{name}, CPU / {PIPELINE}", work, 1 / LEAST_READ, at_most=True)
            more = ours.median("peak_mib") - pipeline.median("peak_mib")
            verdict(f"{name}, MiB more than {PIPELINE}", more, MOST_MORE_MIB, at_most=True)


def bench_unread() -> None:
    for size in OPTIONS.sizes:
        film = film_of(size, OPTIONS.frames)
        print(f"\nno frame read: {size}, {OPTIONS.frames} frames, {mbits(film):.1f} Mbit/s")
        found = table(UNREAD, film)
        for name in list(UNREAD)[2:]:
            samples, floor = found[name][1], found[FLOOR][1]
            rate = median_ratio(floor.totals(), samples.totals())
            verdict(f"{name}, rate / {FLOOR}", rate, LEAST_UNREAD)
            work = median_ratio(samples.whole, floor.whole)
            verdict(f"{name}, CPU / {FLOOR}", work, 1 / LEAST_UNREAD, at_most=True)


def bench_latency() -> None:
    for size in OPTIONS.sizes:
        film = film_of(size, OPTIONS.frames)
        print(
            f"\na live camera, {size} at {FPS} pictures a second: ms since the picture was decoded"
        )
        contenders = installed(LATENCY)
        found = {name: Found() for name in contenders}
        with live_camera(film) as address:
            for _ in range(OPTIONS.rounds):
                for name, it in contenders.items():
                    measure(it, address, found[name], "--live", str(OPTIONS.seconds))
        print(f"  {'':<22}{'task entered':>20}{'its pixels made':>24}{'CPU ms a frame':>18}")
        for name, one in found.items():
            shown = [
                f"p50 {one.percentile(key, 50):6.2f} p99 {one.percentile(key, 99):6.2f}"
                for key in ("entered_ms", "pixels_ms")
            ]
            print(f"  {name:<20}{shown[0]:>22}{shown[1]:>24}{one.median('cpu_ms'):18.2f}")
        if size == "1080p":
            one = found["flowrun, packets"]
            p50, floor = (it.percentile("entered_ms", 50) for it in (one, found[HANDED_OVER]))
            verdict("p50 of the entry", p50, MOST_P50_MS, at_most=True)
            verdict("p99 of the entry", one.percentile("entered_ms", 99), MOST_P99_MS, at_most=True)
            print(f"  p50 of the entry / {HANDED_OVER}: {p50 / floor:.2f}")
            if floor > MOST_P50_MS:
                print(f"  {MOST_P50_MS:g} ms is out of reach here: {HANDED_OVER} takes {floor:.2f}")


def bench_streams() -> None:
    film = film_of("1080p", OPTIONS.frames)
    print(
        f"\ncameras that one core takes, 1080p at {FPS} pictures a second, {mbits(film):.1f} Mbit/s, "
        f"all packets logged; each run has as many as are in brackets"
    )
    print(f"  {'a picture is read every':<26}{'1 s':>14}{'2 s':>14}{'10 s':>14}")
    for decode in get_args(VideoSettings.model_fields["decode"].annotation):
        count = STREAMS[decode]
        cells, least = [], []
        for answer_s in (1.0, 2.0, 10.0):
            cores = statistics.median(
                streams(film, decode, count, answer_s) for _ in range(OPTIONS.rounds)
            )
            least.append(count / cores)
            cells.append(f"{least[-1]:8.0f} ({count})".rjust(14))
        print(f"  decode: {decode:<18}{''.join(cells)}")
        if decode == "keyframes":
            verdict("decode: keyframes", min(least), LEAST_STREAMS)


def streams(film: Path, decode: str, count: int, answer_s: float) -> float:
    """How many cores the cameras use."""
    with tempfile.TemporaryDirectory(dir=OPTIONS.dir) as name:
        folder = Path(name)
        films = phased_films(film, count, folder)
        config = {"realtime": True, "loop": True, "decode": decode}
        cameras = Cameras([str(it) for it in films], config, answer_s=answer_s)
        usage = measured(cameras, folder, settle_s=3, seconds=OPTIONS.seconds)
        [log] = (folder / "runs").glob("[!.]*")
        lossy = [one for one in losses(log, cameras, film) if one.gaps or one.late_s > MOST_LATE_S]
        if lossy:
            print(
                f"  NOT ALL LOGGED: decode: {decode}, {len(lossy)} cameras; one of them: {lossy[0]}"
            )
    return usage.cpu_s / usage.at_s


@contextmanager
def live_camera(film: Path) -> Iterator[str]:
    """The address of a camera that plays the film at its own time."""
    with subprocess.Popen(
        [sys.executable, HERE / "live_film.py", film], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/"
        finally:
            server.terminate()


PARTS = {
    "read": bench_read,
    "unread": bench_unread,
    "streams": bench_streams,
    "latency": bench_latency,
}
OPTIONS = argparse.Namespace()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--frames", type=int, default=600, help="of the film")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of streams and latency, a round")
    parser.add_argument("--dir", type=Path, help="where the logs go for a while")
    parser.parse_args(namespace=OPTIONS)
    if not is_compiled():
        print("flowrun's conversion is not compiled here: it is NumPy's, and slow")
    for name in OPTIONS.only:
        PARTS[name]()


if __name__ == "__main__":
    main()
