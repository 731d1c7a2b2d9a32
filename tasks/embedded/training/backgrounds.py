"""Backgrounds with a texture, drawn from a seed: what a camera may see behind shapes.

`TRAINED` kinds are drawn for training; `HELD_OUT` ones only to measure how the model fares before a
background that it was never shown. All are procedural: no picture was taken from anywhere.
"""

import colorsys
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["HELD_OUT", "TRAINED", "draw_texture"]

Picture = NDArray[Any]
Rng = np.random.Generator


def draw_texture(kind: str, *, width: int, height: int, seed: int) -> Picture:
    """Return the texture `kind` of `seed`: float32, height x width x 3, 0-255.

    The scale of its pattern is a share of the frame, so that a larger frame shows the same texture
    with more detail. Raises KeyError for an unknown kind.
    """
    rng = np.random.default_rng([seed, 0x7E97])
    picture = _KINDS[kind](width, height, rng)
    return np.clip(picture, 0, 255).astype(np.float32)


def _color(rng: Rng, level: float | None = None) -> Picture:
    """A colour of things outdoors and indoors: mostly dull, at times strong."""
    hue = float(rng.random())
    saturation = float(rng.beta(1.3, 3.0) if rng.random() < 0.75 else rng.beta(5.0, 2.0))
    value = float(rng.uniform(0.08, 0.95)) if level is None else level
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32) * 255


def _near(color: Picture, rng: Rng, spread: float) -> Picture:
    shift = rng.normal(0, spread) + rng.normal(0, spread / 4, 3)
    return np.clip(color + shift, 0, 255).astype(np.float32)


def _field(width: int, height: int, rng: Rng, *, cells: tuple[float, float]) -> Picture:
    """Smooth noise of about standard deviation 1, with `cells` bumps across and down."""
    columns, rows = (max(2, round(count)) for count in cells)
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32)


def _fractal(width: int, height: int, rng: Rng, *, roughness: float, first: float) -> Picture:
    """Noise at many scales; `roughness` is how much an octave keeps of the one before."""
    total = np.zeros((height, width), dtype=np.float32)
    share, weight, cells = 1.0, 0.0, first
    while cells < max(width, height) and share > 0.03:
        field = _field(width, height, rng, cells=(cells, cells * height / width))
        total += share * field
        weight += share * share
        share *= roughness
        cells *= 2
    return total / math.sqrt(max(weight, 1e-6))


def _blend(amount: Picture, first: Picture, second: Picture) -> Picture:
    mixed: Picture = first + (second - first) * np.clip(amount, 0, 1)[:, :, None]
    return mixed


def _clouds(width: int, height: int, rng: Rng) -> Picture:
    first = _color(rng)
    second = _near(first, rng, 55) if rng.random() < 0.6 else _color(rng)
    noise = _fractal(width, height, rng, roughness=rng.uniform(0.35, 0.95), first=rng.uniform(2, 9))
    return _blend(noise * rng.uniform(0.15, 0.35) + 0.5, first, second)


def _grain(width: int, height: int, rng: Rng) -> Picture:
    base = np.broadcast_to(_color(rng), (height, width, 3)).astype(np.float32)
    gray = rng.standard_normal((height, width, 1)) * rng.uniform(8, 38)
    colored = rng.standard_normal((height, width, 3)) * rng.uniform(0, 18)
    rough = _fractal(width, height, rng, roughness=0.7, first=3)[:, :, None] * rng.uniform(0, 14)
    grainy: Picture = base + gray + colored + rough
    return grainy


def _axes(width: int, height: int, angle: float) -> tuple[Picture, Picture]:
    """Coordinates along and across `angle`; 1 is the frame's longer side."""
    longest = max(width, height)
    xs = (np.arange(width, dtype=np.float32) + 0.5)[None, :] / longest
    ys = (np.arange(height, dtype=np.float32) + 0.5)[:, None] / longest
    along = xs * math.cos(angle) + ys * math.sin(angle)
    across = -xs * math.sin(angle) + ys * math.cos(angle)
    return along.astype(np.float32), across.astype(np.float32)


