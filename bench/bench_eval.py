"""`flowrun eval` against the model alone: recorded frames a second, and again from the cache.

A run is recorded in which the shipped model answers about each frame. Then the same frames are asked
about by the bare model, in as many processes, from pixels that are in memory; by `flowrun eval`; and
by `flowrun eval` again, which finds all answers in its cache.

    python bench/bench_eval.py [--frames 1000] [--processes N]

asked for: eval >= 0.95 of the bare model's speed; from the cache >= 100 times quicker. On a machine that
does other things, look at CPU time a frame.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av

AGAIN = 9
"""How often the command is run again: so short a one, others' work on the machine changes most."""

GRAPHS = Path(__file__).resolve().parent.parent / "graphs"
GRAPH = """
tasks:
  - id: cam
    type: VideoCapture
    config: {source_uri: FILM, realtime: false}
  - id: inference
    type: Inference
    config: {backend: embedded, prompt: cap en}
cnx:
  - {src: cam, dst: inference, msg: ImageRgb8Msg}
"""


def make_film(path, frames):
    """The pictures of the shipped film, one after the other and again, as one film."""
    with av.open(str(GRAPHS / "media" / "shapes.mp4")) as film:
        pictures = [it.to_ndarray(format="rgb24") for it in film.decode(video=0)]
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, width=width, height=height, pix_fmt="yuv420p")
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(pictures[number % len(pictures)], format="rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode())


def bare(run, first, frames, ready, go, queue):
    import torch

    torch.set_num_threads(1)
    from flowrun.runtime.log.reader import Log
    from flowrun.tasks.embedded import MODEL_DIR
    from flowrun.tasks.models.vlm import VisionLanguageModel

    begin = time.perf_counter()
    model = VisionLanguageModel.load(MODEL_DIR, device="cpu", dtype="auto", local_files_only=True)
    with Log(run) as log:
        pictures = [it.pixels.copy() for it in log.frames("/cam/image", first, first + frames)]
    model.answer(pictures[0], "cap en", max_new_tokens=2)
    queue.put(time.perf_counter() - begin)
    ready.release()
    go.wait()
    begin = time.perf_counter()
    for pixels in pictures:
        model.answer(pixels, "cap en", max_new_tokens=50)
    queue.put(time.perf_counter() - begin)


def bare_rate(run, frames, processes):
    context = multiprocessing.get_context("spawn")
    ready, go, queue = context.Semaphore(0), context.Event(), context.Queue()
    share = frames // processes
    workers = [
        context.Process(target=bare, args=(run, k * share, share, ready, go, queue))
        for k in range(processes)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        ready.acquire()
    begin = time.perf_counter()
    go.set()
    for worker in workers:
        worker.join()
    return share * processes / (time.perf_counter() - begin)


def evaluated(run, folder, processes):
    """Answers a second from the first answer to the last, and the seconds of the whole command."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from flowrun.tasks.evaluation.evaluate import evaluate\n"
        "from flowrun.tasks.evaluation.variants import variants_of\n"
        "from flowrun.runtime.testbench.store import Store\n"
        "times = []\n"
        "if __name__ == '__main__':\n"
        "    with Store(Path(sys.argv[2])) as store:\n"
        "        def note(done, _):\n"
        "            times.append((time.perf_counter(), done))\n"
        "        evaluate([Path(sys.argv[1])], variants_of([], [], ['cap en']), store=store,\n"
        "                 processes=int(sys.argv[3]), progress=note)\n"
        "    (first, n), (last, m) = times[1], times[-1]\n"
        "    print((m - n) / (last - first))\n"
    )
    script = folder / "evaluated.py"
    script.write_text(code)
    words = [sys.executable, str(script), str(run), str(folder / "a.sqlite"), str(processes)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def cpu_ms(run, frames):
    """CPU time of the bare model and of what a process of eval does, in ms a frame; one thread each."""
    import torch

    torch.set_num_threads(1)
    from flowrun.runtime.log.reader import Log
    from flowrun.tasks.embedded import MODEL_DIR
    from flowrun.tasks.evaluation.asking import Piece, worker
    from flowrun.tasks.models.vlm import VisionLanguageModel

    model = VisionLanguageModel.load(MODEL_DIR, device="cpu", dtype="auto", local_files_only=True)
    with Log(run) as log:
        pictures = [it.pixels.copy() for it in log.frames("/cam/image", 0, frames)]
    asked = [(number, number, 0) for number in range(frames)]
    piece = Piece(run, True, "inference", "answer", "", "/cam/image", {}, ("cap en",), asked, 1)
    ask, found = worker(), []

    def bare():
        for pixels in pictures:
            model.answer(pixels, "cap en", max_new_tokens=50)

    times = []
    for part in (bare, lambda: ask(piece, found.append)) * 2:  # the first time loads and warms up
        begin = time.process_time()
        part()
        times.append((time.process_time() - begin) * 1e3 / frames)
    assert all("error" not in answer for _, answer in found)
    return times[2:]


def command_s(run, store, processes):
    """The command as an installation runs it: with the bytecode of its modules on the disk."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    words = [sys.executable, "-m", "flowrun.runtime.cli", "eval", str(run), "--prompt", "cap en"]
    words += ["--cache", str(store), "--processes", str(processes), "--json"]
    begin = time.perf_counter()
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=env)
    took = time.perf_counter() - begin
    found = json.loads(done.stdout)
    return took, found["known"], found["asked"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--run", type=Path, help="a run that was recorded before, in place of a new one"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = args.run
        if run is None:
            graph = folder / "eval.yaml"
            make_film(folder / "film.mp4", args.frames)
            graph.write_text(GRAPH.replace("FILM", str(folder / "film.mp4")))
            words = [sys.executable, "-m", "flowrun.runtime.cli", "run", str(graph)]
            words += [
                "--cycles",
                str(args.frames),
                "--log-dir",
                str(folder / "runs"),
                "--port",
                "-1",
            ]
            subprocess.run(words, check=True, capture_output=True)
            [run] = (it for it in (folder / "runs").iterdir() if it.is_dir())
        rate = bare_rate(run, args.frames, args.processes)
        print(f"bare model: {rate:.1f} frames a second in {args.processes} processes")
        own = evaluated(run, folder, args.processes)
        print(f"eval:       {own:.1f}, {own / rate:.3f} of it (>= 0.95)")
        alone, whole = cpu_ms(run, min(50, args.frames))
        print(
            f"CPU a frame: bare {alone:.1f} ms, eval {whole:.1f} ms: {alone / whole:.3f} (>= 0.95)"
        )
        first, _, asked = command_s(run, folder / "b.sqlite", args.processes)
        again = []
        for _ in range(AGAIN):
            took, known, _ = command_s(run, folder / "b.sqlite", args.processes)
            again.append(took)
        middle = statistics.median(again)
        print(
            f"the command: {first:.1f} s ({asked} asked), again {middle:.2f} s, the median of {AGAIN} "
            f"from {min(again):.2f} to {max(again):.2f} ({known} known): {first / middle:.0f}x (>= 100)"
        )


if __name__ == "__main__":
    main()
