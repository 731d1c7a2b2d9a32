"""Measure the embedded model: `python -m flowrun.tasks.embedded.training.evaluate`.

Prints the share of exactly right answers by kind: of prompt, of wording, of background, of what a
camera does to a picture, and of picture size, each on held-out scenes; with `--photos`, before
photographs of that folder; with `--video`, on frames of the demo video; and how long a caption takes.
The model is loaded and asked just as any checkpoint folder would be, and answers by greedy decoding.
An answer is right when it is the expected text; one with boxes, when its labels are right and each box
overlaps the true one (intersection over union) by half at least.
"""

import argparse
import itertools
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from flowrun.tasks.embedded import MODEL_DIR
from flowrun.tasks.embedded.training import backgrounds
from flowrun.tasks.embedded.training.cameras import TROUBLES
from flowrun.tasks.embedded.training.prompts import CAPTION_PROMPT, KINDS, ask
from flowrun.tasks.embedded.training.questions import FREE_KINDS, ask_freely
from flowrun.tasks.embedded.training.scenes import (
    HELD_OUT_SEEDS,
    Frame,
    Scene,
    caption,
    draw,
    make_scene,
    stand_off,
)
from flowrun.tasks.embedded.training.wordings import HELD_OUT, OFF_TOPIC, TRAINED, Wordings

_BATCH = 32
# Scenes of the demo video, of progress during training, and those drawn here, are different ones.
_FREE, _BEFORE_TEXTURES, _TROUBLED, _SIZED, _BEFORE_PHOTOS = (
    range(start, start + 100_000) for start in range(100_000, 600_000, 100_000)
)
_SIZES = (
    (64, 64),
    (160, 120),
    (640, 480),
    (1280, 720),
    (1920, 1080),
    (480, 640),
    (360, 640),
    (840, 360),
)
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
    parser.add_argument("--photos", type=Path, help="folder of photographs, for backgrounds")
    parser.add_argument("--video", type=Path, help="demo video")
    parser.add_argument("--truth", type=Path, help="its truth; default: .json beside the video")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # as a run does: the model's steps are too short to share
    model = Model(options.model)
    count = options.scenes
    scenes = [make_scene(seed) for seed in HELD_OUT_SEEDS[:count]]
    _print_table(f"{count} held-out scenes", score(model, scene_cases(scenes)))
    for name, wordings in (("wordings of training", TRAINED), ("held-out wordings", HELD_OUT)):
        _print_table(name, score(model, wording_cases(wordings, count // 3)))
    _print_table("off topic, in people's words", score(model, off_topic_cases()))
    _print_table("captions before backgrounds", score(model, background_cases(count // 3)))
    _print_table("captions after a camera's troubles", score(model, trouble_cases(count // 3)))
    _print_table("captions by size of the picture", score(model, size_cases(count // 3)))
    if options.photos:
        _print_table("before photographs", score(model, photo_cases(options.photos, count // 6)))
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


def wording_cases(wordings: Wordings, count: int) -> list[Case]:
    """Return `count` questions of each kind that `wordings` has, each about a scene of its own."""
    cases = []
    for kind in (kind for kind in FREE_KINDS if kind in wordings.kinds):
        asked = 0
        for seed in _FREE:
            scene = make_scene(seed, textures=backgrounds.TRAINED if seed % 2 else ())
            rng = np.random.default_rng([seed, 0xF4EE])
            question = ask_freely(scene, kind, rng, wordings=wordings)
            if question is not None:
                cases.append(Case(kind, draw(scene), *question))
                asked += 1
            if asked == count:
                break
    return cases


def off_topic_cases() -> list[Case]:
    """Return what people ask that has nothing to do with shapes, each about three scenes."""
    cases = []
    prompts = [(prompt, answer) for answer, several in OFF_TOPIC.items() for prompt in several]
    for number, (prompt, answer) in enumerate(prompts):
        for seed in _FREE[3 * number : 3 * number + 3]:
            kind = "no such thing" if answer == "no" else "off topic"
            cases.append(Case(kind, draw(make_scene(seed)), prompt, answer))
    return cases


def background_cases(count: int) -> Iterator[Case]:
    """Yield a caption of `count` scenes before each texture."""
    for kind in (*backgrounds.TRAINED, *backgrounds.HELD_OUT):
        said = kind if kind in backgrounds.TRAINED else f"{kind} (held out)"
        for seed in _BEFORE_TEXTURES[:count]:
            scene = make_scene(seed, canvas=(160, 120), textures=(kind,))
            frame = draw(scene)
            yield Case(said, frame, CAPTION_PROMPT, caption(scene))


def trouble_cases(count: int) -> Iterator[Case]:
    """Yield a caption of `count` pictures after each of a camera's troubles."""
    for name, trouble in TROUBLES.items():
        for seed in _TROUBLED[:count]:
            textures = backgrounds.TRAINED if seed % 2 else ()
            scene = make_scene(seed, canvas=(160, 120), textures=textures)
            frame = trouble(draw(scene), np.random.default_rng(seed))
            yield Case(name, frame, CAPTION_PROMPT, caption(scene))


def size_cases(count: int) -> Iterator[Case]:
    """Yield a caption of `count` pictures of each size."""
    for width, height in _SIZES:
        for seed in _SIZED[:count]:
            scene = make_scene(seed, canvas=(width, height))
            yield Case(f"{width} x {height}", draw(scene), CAPTION_PROMPT, caption(scene))


def photo_cases(folder: Path, count: int) -> Iterator[Case]:
    """Yield a caption of `count` scenes before each photograph of `folder`.

    The objects stand off the part of the photograph around them as they do off textures.
    """
    for path in sorted(folder.iterdir()):
        photo = Image.open(path).convert("RGB")
        made = 0
        for seed in _BEFORE_PHOTOS:
            scene = make_scene(seed, canvas=(320, 240), textures=backgrounds.HELD_OUT[:1])
            behind = _part_of(photo, scene, np.random.default_rng(seed))
            if not stand_off(behind.astype(np.float32), scene.objects):
                continue
            frame = draw(scene, behind=behind)
            yield Case(path.stem, frame, CAPTION_PROMPT, caption(scene))
            made += 1
            if made == count:
                break


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


def score(model: Model, cases: Iterable[Case]) -> dict[str, tuple[int, int]]:
    """Return right answers and all answers by kind; captions by number of objects too."""
    counts: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    left = iter(cases)
    while batch := list(itertools.islice(left, _BATCH)):
        answers = model.answer([case.frame for case in batch], [case.prompt for case in batch])
        for case, answer in zip(batch, answers, strict=True):
            for name in _names(case):
                right, total = counts[name]
                counts[name] = (right + is_right(case, answer), total + 1)
    return dict(sorted(counts.items()))


def is_right(case: Case, answer: str) -> bool:
    """Return whether `answer` is the right one; boxes need only overlap the true ones."""
    if "<loc" not in case.answer:
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


def _part_of(photo: Image.Image, scene: Scene, rng: np.random.Generator) -> Frame:
    """A part of `photo`, of half its width at least, in the scene's size."""
    aspect = scene.width / scene.height
    widest = min(photo.width, photo.height * aspect)
    width = widest * rng.uniform(0.5, 1.0)
    left, top = rng.random(2) * (photo.width - width, photo.height - width / aspect)
    part = photo.crop((int(left), int(top), int(left + width), int(top + width / aspect)))
    return np.asarray(part.resize((scene.width, scene.height), Image.Resampling.LANCZOS))


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
