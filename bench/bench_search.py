"""`flowrun search`: how often it finds what is asked for, and how soon among 100,000 pictures.

Recall: a film of held-out scenes is recorded, one picture each, without a model. A text is right where
all that it names is in the scene: a caption, "red circle", "red circle on the left", two objects. A
picture asks for its scene: the same objects, a little moved, before another background, after a camera's
troubles (noise, blur, poor JPEG and H.264, ...). Of the five best, the part that is right: of as many as
there are right ones, up to five.

Speed: an index of 100,000 vectors and captions, asked in this process, its files in the page cache.

    python bench/bench_search.py [--scenes 400] [--pictures 100000] [--only recall|speed]

asked for: recall@5 >= 0.95 for texts and for pictures; each question < 100 ms (p99).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from PIL import Image

from flowrun.tasks.embedded.training import backgrounds
from flowrun.tasks.embedded.training.cameras import TROUBLES
from flowrun.tasks.embedded.training.scenes import (
    caption,
    draw,
    make_scene,
    moved,
    stand_off,
    with_article,
)
from flowrun.tasks.search.index import Index

SEEDS = range(800_000, 900_000)
"""Of held-out scenes that nothing else draws."""
CANVAS = (320, 240)
GRAPH = """
tasks:
  - {id: cam, type: VideoCapture, config: {source_uri: FILM, realtime: false}}
