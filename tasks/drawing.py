"""What is drawn on pictures: boxes, labels, trails, zones, lines and texts.

Boxes are written straight into the array, and text comes from Pillow: drawing costs one copy of the
picture. The `supervision` package draws more kinds of marks, but would bring 15 packages
(matplotlib, scipy, ...) and an OpenCV of its own.
"""

from __future__ import annotations

import math
import string
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.regions import LinesMsg, ZonesMsg
from flowrun.runtime.wording import listed, nearest
from flowrun.tasks.labels import label_patch

__all__ = [
    "DEFAULT_LABEL",
    "LabelFormat",
    "Style",
    "Trail",
    "color_of",
    "draw_boxes",
    "draw_regions",
    "draw_texts",
    "draw_trails",
]

Color = tuple[int, int, int]
Trail = Sequence[tuple[float, float]]
"""Where a track has been, in fractions of the picture, the newest point last."""

# fmt: off
_PALETTE: tuple[Color, ...] = (
    (230, 60, 60), (60, 180, 75), (70, 120, 240), (245, 150, 40), (170, 80, 220), (30, 190, 200),
    (240, 80, 180), (160, 200, 40), (250, 215, 50), (130, 95, 60), (110, 205, 160), (150, 150, 240),
)
# fmt: on
_GREY: Color = (40, 44, 52)
_SMALLEST_TEXT_PX = 11
_LONGEST_LABEL = 60
_FIELDS = {"class": "cat", "confidence": 0.5, "tracker_id": 1, "class_id": 1}
DEFAULT_LABEL = "{class} {confidence:.2f} #{tracker_id}"


class LabelFormat:
    """How the label of a box is written: Python's format of `class`, `confidence`, `tracker_id` and
    `class_id`, such as "{class} {confidence:.0%} #{tracker_id}".

    A word whose value is missing, such as the number of an object that is not tracked, is left out.
    `ValueError` says what is wrong with the format.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"label {text!r} is no format: {error}") from None
        self._words: list[list[tuple[str, str | None]]] = [[]]
        for literal, field, spec, conversion in parts:
            first, *others = literal.split(" ")
            self._words[-1].append((first, None))
            self._words += [[(word, None)] for word in others]
            if field is not None:
                self._check_field(field)
                shape = f"{{0{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
                self._words[-1].append((shape, field))
        try:
            self.of(_FIELDS)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise ValueError(f"label {text!r} cannot be written: {error}") from None

    def _check_field(self, field: str) -> None:
        if field not in _FIELDS:
            raise ValueError(
                f"label {self.text!r} has an unknown field {field!r}; fields: {listed(_FIELDS)}"
                f"{nearest(field, _FIELDS)}"
            )

    def of(self, values: Mapping[str, Any]) -> str:
        """The label of an object. values: by field, None where it has none."""
        words = [
            "".join(
                shape if field is None else shape.format(values[field]) for shape, field in parts
            )
            for parts in self._words
            if all(field is None or values[field] is not None for _, field in parts)
        ]
        return " ".join(words).strip()


@dataclass(frozen=True, slots=True)
class Style:
    """How wide lines and how large letters are.

    line_px: width of the lines.
    text_px: height of the letters; None: by the line.
    label: the format of labels; None: none are drawn.
    color_by: whether boxes have a colour for each class or for each track.
    """

    line_px: int
    text_px: int | None = None
    label: LabelFormat | None = None
    color_by: Literal["class", "track"] = "class"

    @classmethod
    def for_picture(cls, pixels: NDArray[np.uint8], line_px: int | None, **more: Any) -> Style:
        """line_px: None: by the picture's size, 3 at 640x480 and 8 at 1080p."""
        height, width = pixels.shape[:2]
        return cls(line_px or max(1, round(math.sqrt(width * height) / 180)), **more)

    @property
    def letters_px(self) -> int:
        return self.text_px or max(_SMALLEST_TEXT_PX, 5 * self.line_px)

    def color_of(self, detections: DetectionsMsg, k: int) -> Color:
        """The colour of object k."""
        tracks = detections.tracker_ids
        if self.color_by == "track" and len(tracks):
            return track_color(int(tracks[k])) if tracks[k] >= 0 else _GREY
        return color_of(detections.labels[k], int(detections.class_ids[k]))


def color_of(label: str, class_id: int) -> Color:
    """The colour (RGB) of a class: by its number, or by its name where it has none."""
    return _PALETTE[
        (class_id if class_id >= 0 else zlib.crc32(label.encode("utf-8", "replace")))
        % len(_PALETTE)
    ]


def track_color(track: int) -> Color:
    return _PALETTE[track % len(_PALETTE)]


def draw_boxes(pixels: NDArray[np.uint8], detections: DetectionsMsg, style: Style) -> None:
    """Draw `detections` into `pixels`, uint8 of shape (height, width, 3). A line lies inside its box's
    edge. `ValueError` if the size of their frame is not known."""
    height, width = pixels.shape[:2]
    line = style.line_px
    corners = detections.boxes.astype(np.float64) * np.tile(detections.scale_to(width, height), 2)
    corners = np.clip(np.rint(corners), 0, [width, height] * 2).astype(int)
    shown = [(k, *edges) for k, edges in enumerate(corners.tolist()) if _has_area(edges)]
    for k, left, top, right, bottom in shown:
        box = pixels[top:bottom, left:right]
        color = style.color_of(detections, k)
        box[:line] = box[-line:] = box[:, :line] = box[:, -line:] = color
    # Labels last: a box must not cross out what its neighbour is called.
    for k, left, top, *_ in shown:
        text = "" if style.label is None else _text(detections, k, style.label)
        if text:
            tile = label_patch(text, style.color_of(detections, k), style.letters_px)
            _put(pixels, tile, left, top - tile.shape[0])


