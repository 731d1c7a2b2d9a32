"""Scenes of plain shapes, drawn from a seed, with what is true of them.

A scene holds 0-3 of 6 shapes in 8 colours before a background: a plain, graded or noisy one, or, where
`textures` are asked for, one of those of `backgrounds.py`, with objects of more varied sizes. The
same seed gives the same scene and the same pixels on every run. A scene is unambiguous by construction:

- objects never overlap, and every colour stands off its background by `MIN_CONTRAST`: off each colour
  of a smooth one, off nine tenths of the pixels around it of a textured one;
- one object lies near the centre, or at a side: its offset along that side's axis is at least
  0.20 of the frame, along the other axis at most 0.12;
- two objects lie side by side or one above the other: their centres are at least 0.43 of the
  frame apart on that axis and at most 0.24 on the other;
- three objects lie in three columns, at least 0.27 of the frame's width apart.

So no word of a caption hangs on a boundary, and `MAX_MOTION` (a video's movement) changes none.

Seeds below `HELD_OUT_SEEDS.stop` are held out: tests, `evaluate` and the demo video draw from
them, training never does (it starts at `TRAIN_SEEDS.start`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from flowrun.tasks.embedded.training.backgrounds import draw_texture

Frame = NDArray[np.uint8]
Point = tuple[float, float]
Rgb = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLORS: dict[str, Rgb] = {
    "red": (215, 40, 45),
    "orange": (245, 135, 25),
    "yellow": (240, 220, 50),
    "green": (45, 165, 70),
    "cyan": (50, 205, 215),
    "blue": (45, 85, 220),
    "purple": (145, 55, 175),
    "white": (242, 242, 242),
}
HELD_OUT_SEEDS = range(1_000_000)
TRAIN_SEEDS = range(1_000_000, 2**40)
MAX_MOTION = 0.012
MIN_CONTRAST = 95.0

# (width, height, weight). Mostly small: the model sees 64x64 pixels, so a larger canvas costs
# time and adds little; the large ones are there so that their resampling is seen too.
CANVASES = (
    (80, 60, 4),
    (96, 72, 6),
    (128, 96, 6),
    (160, 120, 3),
    (96, 54, 2),
    (128, 72, 3),
    (160, 90, 2),
    (80, 80, 2),
    (112, 112, 1),
    (72, 96, 1),
    (320, 240, 0.5),
)
_SUPERSAMPLING = 3
_COUNT_WEIGHTS = (0.07, 0.23, 0.35, 0.35)
_JITTER = 14
_SMALLEST, _SMALLEST_BEFORE_TEXTURES = 0.23, 0.17
_TEXTURE_TRIES = 8
_FALLBACK_BACKGROUND = (24, 24, 24)


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One shape: its name, its colour's name, and where it is.

    `cx`, `cy` are fractions of the frame's width and height; `size` is the outer diameter in
    fractions of the square root of the frame's area; `angle` is in radians.
    """

    shape: str
    color: str
    cx: float
    cy: float
    size: float
    angle: float
    rgb: Rgb
    place: str

    @property
    def name(self) -> str:
        """Colour and shape, such as `red circle`."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True, slots=True)
class Background:
    """What lies behind the objects: a kind and its two colours."""

    kind: str
    first: Rgb
    second: Rgb
    seed: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A frame's content. `objects` stand in reading order: that of the caption."""

    seed: int
    width: int
    height: int
    objects: tuple[SceneObject, ...]
    background: Background
    gain: float
    noise: float


