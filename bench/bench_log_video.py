"""What it costs to log a camera as its own packets: disk, pictures a second, and time to replay.

    python bench/bench_log_video.py [--seconds 10] [--rounds 5] [--dir DIR]

A 1080p30 film of H.264 is played by a VideoCapture into a task that does nothing, as fast as it goes:
logged as packets, as pixels, and not at all; and by loops of PyAV alone that decode and convert it,
with the conversion that a log needs (the same bytes on every machine) and with PyAV's usual one. All
take turns, and each ratio is that of one round. "work" is processor time on all cores, which other
programs on the machine disturb less than the clock. Disk is the whole log, compared with the bytes of
the film's own packets.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
from bench_replay import FPS, PERIOD_NS, draw_film
from rounds import in_turns, ratio

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.pictures.video import RgbConverter
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Input, Task

GRAPH = """
tasks:
  - {{id: cam0, type: VideoCapture, config: {{source_uri: {film}}}, logging: {{codec: {codec}}}}}
  - {{id: nothing, type: {module}.Nothing}}
cnx: [{{src: cam0, dst: nothing, msg: ImageRgb8Msg}}]
logging: {{slab_size_mib: 1024, section_size_mib: 100}}
"""
REPLAYED = """
tasks:
  - {{id: cam0, type: VideoCapture, config: {{source_uri: {film}}}}}
  - {{id: light, type: bench_replay.Brightness}}
cnx: [{{src: cam0, dst: light, msg: ImageRgb8Msg}}]
"""
MOST_DISK, LEAST_RATE, LEAST_REPLAY = 1.1, 0.97, 5.0
WARM_UP = 30
"""Pictures before the clock starts: opening the film and the first slab is paid once a run."""


class Nothing(Task):
    """Takes a picture; notes the time, and what all of the process has worked."""

    times: list[tuple[float, float]]

    def start(self, ctx: Context) -> None:
        type(self).times = []

    def process(self, ctx: Context, image: Input[ImageRgb8Msg]) -> None:
        self.times.append((time.perf_counter(), time.process_time()))


def run_graph(text: str, directory: Path | None) -> None:
    graph = parse_graph(text, path=Path(__file__).parent / "bench.yaml", env={})
    plan = plan_graph(bind(graph))
    result = Run(plan, clock=ManualClock(0, step_ns=PERIOD_NS), directory=directory).run()
    assert result.error is None, result.error


def taken(times: list[tuple[float, float]]) -> tuple[list[float], float]:
    """Seconds from picture `WARM_UP` to the last: by the clock, and of work on all cores."""
    (begin, worked), (end, worked_to) = times[WARM_UP], times[-1]
    return [end - begin], worked_to - worked


def logged(film: Path, folder: Path, codec: str | None) -> tuple[list[float], float]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        text = GRAPH.format(film=film, codec=codec or "raw", module=__name__)
        run_graph(text, None if codec is None else Path(name) / "run")
    return taken(Nothing.times)


def bare(film: Path, convert: Callable[[object], object]) -> tuple[list[float], float]:
    """A loop of PyAV."""
    times = []
    with av.open(str(film)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for picture in container.decode(video=0):
            convert(picture)
            times.append((time.perf_counter(), time.process_time()))
    return taken(times)


def stream_size(film: Path) -> int:
    with av.open(str(film)) as container:
        return sum(packet.size for packet in container.demux(video=0))


def disk(film: Path, folder: Path) -> None:
    run_graph(GRAPH.format(film=film, codec="packets", module=__name__), folder / "disk")
    with Log(folder / "disk") as log:
        kinds = {StoredPicture.parse(it.payload).own["codec"] for it in log.messages("/cam0/image")}
        payloads = sum(len(message.payload) for message in log.messages("/cam0/image"))
    assert kinds == {"packets"}, kinds
    size = sum(path.stat().st_size for path in (folder / "disk").glob("*.mcap"))
    stream = stream_size(film)
    print(
        f"disk: log {size:,} bytes, of which the camera's messages {payloads:,}; packets of the film "
        f"{stream:,}: {size / stream:.3f}x (wanted <= {MOST_DISK})"
    )


def rates(film: Path, folder: Path, rounds: int, frames: int) -> None:
    converter = RgbConverter()
    bare_name = "PyAV, same conversion"
    found = in_turns(
        {
            bare_name: lambda: bare(film, converter.rgb),
            "PyAV, usual conversion": lambda: bare(film, lambda it: it.to_ndarray(format="rgb24")),
            "flowrun, no log": lambda: logged(film, folder, None),
            "flowrun, packets": lambda: logged(film, folder, "packets"),
            "flowrun, pixels": lambda: logged(film, folder, "raw"),
        },
        rounds,
    )
    print(
        f"\npictures a second, {frames} of 1080p, {rounds} rounds (wanted: packets >= {LEAST_RATE} "
        f"of {bare_name})"
    )
    count = frames - WARM_UP - 1
    for name, samples in found.items():
        seconds = samples.totals()
        print(
            f"  {name:<24}{count / statistics.median(seconds):8.1f}   rate / bare: "
            f"{ratio(found[bare_name].totals(), seconds)}   work "
            f"{1e3 * statistics.median(samples.whole) / count:.1f} ms a picture, / bare: "
            f"{ratio(samples.whole, found[bare_name].whole)}"
        )


def replay(film: Path, folder: Path, rounds: int, frames: int) -> None:
    run_graph(REPLAYED.format(film=film), folder / "video")
    seconds = []
    for _ in range(rounds):
        with Log(folder / "video") as log:
            begin = time.perf_counter()
            report = Replay(log, env={}).run()
            seconds.append(time.perf_counter() - begin)
        assert report.identical
        assert report.compared == frames
    speeds = [frames / FPS / it for it in seconds]
    print(
        f"\nreplay: {statistics.median(speeds):.1f}x real time ({min(speeds):.1f}-{max(speeds):.1f}; "
        f"wanted >= {LEAST_REPLAY:g})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where the film and the logs go for a while")
    args = parser.parse_args()
    frames = round(args.seconds * FPS)
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        film = draw_film(folder / "film.mp4", frames)
        print(f"film: {frames} frames, {8e-6 * stream_size(film) / args.seconds:.1f} Mbit/s")
        disk(film, folder)
        rates(film, folder, args.rounds, frames)
        replay(film, folder, args.rounds, frames)


if __name__ == "__main__":
    main()