def draw_trails(
    pixels: NDArray[np.uint8], trails: Iterable[tuple[int, Color, Trail]], style: Style
) -> None:
    """Draw where tracks have been. trails: track, its class's colour, and its points."""
    height, width = pixels.shape[:2]
    with _Pen(pixels) as pen:
        for track, color, points in trails:
            shown = track_color(track) if style.color_by == "track" else color
            places = [(x * width, y * height) for x, y in points]
            pen.lines(places, shown, max(1, style.line_px // 2))


def draw_regions(pixels: NDArray[np.uint8], regions: ZonesMsg | LinesMsg, style: Style) -> None:
    """Draw zones, or lines with an arrow to their "in" side, and what is counted there."""
    height, width = pixels.shape[:2]
    across, down = width / max(regions.width, 1), height / max(regions.height, 1)
    texts = []
    with _Pen(pixels) as pen:
        if isinstance(regions, ZonesMsg):
            of_each = zip(regions.names, regions.polygons, regions.counts, strict=True)
            for k, (name, polygon, count) in enumerate(of_each):
                color = track_color(k)
                places = [(x * across, y * down) for x, y in polygon]
                pen.lines([*places, places[0]], color, style.line_px)
                texts.append(
                    (f"{_one_line(name)}: {count}", color, min(places, key=lambda it: it[1]))
                )
        else:
            counts = zip(regions.names, regions.lines, regions.ins, regions.outs, strict=True)
            for k, (name, (x1, y1, x2, y2), ins, outs) in enumerate(counts):
                color = track_color(k)
                start, end = (x1 * across, y1 * down), (x2 * across, y2 * down)
                pen.lines([start, end], color, style.line_px)
                middle, tip = _arrow(start, end, 6 * style.line_px)
                pen.lines([middle, tip], color, style.line_px)
                texts.append((f"{_one_line(name)}: in {ins}, out {outs}", color, middle))
    for text, color, (x, y) in texts:
        tile = label_patch(text, color, style.letters_px)
        _put(pixels, tile, round(x), round(y) - tile.shape[0])


def draw_texts(pixels: NDArray[np.uint8], texts: Iterable[str], style: Style) -> None:
    """Write lines of text into the upper left corner."""
    y = 0
    for text in texts:
        tile = label_patch(_one_line(text), _GREY, style.letters_px)
        _put(pixels, tile, 0, y)
        y += tile.shape[0]


class _Pen:
    """Pillow's lines in an array: while there are none, nothing is copied."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels
        self._image: Any = None
        self._draw: Any = None

    def __enter__(self) -> Self:
        return self

    def lines(self, points: Sequence[tuple[float, float]], color: Color, width: int) -> None:
        from PIL import Image, ImageDraw

        if len(points) < 2 or not self._pixels.size:
            return
        if self._draw is None:
            self._image = Image.fromarray(self._pixels)
            self._draw = ImageDraw.Draw(self._image)
        # Far outside nothing is seen, and Pillow counts in 32 bits.
        places = [tuple(round(min(max(it, -(10**6)), 10**6)) for it in place) for place in points]
        self._draw.line(places, color, width, joint="curve")

    def __exit__(self, *_: object) -> None:
        if self._image is not None:
            self._pixels[...] = np.asarray(self._image)


def _arrow(
    start: tuple[float, float], end: tuple[float, float], length: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """From the middle of a line to its right-hand side."""
    middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    dx, dy = end[0] - start[0], end[1] - start[1]
    by = length / max(math.hypot(dx, dy), 1e-9)
    return middle, (middle[0] - dy * by, middle[1] + dx * by)


def _has_area(edges: list[int]) -> bool:
    left, top, right, bottom = edges
    return left < right and top < bottom


def _text(detections: DetectionsMsg, k: int, label: LabelFormat) -> str:
    score = float(detections.scores[k])
    track = int(detections.tracker_ids[k]) if len(detections.tracker_ids) else -1
    class_id = int(detections.class_ids[k])
    return label.of(
        {
            "class": _one_line(detections.labels[k]) or None,
            "confidence": None if math.isnan(score) else score,
            "tracker_id": track if track >= 0 else None,
            "class_id": class_id if class_id >= 0 else None,
        }
    )


def _one_line(text: str) -> str:
    """A name as it has a place in a picture."""
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST_LABEL else f"{words[:_LONGEST_LABEL]}..."


def _put(pixels: NDArray[np.uint8], tile: NDArray[np.uint8], left: int, top: int) -> None:
    """Copy a tile to where it should be, moved into the picture."""
    height, width = pixels.shape[:2]
    y, x = max(min(top, height - tile.shape[0]), 0), max(min(left, width - tile.shape[1]), 0)
    place = pixels[y : y + tile.shape[0], x : x + tile.shape[1]]
    place[...] = tile[: place.shape[0], : place.shape[1]]