def make_scene(
    seed: int, *, canvas: tuple[int, int] | None = None, textures: Sequence[str] = ()
) -> Scene:
    """Return the scene of `seed`, a pure function of its arguments.

    canvas: width and height in pixels; None picks one of `CANVASES`. Another canvas gives another
        scene, not the same one resized.
    textures: kinds of `backgrounds.py`, one of which lies behind the objects. Without any, the
        background is plain, graded or noisy, and the objects are large.
    """
    rng = np.random.default_rng([seed, 0x5CE7E])
    width, height = pick_canvas(rng) if canvas is None else canvas
    places = _pick_places(rng)
    smallest = _SMALLEST_BEFORE_TEXTURES if textures else _SMALLEST
    sizes = [_pick_size(rng, len(places), width, height, smallest) for _ in places]
    objects = tuple(
        _make_object(rng, place, x, y, size)
        for (place, x, y), size in zip(places, sizes, strict=True)
    )
    return Scene(
        seed=seed,
        width=width,
        height=height,
        objects=objects,
        background=_pick_texture(rng, objects, textures, width, height)
        if textures
        else _pick_background(rng, objects),
        gain=float(rng.uniform(0.85, 1.08)),
        noise=float(rng.choice([0.0, rng.uniform(1.0, 5.0), rng.uniform(5.0, 12.0)])),
    )


def caption(scene: Scene) -> str:
    """Return the one right caption of `scene`; exact match is a fair test of it."""
    if not scene.objects:
        return "an empty scene"
    parts = [f"{with_article(item.name)} {item.place}" for item in scene.objects]
    return join_words(parts)


def with_article(name: str) -> str:
    """Return `name` behind `a` or `an`."""
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def join_words(parts: Sequence[str]) -> str:
    """Return `a`, `a and b` or `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def box(scene: Scene, item: SceneObject) -> tuple[float, float, float, float]:
    """Return `item`'s bounding box as (top, left, bottom, right), in fractions of the frame."""
    points = np.array(_outline(scene, item))
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return (
        float(np.clip(top / scene.height, 0.0, 1.0)),
        float(np.clip(left / scene.width, 0.0, 1.0)),
        float(np.clip(bottom / scene.height, 0.0, 1.0)),
        float(np.clip(right / scene.width, 0.0, 1.0)),
    )


def moved(scene: Scene, shifts: Sequence[Point]) -> Scene:
    """Return `scene` with each object moved by (dx, dy), in fractions of the frame.

    Shifts of at most `MAX_MOTION` keep every caption and answer true.
    """
    objects = tuple(
        replace(item, cx=item.cx + dx, cy=item.cy + dy)
        for item, (dx, dy) in zip(scene.objects, shifts, strict=True)
    )
    return replace(scene, objects=objects)


def draw(scene: Scene, *, noise_seed: int = 0, behind: Frame | None = None) -> Frame:
    """Return `scene` as RGB pixels, uint8, height x width x 3; edges are anti-aliased.

    noise_seed: tells frames of one video apart: it changes the sensor's noise and nothing else.
    behind: a picture of the scene's size to use for its background.
    """
    image = Image.fromarray(_draw_background(scene) if behind is None else behind)
    for item in scene.objects:
        _draw_object(image, scene, item)
    rng = np.random.default_rng([scene.seed, noise_seed, 0x7015E])
    pixels = np.asarray(image, dtype=np.float32) * scene.gain
    if scene.noise:
        pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * scene.noise
    return _to_bytes(pixels)


def pick_canvas(rng: np.random.Generator) -> tuple[int, int]:
    """Return the width and height of one of `CANVASES`, drawn by weight."""
    weights = np.array([weight for *_, weight in CANVASES], dtype=float)
    width, height, _ = CANVASES[int(rng.choice(len(CANVASES), p=weights / weights.sum()))]
    return width, height


def _pick_places(rng: np.random.Generator) -> list[tuple[str, float, float]]:
    count = int(rng.choice(4, p=_COUNT_WEIGHTS))
    if count == 1:
        return [_single_place(rng)]
    if count == 2:
        return _pair_places(rng)
    if count == 3:
        columns = (("on the left", 0.18), ("in the middle", 0.5), ("on the right", 0.82))
        return [
            (place, x + rng.uniform(-0.025, 0.025), rng.uniform(0.23, 0.77)) for place, x in columns
        ]
    return []


def _single_place(rng: np.random.Generator) -> tuple[str, float, float]:
    side, across = rng.uniform(0.225, 0.30), rng.uniform(0.38, 0.62)
    return (
        ("in the middle", rng.uniform(0.44, 0.56), rng.uniform(0.44, 0.56)),
        ("on the left", side, across),
        ("on the right", 1 - side, across),
        ("at the top", across, side),
        ("at the bottom", across, 1 - side),
    )[int(rng.integers(5))]


