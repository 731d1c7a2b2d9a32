"""`flowrun ci` of golden runs, and `flowrun bisect` over 64 commits: how long, how many replays.

A film of 30 s at 30 pictures a second is recorded with two tasks that read each picture: how bright it
is, and where it is brightest, which is remembered. The run is copied 20 times, and `flowrun ci` replays
them all, on all cores and with one process. For bisect, a repository gets 64 commits, one of which
changes the task.

    python bench/bench_ci.py [--runs 20] [--seconds 30] [--sizes 640x480 1920x1080] [--no-bisect]

asked for: 20 runs of 30 s in <= 30 s; bisect over 64 commits with <= 7 replays.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

TASKS = """
from flowrun.msgs import FloatMsg, ImageRgb8Msg, IntMsg
from flowrun.runtime.task import Context, Input, Output, Task, task


@task
def level(image: ImageRgb8Msg) -> FloatMsg:
    return FloatMsg(value=float(image.luma.mean()))


class Brightest(Task):
    def start(self, ctx: Context) -> None:
        self.most = 0

    def freeze(self) -> int:
        return self.most

    def thaw(self, state: int) -> None:
        self.most = state

    def process(self, ctx: Context, image: Input[ImageRgb8Msg], column: Output[IntMsg]) -> None:
        self.most = max(self.most, int(image.luma[::8, ::8].sum(axis=0).argmax()))
        column.value = self.most
        column.publish()
"""
GRAPH = """
tasks:
  - {id: cam, type: VideoCapture, config: {source_uri: film.mp4, realtime: false}}
  - {id: level, type: looks.level}
  - {id: brightest, type: looks.Brightest}
cnx:
  - {src: cam, dst: level, msg: ImageRgb8Msg}
  - {src: cam, dst: brightest, msg: ImageRgb8Msg}
"""
COMMITS = 64


def flowrun(folder, *words, may_fail=False):
    done = subprocess.run(
        [sys.executable, "-m", "flowrun.runtime.cli", *map(str, words)],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert may_fail or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_film(path, size, frames):
    """What a camera that does not move sees: a bright square moves, and the sensor's noise with it."""
    width, height = size
    rng = np.random.default_rng(1)
    behind = rng.integers(40, 140, (height // 16, width // 16, 3), np.uint8)
    behind = behind.repeat(16, 0).repeat(16, 1)
    behind = np.pad(behind, ((0, height % 16), (0, width % 16), (0, 0)), "edge").astype(np.int16)
    noise = [rng.normal(0, 2, behind.shape).astype(np.int16) for _ in range(8)]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, width=width, height=height, pix_fmt="yuv420p")
        stream.options = {"preset": "veryfast", "g": "60"}
        side = height // 6
        for number in range(frames):
            pixels = behind + noise[number % 8]
            left = (number * 7) % (width - side)
            pixels[height // 3 : height // 3 + side, left : left + side] = 240
            picture = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode())


def recorded(folder, size, seconds):
    make_film(folder / "film.mp4", size, 30 * seconds)
    (folder / "looks.py").write_text(TASKS)
    (folder / "looks.yaml").write_text(GRAPH)
    flowrun(folder, "run", "looks.yaml", "--port", "-1", "--log-dir", "golden")
    [run] = (it for it in (folder / "golden").iterdir() if it.is_dir())
    return run


def measure_ci(size, runs, seconds):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = recorded(folder, size, seconds)
        mb = sum(it.stat().st_blocks * 512 for it in run.iterdir()) / 1e6
        for number in range(1, runs):
            shutil.copytree(run, run.with_name(f"{run.name}-{number}"))
        for jobs in ((), ("--jobs", "1")):
            begin = time.perf_counter()
            out = flowrun(folder, "ci", *jobs)
            took = time.perf_counter() - begin
            assert f"{runs} recorded runs: all identical" in out, out
            rate = runs * seconds * 30 / took
            print(
                f"{size[0]}x{size[1]}, {runs} runs of {seconds} s ({mb:.1f} MB each), "
                f"{'one process' if jobs else 'all cores'}: {took:.1f} s (<= 30), "
                f"{rate:.0f} pictures a second"
            )


def git(folder, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True)


def measure_bisect(seconds):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = recorded(folder, (640, 480), seconds)
        (folder / ".gitignore").write_text("golden\nfilm.mp4\n")
        git(folder, "init", "-q")
        for number in range(COMMITS + 1):
            code = TASKS if number < 41 else TASKS.replace("luma.mean()", "luma.max()")
            (folder / "looks.py").write_text(f"{code}\n# {number}\n")
            git(folder, "add", ".")
            git(folder, "commit", "-qm", f"Change {number}")
        begin = time.perf_counter()
        out = flowrun(folder, "bisect", run, "--good", f"HEAD~{COMMITS}")
        took = time.perf_counter() - begin
        assert "Change 41" in out, out
        print(f"bisect over {COMMITS} commits of a run of {seconds} s: {took:.1f} s (<= 7 replays)")
        print("  " + out.strip().replace("\n", "\n  "))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--sizes", nargs="+", default=["640x480", "1920x1080"])
    parser.add_argument("--no-bisect", action="store_true")
    args = parser.parse_args()
    for size in args.sizes:
        width, height = map(int, size.split("x"))
        measure_ci((width, height), args.runs, args.seconds)
    if not args.no_bisect:
        measure_bisect(args.seconds)


if __name__ == "__main__":
    main()
