"""How fast a run without a model replays, and what it costs to seek in a log.

    python bench/bench_replay.py [--frames 90] [--cycles 1000 10000 100000 1000000] [--dir DIR]

Replay: 1080p pictures from the log through a task that looks at them, against the 30 a second of the
camera; logged as pixels, and as the H.264 packets of a film. Jumping: `Replay.seek` to random cycles
of runs of more and more cycles with a keyframe every 100, and how much of it is running the cycles
from the keyframe on again. Seeking: a cycle by its number and one by its time, at random places, in
logs of more and more cycles; of a finished log and, "cut off", of one whose writer was killed. "open"
is the first thing that every command pays. The files are in the page cache: the machine's disk is not
what is measured.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from flowrun.msgs import FloatMsg, ImageRgb8Msg, IntMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.pictures.video import RgbConverter
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig

HEIGHT, WIDTH, FPS = 1080, 1920, 30
PERIOD_NS = 1_000_000_000 // FPS
SEEKS = 200
ROUNDS = 3
TARGET_SPEED, TARGET_SEEK_MS = 5, 200

GRAPH = """
tasks:
  - {{id: cam0, type: {camera}}}
  - {{id: light, type: bench_replay.Brightness}}
cnx: [{{src: cam0, dst: light, msg: ImageRgb8Msg}}]
logging: {{slab_size_mib: 1024, section_size_mib: 100}}
"""


JUMPS = """
tasks:
  - {{id: n, type: Counter, config: {{limit: {cycles}}}}}
  - {{id: square, type: Square}}
  - {{id: total, type: bench_replay.Total}}