def _pair_places(rng: np.random.Generator) -> list[tuple[str, float, float]]:
    near, far = rng.uniform(0.225, 0.285), rng.uniform(0.715, 0.775)
    middle, spread = rng.uniform(0.34, 0.66), rng.uniform(-0.12, 0.12)
    first, second = middle - spread, middle + spread
    if rng.random() < 0.5:
        return [("on the left", near, first), ("on the right", far, second)]
    return [("at the top", first, near), ("at the bottom", second, far)]


def _pick_size(
    rng: np.random.Generator, count: int, width: int, height: int, smallest: float
) -> float:
    scale = math.sqrt(width * height)
    # A turned triangle reaches 1.15 of its radius: so no two touch and none leaves the frame.
    largest = 0.37 * min(width, height) if count < 3 else min(0.37 * height, 0.23 * width)
    return float(min(rng.uniform(smallest, 0.36), largest / scale))


def _make_object(
    rng: np.random.Generator, place: str, cx: float, cy: float, size: float
) -> SceneObject:
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    color = tuple(COLORS)[int(rng.integers(len(COLORS)))]
    jitter = rng.integers(-_JITTER, _JITTER + 1, 3)
    red, green, blue = (int(v) for v in np.clip(np.array(COLORS[color]) + jitter, 0, 255))
    return SceneObject(
        shape=shape,
        color=color,
        cx=float(cx),
        cy=float(cy),
        size=size,
        angle=float(rng.uniform(-0.2, 0.2)),
        rgb=(red, green, blue),
        place=place,
    )


def _pick_background(rng: np.random.Generator, objects: Sequence[SceneObject]) -> Background:
    kind = ("plain", "gradient", "noise")[int(rng.integers(3))]
    for _ in range(40):
        first, second = _dull_color(rng), _dull_color(rng)
        if kind != "gradient":
            second = first
        if all(_contrast(item.rgb, c) > MIN_CONTRAST for item in objects for c in (first, second)):
            break
    else:
        kind, first, second = "plain", _FALLBACK_BACKGROUND, _FALLBACK_BACKGROUND
    return Background(kind=kind, first=first, second=second, seed=int(rng.integers(2**31)))


def _pick_texture(
    rng: np.random.Generator,
    objects: Sequence[SceneObject],
    kinds: Sequence[str],
    width: int,
    height: int,
) -> Background:
    kind = kinds[int(rng.integers(len(kinds)))]
    for _ in range(_TEXTURE_TRIES):
        background = Background(kind, (0, 0, 0), (0, 0, 0), int(rng.integers(2**31)))
        pixels = draw_texture(kind, width=width, height=height, seed=background.seed)
        if stand_off(pixels, objects):
            return background
    return replace(
        background, kind="plain", first=_FALLBACK_BACKGROUND, second=_FALLBACK_BACKGROUND
    )


def stand_off(background: NDArray[np.float32], objects: Sequence[SceneObject]) -> bool:
    """Return whether every object differs from nine tenths of the pixels around it.

    background: height x width x 3, 0-255.
    """
    height, width = background.shape[:2]
    for item in objects:
        reach = 0.65 * item.size * math.sqrt(width * height)
        x, y = item.cx * width, item.cy * height
        rows = slice(max(0, int(y - reach)), int(y + reach) + 1)
        columns = slice(max(0, int(x - reach)), int(x + reach) + 1)
        distances = np.linalg.norm(background[rows, columns] - np.array(item.rgb), axis=2)
        if np.quantile(distances, 0.1) < MIN_CONTRAST:
            return False
    return True


def _dull_color(rng: np.random.Generator) -> Rgb:
    level = rng.uniform(12, 225)
    red, green, blue = (int(v) for v in np.clip(level + rng.uniform(-12, 12, 3), 0, 255))
    return red, green, blue


def _contrast(a: Rgb, b: Rgb) -> float:
    return math.dist(a, b)