"""


def film(path, pictures):
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=1, width=width, height=height, pix_fmt="yuv420p")
        for pixels in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())


def recorded(folder, scenes):
    film(folder / "film.mp4", [draw(it) for it in scenes])
    graph = folder / "film.yaml"
    graph.write_text(GRAPH.replace("FILM", str(folder / "film.mp4")))
    command("run", graph, "--log-dir", folder / "runs", "--port", "-1")
    return folder / "runs"


def command(*words):
    done = subprocess.run(
        [sys.executable, "-m", "flowrun.runtime.cli", *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def other_view(scene, number):
    """The scene as another camera sees it."""
    rng = np.random.default_rng(scene.seed)
    shifted = moved(scene, [tuple(rng.uniform(-0.012, 0.012, 2)) for _ in scene.objects])
    for seed in range(scene.seed + 50_000, scene.seed + 51_000):
        other = make_scene(seed, canvas=CANVAS)
        view = replace(shifted, background=other.background, gain=other.gain, noise=other.noise)
        behind = np.array([[other.background.first]], np.float32).repeat(CANVAS[1], 0)
        if stand_off(behind.repeat(CANVAS[0], 1), view.objects):
            break
    name = list(TROUBLES)[number % len(TROUBLES)]
    return TROUBLES[name](draw(view, noise_seed=1), rng)


def questions(scene, rng):
    """Texts about a scene, and what a scene must have for each."""
    yield "caption", caption(scene), lambda it: caption(it) == caption(scene)
    if not scene.objects:
        return
    one = scene.objects[int(rng.integers(len(scene.objects)))]
    yield "one object", one.name, lambda it: any(o.name == one.name for o in it.objects)
    yield (
        "object and place",
        f"{with_article(one.name)} {one.place}",
        lambda it: any((o.name, o.place) == (one.name, one.place) for o in it.objects),
    )
    if len(scene.objects) > 1:
        a, b = scene.objects[:2]
        yield (
            "two objects",
            f"{b.name} and {a.name}",
            lambda it: {a.name, b.name} <= {o.name for o in it.objects},
        )


def share(found, right):
    """Of the five best, the part that is right."""
    return sum(cycle in right for cycle in found[:5]) / min(5, len(right))


def recall(count):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = [
            make_scene(seed, canvas=CANVAS, textures=backgrounds.TRAINED if seed % 3 == 0 else ())
            for seed in SEEDS[:count]
        ]
        runs = recorded(folder, scenes)
        begin = time.perf_counter()
        every = ("--every", "0", "--differ", "0", "--index", folder / "index", "--json", "-n", "5")
        command("search", runs, "nothing of the kind", *every)
        took = time.perf_counter() - begin
        print(f"index of {count} pictures: {took:.1f} s, {count / took:.1f} a second")
        [database] = (folder / "index").rglob("*.sqlite")
        index = Index(database.with_suffix(""))
        names = [it.name for it in runs.iterdir()]
        found: dict[str, list[float]] = {}
        rng = np.random.default_rng(1)
        for scene in scenes:
            for kind, text, is_right in questions(scene, rng):
                right = {at for at, it in enumerate(scenes) if is_right(it)}
                cycles = [it.picture.cycle for it in index.saying(text, 5, runs=names)]
                found.setdefault(f"text, {kind}", []).append(share(cycles, right))
        pictures = describe([other_view(it, at) for at, it in enumerate(scenes)])
        for vector, scene in zip(pictures, scenes, strict=True):
            cycles = [it.picture.cycle for it in index.near(vector, 5, runs=names)]
            hit = any(caption(scenes[at]) == caption(scene) for at in cycles)
            found.setdefault("picture, the same scene", []).append(float(hit))
        # The whole command, once for each kind of question.
        Image.fromarray(other_view(scenes[3], 3)).save(folder / "query.png")
        [first, *_] = json.loads(command("search", runs, folder / "query.png", *every))
        print(f"query.png: cycle {first['cycle']} (3), score {first['score']}")
        for kind, shares in found.items():
            print(f"recall@5, {kind:24} {np.mean(shares):.3f} of {len(shares)} (>= 0.95)")
        texts = [it for kind, its in found.items() if kind.startswith("text") for it in its]
        print(f"recall@5, texts in sum: {np.mean(texts):.3f}")


def describe(pictures):
    from flowrun.runtime.testbench.hashes import Hashes
    from flowrun.tasks.search.describing import Describer, chosen_model

    describer = Describer(chosen_model("embedded", None, Hashes(None)), threads=1)
    return describer.vectors(pictures)


def speed(count):
    rng = np.random.default_rng(0)
    said = [caption(make_scene(seed, canvas=(64, 48))) for seed in SEEDS[:20_000]]
    for dimension in (128, 768):
        with tempfile.TemporaryDirectory() as name, Index(Path(name, "index")) as index:
            with index.writing():
                run = index.begin_run("run")
                for begin in range(0, count, 5000):
                    vectors = rng.standard_normal((5000, dimension), dtype=np.float32)
                    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                    pictures = [
                        (at, at, f"{said[at % len(said)]} {at if at % 2 else ''}".strip())
                        for at in range(begin, begin + 5000)
                    ]
                    index.add(run, "/cam/image", begin, begin + 5000, "cam", pictures, vectors)
            texts = [*said[:20], "red circle", "a blue square on the right", "star", "a"]
            ways = (
                ("picture", index.near, rng.standard_normal((50, dimension), dtype=np.float32)),
                ("text", index.saying, texts),
            )
            for way, ask, queries in ways:
                times, computed = [], []
                for query in [*queries, *queries]:
                    begin, cpu = time.perf_counter(), time.process_time()
                    assert ask(query, 10, runs=["run"])
                    times.append((time.perf_counter() - begin) * 1e3)
                    computed.append((time.process_time() - cpu) * 1e3)
                p50, p99 = np.percentile(times[1:], [50, 99])
                print(
                    f"{count:,} pictures, vectors of {dimension}, a {way}: first {times[0]:.1f} ms, "
                    f"p50 {p50:.1f}, p99 {p99:.1f} (< 100); CPU p50 {np.median(computed):.1f}"
                )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--only", choices=("recall", "speed"))
    args = parser.parse_args()
    if args.only != "speed":
        recall(args.scenes)
    if args.only != "recall":
        speed(args.pictures)


if __name__ == "__main__":
    main()