def _stripes(width: int, height: int, rng: Rng) -> Picture:
    first = _color(rng)
    second = _near(first, rng, 45) if rng.random() < 0.6 else _color(rng)
    along, _ = _axes(width, height, rng.uniform(0, math.pi))
    warp = _fractal(width, height, rng, roughness=0.5, first=3) * rng.uniform(0, 0.04)
    wave = np.sin((along + warp) * 2 * math.pi * rng.uniform(3, 22))
    if rng.random() < 0.4:
        wave = np.sign(wave)
    return _blend(wave * 0.5 + 0.5, first, second)


def _tiles(width: int, height: int, rng: Rng) -> Picture:
    base = _color(rng)
    along, across = _axes(width, height, rng.choice([0.0, rng.uniform(-0.6, 0.6)]))
    count = rng.uniform(3, 14)
    columns, rows = np.floor(along * count), np.floor(across * count)
    if rng.random() < 0.3:
        return _blend((columns + rows) % 2, base, _near(base, rng, 50))
    lightness = rng.normal(0, rng.uniform(2, 22), (64, 64)).astype(np.float32)
    picture = base + lightness[rows.astype(int) % 64, columns.astype(int) % 64][:, :, None]
    width_of_gap = rng.uniform(0.03, 0.14)
    gap = ((along * count) % 1 < width_of_gap) | ((across * count) % 1 < width_of_gap)
    picture[gap] = _near(base, rng, 50)
    return _floats(picture)


def _cells(width: int, height: int, rng: Rng) -> Picture:
    """Stones, cracked earth, a mosaic: each pixel belongs to the nearest of some points."""
    count = int(rng.integers(12, 90))
    aspect = height / width
    points = rng.random((count, 2)).astype(np.float32) * (1, aspect)
    xs = (np.arange(width, dtype=np.float32) + 0.5) / width
    ys = (np.arange(height, dtype=np.float32) + 0.5) / width
    square = (xs[None, :, None] - points[:, 0]) ** 2 + (ys[:, None, None] - points[:, 1]) ** 2
    base = _color(rng)
    spread = rng.uniform(4, 32)
    colors = np.stack([_near(base, rng, spread) for _ in range(count)])
    picture = colors[square.argmin(axis=2)]
    if rng.random() < 0.6:
        two = np.sqrt(np.partition(square, 1, axis=2)[:, :, :2])
        edge = np.clip((two[:, :, 1] - two[:, :, 0]) * rng.uniform(30, 90), 0, 1)
        picture = _near(base, rng, 60) + (picture - _near(base, rng, 60)) * edge[:, :, None]
    return _floats(picture)


def _blots(width: int, height: int, rng: Rng) -> Picture:
    """A room or a street out of focus."""
    image = Image.new("RGB", (width, height), _rgb(_color(rng)))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 18))):
        x, y = rng.uniform(-0.1, 1.0) * width, rng.uniform(-0.1, 1.0) * height
        across, down = rng.uniform(0.08, 0.6, 2) * (width, height)
        shape = pen.rectangle if rng.random() < 0.6 else pen.ellipse
        shape((x, y, x + across, y + down), fill=_rgb(_color(rng)))
    radius = rng.uniform(0.03, 0.1) * max(width, height)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)


def _patches(width: int, height: int, rng: Rng) -> Picture:
    """Things of any form with sharp edges, shaded and grainy: cloth, petals, crockery, machines."""
    field = _fractal(width, height, rng, roughness=rng.uniform(0.2, 0.6), first=rng.uniform(2, 6))
    levels = np.digitize(field, np.sort(rng.normal(0, 0.8, int(rng.integers(1, 5)))))
    colors = np.stack([_color(rng) for _ in range(int(levels.max()) + 1)])
    shade = _fractal(width, height, rng, roughness=0.6, first=3) * rng.uniform(2, 24)
    grain = rng.standard_normal((height, width)) * rng.uniform(0, 8)
    return _floats(colors[levels] + (shade + grain)[:, :, None])