cnx: [{{src: n, dst: square, msg: IntMsg}}, {{src: square, dst: total, msg: IntMsg}}]
logging: {{slab_size_mib: 256, section_size_mib: 64}}
"""


class Frames(Task):
    """1080p pictures, each of another brightness."""

    class Config(TaskConfig):
        frames: int

    def start(self, ctx: Context) -> None:
        self.next = 0

    def process(self, ctx: Context, image: Output[ImageRgb8Msg]) -> None:
        image.allocate("pixels", (HEIGHT, WIDTH, 3))[:] = self.next % 256
        image.publish()
        self.next += 1
        if self.next == self.config.frames:
            ctx.finish()


class Brightness(Task):
    """The mean of every eighth pixel, followed slowly."""

    def start(self, ctx: Context) -> None:
        self.level = 0.0

    def process(self, ctx: Context, image: Input[ImageRgb8Msg], level: Output[FloatMsg]) -> None:
        self.level += 0.1 * (float(image.pixels[::8, ::8].mean()) - self.level)
        level.value = self.level
        level.publish(tov_ns=image.tov_ns)


class Total(Task):
    """The sum of all that came: a state."""

    def start(self, ctx: Context) -> None:
        self.total = 0

    def process(self, ctx: Context, number: Input[IntMsg], total: Output[IntMsg]) -> None:
        self.total += number.value
        total.value = self.total
        total.publish()

    def freeze(self) -> int:
        return self.total

    def thaw(self, state: int) -> None:
        self.total = state


def draw_film(path: Path, frames: int) -> Path:
    """Moving noise over gradients, some 8 Mbit/s: as hard to decode as a camera's street."""
    noise = np.random.default_rng(0).integers(0, 24, (HEIGHT, WIDTH, 3), np.uint8)
    ramp = np.linspace(20, 200, WIDTH, dtype=np.uint8)[None, :, None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"preset": "veryfast", "bf": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate, stream.gop_size = 8_000_000, FPS
        for k in range(frames):
            pixels = ramp + np.roll(noise, (3 * k, 7 * k), axis=(0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def run_graph(text: str, directory: Path) -> None:
    graph = parse_graph(text, path=Path(__file__).parent / "bench.yaml", env={})
    run = Run(plan_graph(bind(graph)), clock=ManualClock(0, step_ns=PERIOD_NS), directory=directory)
    result = run.run()
    assert result.error is None, result.error


def replay_speed(folder: Path, frames: int, camera: str) -> tuple[float, list[float]]:
    """Seconds of the recording, and of each round's replay of it."""
    run_graph(GRAPH.format(camera=camera), folder / "video")
    seconds = []
    for _ in range(ROUNDS):
        with Log(folder / "video") as log:
            replay = Replay(log, env={})
            begin = time.perf_counter()
            report = replay.run()
            seconds.append(time.perf_counter() - begin)
        assert report.identical
        assert report.per_task == {"light": frames}, report
    shutil.rmtree(folder / "video")
    return frames / FPS, seconds


def jump_ms(folder: Path, cycles: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of `Replay.seek` to random cycles, and of the part that runs cycles again."""
    run_graph(JUMPS.format(cycles=cycles), folder / "jumps")
    places = random.Random(7)
    in_all, running = [], []
    with Log(folder / "jumps") as log, Replay(log, env={}) as replay:
        for _ in range(SEEKS):
            cycle = places.randrange(cycles)
            begin = time.perf_counter()
            replay.seek(cycle)
            in_all.append((time.perf_counter() - begin) * 1e3)
            assert replay.cycle == cycle
            replay.seek(cycle - cycle % 100)
            begin = time.perf_counter()
            replay.seek(cycle)
            running.append((time.perf_counter() - begin) * 1e3)
            replay.next_cycle()
            assert replay.differences == []
    shutil.rmtree(folder / "jumps")
    return np.array(in_all), np.array(running)


def bare_seconds(film: Path) -> float:
    """Decoding the film and converting its pictures, as a replay must, and nothing else."""
    converter = RgbConverter()
    begin = time.perf_counter()
    with av.open(str(film)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for picture in container.decode(video=0):
            converter.rgb(picture)
    return time.perf_counter() - begin


def write_log(folder: Path, cycles: int) -> tuple[Path, Path]:
    """A log of `cycles` cycles, one whole and one as its writer's death would have left it."""
    whole, cut_off = folder / "whole", folder / "cut_off"
    outputs = [
        LoggedOutput("n", "out", "/n/out", IntMsg),
        LoggedOutput("m", "out", "/m/out", FloatMsg),
    ]
    writer = LogWriter(
        whole, outputs=outputs, steps=2, metadata={}, slab_size_mib=16, section_size_mib=4
    )
    number, level = IntMsg(), FloatMsg()
    bound = writer.bind([number, level])
    for cycle in range(cycles):
        number.value, level.value = cycle, cycle / 2
        number.publish(tov_ns=cycle)
        level.publish(tov_ns=cycle)
        writer.commit(cycle, (cycle + 1) * PERIOD_NS, bound, start_ns=0, ends_ns=[0, 0], events=[])
    shutil.copytree(whole, cut_off, ignore=shutil.ignore_patterns(".lock"))
    writer.finish({"reason": "bench"})
    return whole, cut_off


def seek_ms(path: Path, cycles: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Milliseconds to open the log, to reach cycles by number and by time."""
    places = random.Random(7)
    wanted = [0, cycles - 1, *(places.randrange(cycles) for _ in range(SEEKS - 2))]
    begin = time.perf_counter()
    with Log(path) as log:
        opened = (time.perf_counter() - begin) * 1e3
        by_number, by_time = [], []
        for cycle in wanted:
            begin = time.perf_counter()
            found = log[cycle]
            by_number.append((time.perf_counter() - begin) * 1e3)
            assert found.cycle == cycle
            begin = time.perf_counter()
            found = next(log.cycles(start_ns=(cycle + 1) * PERIOD_NS))
            by_time.append((time.perf_counter() - begin) * 1e3)
            assert found.cycle == cycle
        assert log.loss is None
    return opened, np.array(by_number), np.array(by_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--cycles", type=int, nargs="+", default=[10**n for n in range(3, 7)])
    parser.add_argument("--dir", type=Path, help="where the logs go for a while")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        film = draw_film(folder / "film.mp4", args.frames)
        print(
            f"replay of {args.frames} frames, 1080p at {FPS} a second, no model; target {TARGET_SPEED}x"
        )
        for kind, camera in (
            ("pixels", f"bench_replay.Frames, config: {{frames: {args.frames}}}"),
            ("packets", f"VideoCapture, config: {{source_uri: {film}}}"),
        ):
            recorded, seconds = replay_speed(folder, args.frames, camera)
            print(
                f"  {kind:<8} recorded {recorded:6.2f} s, replayed in "
                f"{' '.join(f'{it:.2f}' for it in seconds)} s: "
                f"{' '.join(f'{recorded / it:.1f}x' for it in seconds)}"
            )
        bare = [bare_seconds(film) for _ in range(ROUNDS)]
        print(
            f"  a loop of PyAV alone, decoding and converting: {' '.join(f'{it:.2f}' for it in bare)} s"
        )
        print(f"\njumping, ms; {SEEKS} places, target {TARGET_SEEK_MS} ms without running again")
        print(
            f"{'cycles':>10}{'all p50':>10}{'p99':>8}{'max':>8}{'run p50':>10}{'p99':>8}{'rest p50':>10}"
        )
        for cycles in args.cycles:
            whole, run = jump_ms(folder, cycles)
            print(
                f"{cycles:>10,}{np.median(whole):>10.2f}{np.percentile(whole, 99):>8.2f}"
                f"{whole.max():>8.2f}{np.median(run):>10.2f}{np.percentile(run, 99):>8.2f}"
                f"{np.median(whole - run):>10.2f}"
            )
        print(f"\nseeking, ms; {SEEKS} places, target {TARGET_SEEK_MS} ms in 100,000 cycles")
        print(f"{'':>29}{'by number':>24}{'by time':>24}")
        heads = f"{'p50':>8}{'p99':>8}{'max':>8}"
        print(f"{'cycles':>10}  {'log':<8}{'open':>9}{heads}{heads}")
        for cycles in args.cycles:
            paths = write_log(folder, cycles)
            for path in paths:
                opened, *columns = seek_ms(path, cycles)
                cells = "".join(
                    f"{np.median(it):8.2f}{np.percentile(it, 99):8.2f}{it.max():8.2f}"
                    for it in columns
                )
                print(f"{cycles:>10,}  {path.name.replace('_', ' '):<8}{opened:>9.2f}{cells}")
            for path in paths:
                shutil.rmtree(path)


if __name__ == "__main__":
    main()
