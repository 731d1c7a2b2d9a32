"""Training batches: scenes drawn, put through cameras' troubles, and questions about them.

Batch `index` of a run is a pure function of (seed, index): a run that resumes draws what an
unbroken one would have. One picture carries several questions; they share the picture's tokens:

    prefix (image tokens) | question 1, answer 1 | question 2, answer 2 | ...

Each segment sees the prefix and itself only, and its positions go on from the prefix, so what is
trained is exactly what the model meets when it is asked one question.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowrun.tasks.embedded.training import backgrounds, network
from flowrun.tasks.embedded.training.cameras import reencode, worsen
from flowrun.tasks.embedded.training.prompts import KINDS, Question, ask
from flowrun.tasks.embedded.training.questions import FREE_KINDS, ask_freely
from flowrun.tasks.embedded.training.scenes import (
    COLORS,
    MAX_MOTION,
    SHAPES,
    TRAIN_SEEDS,
    Frame,
    Scene,
    box,
    draw,
    make_scene,
    moved,
    pick_canvas,
)

IGNORED = -100
QUESTIONS = 5
_CAPTION_WEIGHT = 2
_FREE_SHARE = 0.55
_TEXTURED_SHARE = 0.6
_OTHER_KINDS = tuple(kind for kind in KINDS if kind != "caption")
# Finding an object by its shape takes longest to learn: those kinds are asked most.
_OTHER_WEIGHTS = np.array(
    [
        {"color": 7, "exists": 7, "detect": 6, "where": 1, "shape": 1}.get(kind, 2)
        for kind in _OTHER_KINDS
    ]
)
_FREE_WEIGHTS = np.array(
    [
        {
            "off topic": 6,
            "no such thing": 5,
            "count": 3,
            "exists": 3,
            "caption": 5,
            "color": 3,
            "shape": 3,
            "where": 3,
            "detect": 2,
            "small talk": 2,
            "color of size": 2,
            "what of size": 2,
            "exists any": 0.5,
            "empty": 0.5,
            "several": 0.5,
            "exactly": 0.5,
            "no such number": 0.5,
        }.get(kind, 1)
        for kind in FREE_KINDS
    ]
)
# (width, height): what cameras and telephones have besides 4:3 and 16:9.
_MORE_CANVASES = (
    (128, 54),
    (144, 62),
    (120, 60),
    (54, 96),
    (60, 80),
    (64, 128),
    (96, 64),
    (72, 72),
)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns questions into token ids just as processor and chat template do."""

    tokenizer: Any
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    end: int
    known: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, processor: Any) -> "Encoder":
        """Return the encoder that agrees with `processor` (a test compares the two)."""
        content = [{"type": "image"}, {"type": "text", "text": "\0"}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        before, after = text.split("\0")
        picture = network.FAKE + network.GLOBAL + network.IMAGE * network.IMAGE_TOKENS
        prefix = before.rstrip().replace(network.IMAGE, picture + network.FAKE)
        encode = processor.tokenizer
        return cls(
            tokenizer=encode,
            prefix=tuple(encode(prefix)["input_ids"]),
            suffix=tuple(encode(after)["input_ids"]),
            end=encode.eos_token_id,
        )

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt with what follows it, up to where the answer begins."""
        return [*self._encode(" " + text.strip().lower()), *self.suffix]

    def answer(self, text: str) -> list[int]:
        """Return the ids of an answer and of the token that ends it."""
        return [*self._encode(text), self.end]

    def _encode(self, text: str) -> list[int]:
        if text not in self.known:
            ids = self.tokenizer(text)["input_ids"]
            if "<loc" in text or len(self.known) > 100_000:  # too many to keep
                return list(ids)
            self.known[text] = list(ids)
        return self.known[text]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Endless training batches: `start`, `start + stride`, ... of the run of `seed`."""

    encoder: Encoder
    seed: int
    size: int
    start: int
    stride: int

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for index in itertools.count(self.start, self.stride):
            yield training_batch(self.encoder, seed=self.seed, index=index, size=self.size)


def training_batch(
    encoder: Encoder, *, seed: int, index: int, size: int
) -> dict[str, torch.Tensor]:
    """Return batch `index`: half of its pictures went through an H.264 encoder."""
    rng = np.random.default_rng([seed, index])
    first = TRAIN_SEEDS.start + (seed * 10_000_000 + index) * size
    canvas = _pick_canvas(rng)
    filmed = [_scene(s, canvas, rng) for s in range(first, first + size // 2)]
    stills = [_scene(s, _pick_canvas(rng), rng) for s in range(first + size // 2, first + size)]
    frames = film(filmed, rng) + [worsen(draw(scene), rng) for scene in stills]
    return collate(encoder, [*filmed, *stills], frames, rng)


def _pick_canvas(rng: np.random.Generator) -> tuple[int, int]:
    if rng.random() < 0.3:
        return _MORE_CANVASES[int(rng.integers(len(_MORE_CANVASES)))]
    return pick_canvas(rng)


def _scene(seed: int, canvas: tuple[int, int], rng: np.random.Generator) -> Scene:
    textures = backgrounds.TRAINED if rng.random() < _TEXTURED_SHARE else ()
    return make_scene(seed, canvas=canvas, textures=textures)


def held_out_batch(encoder: Encoder, seeds: Sequence[int]) -> dict[str, torch.Tensor]:
    """Return the scenes of `seeds` as drawn, for a look at progress during training."""
    scenes = [
        make_scene(seed, textures=backgrounds.HELD_OUT if index % 2 else ())
        for index, seed in enumerate(seeds)
    ]
    frames = [draw(scene) for scene in scenes]
    return collate(encoder, scenes, frames, np.random.default_rng([*seeds[:1], 1]))


def film(scenes: Sequence[Scene], rng: np.random.Generator) -> list[Frame]:
    """Return one decoded frame of each scene out of one H.264 clip that shows them in turn.

    A quarter of them are on for two frames with a little motion between, so that some frames
    returned are intra-coded and some predicted; quality differs from clip to clip.
    """
    shots: list[Frame] = []
    wanted: list[int] = []
    for scene in scenes:
        shown = 2 if rng.random() < 0.25 else 1
        shots += [_shoot(scene, rng) for _ in range(shown)]
        wanted.append(len(shots) - 1)
    preset = "ultrafast" if rng.random() < 0.5 else "superfast"
    decoded = reencode(shots, crf=int(rng.integers(18, 38)), preset=preset)
    return [decoded[index] for index in wanted]


def collate(
    encoder: Encoder,
    scenes: Sequence[Scene],
    frames: Sequence[Frame],
    rng: np.random.Generator,
) -> dict[str, torch.Tensor]:
    """Return tensors of one batch.

    `pixels` uint8 N 64 64 3; `ids`, `labels`, `segments`, `positions` int64 N L (labels are the
    next token of an answer, else IGNORED; segment -1 is padding); `weights` float32 N L, so that
    short answers count as much as long ones and captions twice as much; `shapes`, `colors` int64 N 64
    and `boxes` float32 N 64 4: what lies under each patch, 0 for nothing.
    """
    texts = [_pack(encoder, _questions(scene, rng)) for scene in scenes]
    length = max(text.shape[1] for text in texts)
    packed = np.full((len(texts), 4, length), 0, dtype=np.int64)
    packed[:, 1], packed[:, 2] = IGNORED, -1
    weights = np.zeros((len(texts), length), dtype=np.float32)
    for row, text, weight in zip(packed, texts, weights, strict=True):
        row[:, : text.shape[1]] = text
        weight[: text.shape[1]] = _answer_weights(text[1], text[2])
    dense = [_dense_targets(scene) for scene in scenes]
    names = ("ids", "labels", "segments", "positions")
    return {
        "pixels": torch.from_numpy(np.stack([network.resize(frame) for frame in frames])),
        **{name: torch.from_numpy(packed[:, k].copy()) for k, name in enumerate(names)},
        "weights": torch.from_numpy(weights),
        "shapes": torch.from_numpy(np.stack([d[0] for d in dense])),
        "colors": torch.from_numpy(np.stack([d[1] for d in dense])),
        "boxes": torch.from_numpy(np.stack([d[2] for d in dense])),
        "counts": torch.tensor([len(scene.objects) for scene in scenes]),
    }


def _shoot(scene: Scene, rng: np.random.Generator) -> Frame:
    shifts = rng.uniform(-MAX_MOTION, MAX_MOTION, (len(scene.objects), 2))
    wobbled = moved(scene, [(float(dx), float(dy)) for dx, dy in shifts])
    return draw(wobbled, noise_seed=int(rng.integers(2**31)))


def _questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    asked = [ask(scene, "caption", rng)]
    while len(asked) < QUESTIONS:
        if rng.random() < _FREE_SHARE:
            kind = str(rng.choice(FREE_KINDS, p=_FREE_WEIGHTS / _FREE_WEIGHTS.sum()))
            question = ask_freely(scene, kind, rng)
            if question is not None:
                asked.append(question)
        else:
            kind = str(rng.choice(_OTHER_KINDS, p=_OTHER_WEIGHTS / _OTHER_WEIGHTS.sum()))
            asked.append(ask(scene, kind, rng))
    return asked


def _pack(encoder: Encoder, questions: Sequence[Question]) -> NDArray[np.int64]:
    """Return ids, labels, segments and positions (4 x L) of one picture's questions."""
    start = len(encoder.prefix)
    ids = list(encoder.prefix)
    labels = [IGNORED] * start
    segments = [0] * start
    positions = list(range(start))
    for number, (prompt, answer) in enumerate(questions, start=1):
        before, after = encoder.prompt(prompt), encoder.answer(answer)
        # The end token is only ever predicted here: nothing follows it.
        tokens = before + after[:-1]
        ids += tokens
        labels += [IGNORED] * (len(before) - 1) + after
        segments += [number] * len(tokens)
        positions += range(start, start + len(tokens))
    return np.array([ids, labels, segments, positions], dtype=np.int64)


def _answer_weights(labels: NDArray[np.int64], segments: NDArray[np.int64]) -> NDArray[np.float32]:
    asked = labels != IGNORED
    lengths = np.bincount(segments[asked], minlength=QUESTIONS + 1).clip(min=1)
    weights: NDArray[np.float32] = (asked / lengths[segments]).astype(np.float32)
    weights[segments == 1] *= _CAPTION_WEIGHT
    return weights


def _dense_targets(
    scene: Scene,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return shape, colour and box of the object under each patch of the 8x8 grid."""
    grid = network.GRID
    shapes = np.zeros((grid, grid), dtype=np.int64)
    colors = np.zeros((grid, grid), dtype=np.int64)
    boxes = np.zeros((grid, grid, 4), dtype=np.float32)
    centres = (np.arange(grid) + 0.5) / grid
    for item in scene.objects:
        top, left, bottom, right = box(scene, item)
        rows = (centres >= top) & (centres <= bottom)
        columns = (centres >= left) & (centres <= right)
        rows[int((top + bottom) / 2 * grid)] = True
        columns[int((left + right) / 2 * grid)] = True
        under = rows[:, None] & columns[None, :]
        shapes[under] = SHAPES.index(item.shape) + 1
        colors[under] = tuple(COLORS).index(item.color) + 1
        boxes[under] = (top, left, bottom, right)
    return shapes.ravel(), colors.ravel(), boxes.reshape(-1, 4)