def _streaks(width: int, height: int, rng: Rng) -> Picture:
    """Brushed metal, grass, rain: noise drawn out along one side."""
    first = _color(rng)
    second = _near(first, rng, 45)
    cells = (rng.uniform(2, 6), rng.uniform(20, 60))
    if rng.random() < 0.5:
        cells = (cells[1], cells[0])
    noise = 0.7 * _field(width, height, rng, cells=cells)
    noise += 0.5 * _field(width, height, rng, cells=(cells[0] * 2, cells[1] * 2))
    return _blend(noise * rng.uniform(0.15, 0.4) + 0.5, first, second)


def _horizon(width: int, height: int, rng: Rng) -> Picture:
    """Two surfaces that meet - a wall and a floor, the sky and a field - each with its own noise."""
    line = rng.uniform(0.2, 0.8)
    slope = rng.uniform(-0.15, 0.15)
    xs = (np.arange(width, dtype=np.float32) / width)[None, :]
    ys = (np.arange(height, dtype=np.float32) / height)[:, None]
    below = np.clip((ys - line - slope * (xs - 0.5)) * rng.choice([12.0, 200.0]) + 0.5, 0, 1)
    parts = []
    for _ in range(2):
        noise = _fractal(width, height, rng, roughness=rng.uniform(0.4, 0.9), first=4)
        light = rng.uniform(-40, 40) * (ys - 0.5)
        parts.append(_color(rng) + (noise * rng.uniform(0, 16) + light)[:, :, None])
    mixed: Picture = parts[0] + (parts[1] - parts[0]) * below[:, :, None]
    return mixed


def _lights(width: int, height: int, rng: Rng) -> Picture:
    """A surface under lamps, with shadows."""
    picture = np.broadcast_to(_color(rng, rng.uniform(0.2, 0.7)), (height, width, 3)).copy()
    xs = (np.arange(width, dtype=np.float32) / width)[None, :]
    ys = (np.arange(height, dtype=np.float32) / height)[:, None]
    light = np.ones((height, width), dtype=np.float32)
    for _ in range(int(rng.integers(1, 5))):
        cx, cy = rng.uniform(-0.2, 1.2, 2)
        wide, high = rng.uniform(0.1, 0.6, 2)
        spot = np.exp(-(((xs - cx) / wide) ** 2 + ((ys - cy) / high) ** 2))
        light *= 1 + rng.uniform(-0.65, 0.7) * spot
    noise = _fractal(width, height, rng, roughness=0.7, first=6) * rng.uniform(0, 10)
    lit: Picture = picture * light[:, :, None] + noise[:, :, None]
    return lit


def _wood(width: int, height: int, rng: Rng) -> Picture:
    """Boards with grain, knots and gaps."""
    hue, depth = rng.uniform(0.04, 0.11), rng.uniform(0.25, 0.6)
    first = np.array(colorsys.hsv_to_rgb(hue, depth, rng.uniform(0.35, 0.9))) * 255
    along, across = _axes(width, height, rng.choice([0.0, math.pi / 2]))
    board = np.floor(across * rng.uniform(3, 8))
    shift = rng.uniform(0, 1, 256)[board.astype(int) % 256]
    warp = _fractal(width, height, rng, roughness=0.5, first=3) * 0.03
    rings = np.sin((across + warp + 0.08 * np.sin(along * 5 + shift * 6)) * 2 * math.pi * 24)
    lightness = (shift - 0.5) * 34 + rings * rng.uniform(5, 16)
    lightness += _field(width, height, rng, cells=(6, 90)) * 4
    picture = first + lightness[:, :, None] * (1.0, 0.9, 0.7)
    gap = np.abs(across * 5 % 1 - 0.5) > 0.485
    picture[gap] *= 0.45
    return _floats(picture)


