"""Measure the embedded model: `python -m flowrun.tasks.embedded.training.evaluate`.

Prints the share of exactly right answers by kind of prompt, on held-out scenes and, with `--video`
and `--truth`, on frames of the demo video; and how long a caption takes. The model is loaded and
asked just as any checkpoint folder would be, and answers by greedy decoding. An answer is right
when it is the expected text; for `detect`, when the labels are and each box overlaps the true one
(intersection over union) by half at least.
"""

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from flowrun.tasks.embedded import MODEL_DIR
from flowrun.tasks.embedded.training.prompts import CAPTION_PROMPT, KINDS, ask
from flowrun.tasks.embedded.training.scenes import HELD_OUT_SEEDS, Frame, Scene, draw, make_scene

_BATCH = 32
_FRAMES_PER_SCENE = 5
_LEAST_OVERLAP = 0.5
_LOCATIONS = re.compile(r"<loc(\d{4})>" * 4)
Rect = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt about one frame, with the right answer."""

    kind: str
    frame: Frame
    prompt: str
    answer: str


class Model:
    """A checkpoint folder, loaded to answer prompts about frames."""

    def __init__(self, folder: Path, *, dtype: Any = torch.float32) -> None:
        self.processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, dtype=dtype
        ).eval()

    def answer(self, frames: Sequence[Frame], prompts: Sequence[str]) -> list[str]:
        """Return one answer for each frame (RGB, uint8, any size) and its prompt."""
        texts = [self._chat(prompt) for prompt in prompts]
        inputs = self.processor(text=texts, images=list(frames), padding=True, return_tensors="pt")
        inputs = inputs.to(self.model.dtype)
        with torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=50, do_sample=False)
        answers = out[:, inputs["input_ids"].shape[1] :]
        return list(self.processor.batch_decode(answers, skip_special_tokens=True))

    def _chat(self, prompt: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=True))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m flowrun.tasks.embedded.training.evaluate")
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="checkpoint folder")
    parser.add_argument("--scenes", type=int, default=500, help="held-out scenes (500)")
    parser.add_argument("--video", type=Path, help="demo video")
    parser.add_argument("--truth", type=Path, help="its truth; default: .json beside the video")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # as a run does: the model's steps are too short to share
    model = Model(options.model)
    scenes = [make_scene(seed) for seed in HELD_OUT_SEEDS[: options.scenes]]
    _print_table(f"{options.scenes} held-out scenes", score(model, scene_cases(scenes)))
    if options.video:
        truth = options.truth or options.video.with_suffix(".json")
        cases = list(video_cases(options.video, json.loads(truth.read_text())))
        _print_table(f"demo video, {_FRAMES_PER_SCENE} frames a scene", score(model, cases))
    times_ms = caption_times_ms(model, runs=100)
    p50, p99 = np.percentile(times_ms, [50, 99])
    where = "caption of a 640x480 frame, batch 1, 1 thread"
    print(f"{where}: p50 {p50:.0f} ms, p99 {p99:.0f} ms")


def scene_cases(scenes: Sequence[Scene]) -> list[Case]:
    """Return one case of every kind for each scene, drawn as it is."""
    return [case for scene in scenes for case in _cases(scene, draw(scene), scene.seed)]


def video_cases(path: Path, truth: dict[str, Any]) -> Iterator[Case]:
    """Yield cases of every kind for a few frames of each scene of the demo video."""
    every = truth["fps"] * (truth["scenes"][0]["end_s"]) // _FRAMES_PER_SCENE
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % every != every // 2:
                continue
            shown = _scene_at(truth["scenes"], index / truth["fps"])
            scene = make_scene(shown["seed"], canvas=(truth["width"], truth["height"]))
            pixels: Any = frame.to_ndarray(format="rgb24")
            yield from _cases(scene, pixels, index)


def score(model: Model, cases: Sequence[Case]) -> dict[str, tuple[int, int]]:
    """Return right answers and all answers by kind; captions by number of objects too."""
    counts: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for first in range(0, len(cases), _BATCH):
        batch = cases[first : first + _BATCH]
        answers = model.answer([case.frame for case in batch], [case.prompt for case in batch])
        for case, answer in zip(batch, answers, strict=True):
            for name in _names(case):
                right, total = counts[name]
                counts[name] = (right + is_right(case, answer), total + 1)
    return dict(sorted(counts.items()))


def is_right(case: Case, answer: str) -> bool:
    """Return whether `answer` is the right one; boxes need only overlap the true ones."""
    if case.kind != "detect":
        return answer == case.answer
    if _LOCATIONS.sub("", answer) != _LOCATIONS.sub("", case.answer):
        return False
    pairs = zip(_boxes(answer), _boxes(case.answer), strict=True)
    return all(overlap(a, b) >= _LEAST_OVERLAP for a, b in pairs)


def overlap(a: Rect, b: Rect) -> float:
    """Return intersection over union of two boxes (top, left, bottom, right)."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0.0) * max(width, 0.0)
    return shared / max(_area(a) + _area(b) - shared, 1e-9)


def caption_times_ms(model: Model, *, runs: int) -> list[float]:
    """Return the time of each of `runs` captions of a 640x480 frame, from pixels to text."""
    frames = [draw(make_scene(seed, canvas=(640, 480))) for seed in HELD_OUT_SEEDS[:10]]
    times: list[float] = []
    for run in range(runs + 3):
        begin = time.perf_counter()
        model.answer([frames[run % len(frames)]], [CAPTION_PROMPT])
        times.append((time.perf_counter() - begin) * 1e3)
    return times[3:]


def _cases(scene: Scene, frame: Frame, seed: int) -> Iterator[Case]:
    rng = np.random.default_rng([seed, 0xA5C])
    for kind in KINDS:
        prompt, answer = ask(scene, kind, rng)
        # `ask` falls back to another kind where the scene does not admit this one.
        if kind not in {"color", "shape"} or "is there" not in prompt:
            yield Case(kind, frame, prompt, answer)


def _names(case: Case) -> tuple[str, ...]:
    if case.kind == "detect":
        return ("detect shapes" if case.prompt == "detect shapes" else "detect NAME",)
    if case.kind != "caption":
        return (case.kind,)
    objects = 0 if case.answer == "an empty scene" else len(re.split(", | and ", case.answer))
    return ("caption", f"caption, {objects} objects")


def _scene_at(scenes: Sequence[dict[str, Any]], time_s: float) -> dict[str, Any]:
    return next(scene for scene in scenes if scene["start_s"] <= time_s < scene["end_s"])


def _boxes(answer: str) -> list[Rect]:
    found = (tuple(int(value) / 1024 for value in match) for match in _LOCATIONS.findall(answer))
    return [(top, left, bottom, right) for top, left, bottom, right in found]


def _area(rect: Rect) -> float:
    return max(rect[2] - rect[0], 0.0) * max(rect[3] - rect[1], 0.0)


def _print_table(title: str, counts: dict[str, tuple[int, int]]) -> None:
    print(f"{title}\n{'kind':20} {'right':>6} {'of':>6}  share")
    for name, (right, total) in counts.items():
        print(f"{name:20} {right:6d} {total:6d}  {100 * right / total:5.1f} %")
    print(flush=True)


if __name__ == "__main__":
    main()