def _draw_background(scene: Scene) -> Frame:
    behind = scene.background
    rng = np.random.default_rng(behind.seed)
    shape = (scene.height, scene.width, 3)
    first = np.array(behind.first, dtype=np.float32)
    if behind.kind == "gradient":
        angle = rng.uniform(0, 2 * math.pi)
        xs = np.linspace(-1, 1, scene.width, dtype=np.float32)[None, :] * math.cos(angle)
        ys = np.linspace(-1, 1, scene.height, dtype=np.float32)[:, None] * math.sin(angle)
        blend = np.clip((xs + ys) / 2.0 + 0.5, 0, 1)[:, :, None]
        pixels = first + (np.array(behind.second, dtype=np.float32) - first) * blend
    elif behind.kind == "noise":
        cells = int(rng.integers(4, 14))
        coarse = np.clip(128 + rng.normal(0, 14, (cells, cells)), 0, 255).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((scene.width, scene.height), _BICUBIC)
        pixels = first + (np.asarray(smooth, dtype=np.float32) - 128.0)[:, :, None]
    elif behind.kind == "plain":
        pixels = np.broadcast_to(first, shape)
    else:
        pixels = draw_texture(behind.kind, width=scene.width, height=scene.height, seed=behind.seed)
    return _to_bytes(pixels)


def _to_bytes(pixels: Any) -> Frame:
    rounded: Frame = np.clip(pixels, 0, 255).astype(np.uint8)
    return rounded


_BICUBIC: Any = Image.Resampling.BICUBIC


def _draw_object(image: Image.Image, scene: Scene, item: SceneObject) -> None:
    points = np.array(_outline(scene, item))
    left, top = (int(v) for v in np.floor(points.min(axis=0)))
    right, bottom = (int(v) + 1 for v in np.ceil(points.max(axis=0)))
    size = ((right - left) * _SUPERSAMPLING, (bottom - top) * _SUPERSAMPLING)
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    pen.polygon(_to_tile(points, left, top), fill=255)
    if item.shape == "ring":
        hole = np.array(_outline(scene, replace(item, shape="circle", size=item.size * 0.52)))
        pen.polygon(_to_tile(hole, left, top), fill=0)
    image.paste(item.rgb, (left, top), mask.reduce(_SUPERSAMPLING))


def _to_tile(points: NDArray[np.float64], left: int, top: int) -> list[Point]:
    tile = (points - (left, top)) * _SUPERSAMPLING
    return [(float(x), float(y)) for x, y in tile]


def _outline(scene: Scene, item: SceneObject) -> list[Point]:
    """Return the corners of `item`'s outline in pixels of the canvas."""
    radius = item.size * math.sqrt(scene.width * scene.height) / 2
    x0, y0 = item.cx * scene.width, item.cy * scene.height
    cos, sin = math.cos(item.angle) * radius, math.sin(item.angle) * radius
    return [(x0 + x * cos - y * sin, y0 + x * sin + y * cos) for x, y in _UNIT_OUTLINES[item.shape]]


def _polygon(corners: int, radii: Sequence[float]) -> tuple[Point, ...]:
    angles = [2 * math.pi * k / corners - math.pi / 2 for k in range(corners)]
    rays = [(angle, radii[k % len(radii)]) for k, angle in enumerate(angles)]
    return tuple((r * math.cos(a), r * math.sin(a)) for a, r in rays)


# A square as wide as a circle would be the largest shape by far: 0.86 keeps the areas alike.
_ARM = 0.36
_UNIT_OUTLINES: dict[str, tuple[Point, ...]] = {
    "circle": _polygon(48, (1.0,)),
    "ring": _polygon(48, (1.0,)),
    "square": ((-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)),
    "triangle": ((0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)),
    "star": _polygon(10, (1.08, 0.45)),
    "cross": (
        (-_ARM, -1),
        (_ARM, -1),
        (_ARM, -_ARM),
        (1, -_ARM),
        (1, _ARM),
        (_ARM, _ARM),
        (_ARM, 1),
        (-_ARM, 1),
        (-_ARM, _ARM),
        (-1, _ARM),
        (-1, -_ARM),
        (-_ARM, -_ARM),
    ),
}