def _bricks(width: int, height: int, rng: Rng) -> Picture:
    """A wall of bricks in mortar."""
    hue, depth = rng.uniform(0.0, 0.09), rng.uniform(0.15, 0.6)
    base = np.array(colorsys.hsv_to_rgb(hue, depth, rng.uniform(0.3, 0.8))) * 255
    along, across = _axes(width, height, 0.0)
    rows = across * rng.uniform(6, 14)
    row = np.floor(rows)
    columns = along * rng.uniform(3, 7) + (row % 2) * 0.5
    lightness = rng.normal(0, 14, (64, 64))[
        row.astype(int) % 64, np.floor(columns).astype(int) % 64
    ]
    rough = _fractal(width, height, rng, roughness=0.9, first=12) * 7
    picture = base + (lightness + rough)[:, :, None]
    mortar = (rows % 1 < 0.14) | (columns % 1 < 0.06)
    picture[mortar] = rng.uniform(90, 200) + rough[mortar][:, None]
    return _floats(picture)


def _leaves(width: int, height: int, rng: Rng) -> Picture:
    """Foliage: many leaves over each other, in greens and browns."""
    image = Image.new("RGB", (width, height), (20, 30, 15))
    pen = ImageDraw.Draw(image)
    base = rng.uniform(0.14, 0.36)
    for _ in range(260):
        hue, value = base + rng.normal(0, 0.03), rng.uniform(0.15, 0.6)
        color = np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.3, 0.7), value)) * 255
        x, y = rng.random(2) * (width, height)
        size, angle = rng.uniform(0.03, 0.09) * max(width, height), rng.uniform(0, 2 * math.pi)
        turns = np.linspace(0, 2 * math.pi, 12, endpoint=False)
        dx, dy = np.cos(turns) * size, np.sin(turns) * size * 0.42
        xs = x + dx * math.cos(angle) - dy * math.sin(angle)
        ys = y + dx * math.sin(angle) + dy * math.cos(angle)
        pen.polygon([(float(a), float(b)) for a, b in zip(xs, ys, strict=True)], fill=_rgb(color))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(max(width, height) / 300)), np.float32)


def _fabric(width: int, height: int, rng: Rng) -> Picture:
    """Woven cloth, checked and creased."""
    base = _color(rng)
    along, across = _axes(width, height, rng.uniform(-0.5, 0.5))
    threads = np.sin(along * 380) * np.sin(across * 380) * rng.uniform(4, 14)
    checks = (np.sin(along * rng.uniform(15, 45)) > 0.3) * 1.0 + (np.sin(across * 30) > 0.3)
    creases = _fractal(width, height, rng, roughness=0.45, first=3) * rng.uniform(4, 16)
    lightness = threads + creases + checks * rng.uniform(-22, 22)
    woven: Picture = base + lightness[:, :, None]
    return woven


def _floats(picture: Any) -> Picture:
    return np.asarray(picture, dtype=np.float32)


def _rgb(color: Any) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(color, 0, 255))
    return red, green, blue


TRAINED = (
    "clouds",
    "grain",
    "stripes",
    "tiles",
    "cells",
    "blots",
    "patches",
    "streaks",
    "horizon",
    "lights",
)
HELD_OUT = ("wood", "bricks", "leaves", "fabric")
_KINDS: dict[str, Callable[[int, int, Rng], Picture]] = {
    "clouds": _clouds,
    "grain": _grain,
    "stripes": _stripes,
    "tiles": _tiles,
    "cells": _cells,
    "blots": _blots,
    "patches": _patches,
    "streaks": _streaks,
    "horizon": _horizon,
    "lights": _lights,
    "wood": _wood,
    "bricks": _bricks,
    "leaves": _leaves,
    "fabric": _fabric,
}
