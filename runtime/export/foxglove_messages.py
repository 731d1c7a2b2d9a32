"""Messages of Foxglove's schemas that the log itself does not hold: what `--to foxglove` writes."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import protobuf
from flowrun.msgs.fields import Buffer

__all__ = [
    "COMPRESSED_IMAGE",
    "COMPRESSED_VIDEO",
    "IMAGE_ANNOTATIONS",
    "OF_LINES",
    "OF_ZONES",
    "RAW_IMAGE",
    "Boxes",
    "Drawn",
    "Regions",
    "drawn_in",
    "label_color",
    "pack_annotations",
    "pack_compressed",
    "pack_raw_image",
]

OF_ZONES = "polygons", "counts"
OF_LINES = "lines", "ins", "outs"
"""Fields by which a `ZonesMsg` and a `LinesMsg` are known, besides their names."""
_LINE_LOOP, _LINE_STRIP = 2, 3
_THICKNESS_PX = 2.0
_FONT_SIZE_PX = 16.0
_LUMINANCE = (0.2126, 0.7152, 0.0722)
_DARKEST = 0.45
"""Foxglove writes black on the colour, Rerun the colour on black: both are read from here on."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """What was found in a picture.

    boxes: (N, 4): left, top, right, bottom in pixels.
    texts: of each, its label, and its score and the number of its track where it has them.
    labels: the labels alone.
    """

    boxes: NDArray[Any]
    texts: list[str]
    labels: list[str]

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self | None:
        """From the fields of any message that has boxes (N, 4) and labels, such as
        `DetectionsMsg`; scores and tracks are optional, and so is each (NaN, -1). None of other
        messages."""
        boxes, labels, scores = (fields.get(name) for name in ("boxes", "labels", "scores"))
        if not isinstance(boxes, np.ndarray) or boxes.shape[1:] != (4,):
            return None
        if not isinstance(labels, list) or len(labels) != len(boxes):
            return None
        words = [str(label) for label in labels]
        texts = words
        if isinstance(scores, np.ndarray) and scores.shape == (len(boxes),):
            texts = [
                word if np.isnan(score) else f"{word} {score:.2f}"
                for word, score in zip(words, scores, strict=True)
            ]
        trackers = fields.get("tracker_ids")
        if isinstance(trackers, np.ndarray) and trackers.shape == (len(boxes),):
            texts = [
                text if tracker < 0 else f"{text} #{tracker}"
                for text, tracker in zip(texts, trackers.tolist(), strict=True)
            ]
        return cls(boxes, texts, words)

    @property
    def outlines(self) -> list[NDArray[Any]]:
        """The corners of each, (4, 2)."""
        return [box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2) for box in self.boxes]

    @property
    def is_closed(self) -> bool:
        return True

    def stretched(self, across: float, down: float) -> Self:
        """These boxes in a picture that was made `across` times as wide and `down` times as high."""
        if across == down == 1:
            return self
        return replace(self, boxes=self.boxes * np.array([across, down, across, down]))


@dataclass(frozen=True, slots=True)
class Regions:
    """Zones of a picture, or lines across it.

    outlines: the points of each, (N, 2), in pixels.
    texts: of each, its name, and its counts.
    labels: the names alone.
    is_closed: whether the last point of each is joined with the first.
    """

    outlines: list[NDArray[Any]]
    texts: list[str]
    labels: list[str]
    is_closed: bool

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self | None:
        """From the fields of a `ZonesMsg` or a `LinesMsg`; None of other messages."""
        if fields.keys() >= {"names", *OF_ZONES}:
            names, shapes = fields["names"], fields["polygons"]
            counts = [f"{count}" for count in fields["counts"]]
        elif fields.keys() >= {"names", *OF_LINES}:
            names, shapes = fields["names"], fields["lines"]
            pairs = zip(fields["ins"], fields["outs"], strict=True)
            counts = [f"in {ins} out {outs}" for ins, outs in pairs]
        else:
            return None
        outlines = [np.array(shape, np.float64).reshape(-1, 2) for shape in shapes]
        texts = [f"{name} {count}" for name, count in zip(names, counts, strict=True)]
        return cls(outlines, texts, list(names), is_closed="polygons" in fields)

    def stretched(self, across: float, down: float) -> Self:
        """As of `Boxes`."""
        if across == down == 1:
            return self
        return replace(self, outlines=[it * np.array([across, down]) for it in self.outlines])


Drawn = Boxes | Regions


def drawn_in(fields: dict[str, Any]) -> Drawn | None:
    """What is drawn over a picture of a message's fields; None if nothing is."""
    return Boxes.of(fields) or Regions.of(fields)


def label_color(label: str) -> tuple[float, float, float]:
    """Red, green and blue from 0 to 1, the same for each thing of that name, and bright enough for
    black text on it."""
    color = colorsys.hsv_to_rgb(crc32(label.encode()) % 360 / 360, 0.9, 1.0)
    luminance = sum(weight * part for weight, part in zip(_LUMINANCE, color, strict=True))
    white = max(0.0, (_DARKEST - luminance) / (1 - luminance))
    red, green, blue = (part + (1 - part) * white for part in color)
    return red, green, blue


def pack_annotations(tov_ns: int, found: Drawn) -> bytes:
    """A `foxglove.ImageAnnotations`: an outline and a text of each box, zone or line.

    tov_ns: of the picture, by which viewers find the picture that it belongs to.
    """
    stamp = protobuf.timestamp_field(1, tov_ns)
    outlines, texts = [], []
    kind = _LINE_LOOP if found.is_closed else _LINE_STRIP
    for points, label, text in zip(found.outlines, found.labels, found.texts, strict=True):
        corners = [(float(x), float(y)) for x, y in points]
        color = _color(*label_color(label))
        outlines.append(
            stamp
            + protobuf.varint_field(2, kind)
            + b"".join(protobuf.bytes_field(3, _point(*corner)) for corner in corners)
            + protobuf.bytes_field(4, color)
            + protobuf.double_field(7, _THICKNESS_PX)
        )
        texts.append(
            stamp
            + protobuf.bytes_field(2, _point(*corners[0]))
            + protobuf.text_field(3, text)
            + protobuf.double_field(4, _FONT_SIZE_PX)
            + protobuf.bytes_field(5, _color(0, 0, 0))
            + protobuf.bytes_field(6, color)
        )
    return b"".join(
        [
            *(protobuf.bytes_field(2, outline) for outline in outlines),
            *(protobuf.bytes_field(3, text) for text in texts),
            protobuf.timestamp_field(5, tov_ns),
        ]
    )


def pack_compressed(tov_ns: int, source: str, form: str, data: Buffer, *, is_video: bool) -> bytes:
    """A `foxglove.CompressedVideo` (form "h264", "h265", "vp9" or "av1") or `CompressedImage`."""
    # The two number their members otherwise.
    frame_id, content, name = (2, 3, 4) if is_video else (4, 2, 3)
    return b"".join(
        (
            protobuf.timestamp_field(1, tov_ns),
            protobuf.text_field(frame_id, source),
            protobuf.text_field(name, form),
            protobuf.tag_and_length(content, len(data)),
            data,
        )
    )


def pack_raw_image(tov_ns: int, source: str, pixels: NDArray[np.uint8]) -> bytes:
    """A `foxglove.RawImage` of RGB `pixels` (height, width, 3)."""
    height, width = pixels.shape[:2]
    return b"".join(
        (
            protobuf.timestamp_field(1, tov_ns),
            protobuf.text_field(7, source),
            protobuf.fixed32_field(2, width),
            protobuf.fixed32_field(3, height),
            protobuf.text_field(4, "rgb8"),
            protobuf.fixed32_field(5, width * 3),
            protobuf.tag_and_length(6, pixels.size),
            pixels.tobytes(),
        )
    )


def _point(x: float, y: float) -> bytes:
    return protobuf.double_field(1, x) + protobuf.double_field(2, y)


def _color(red: float, green: float, blue: float) -> bytes:
    values = (red, green, blue, 1.0)
    return b"".join(protobuf.double_field(k, value) for k, value in enumerate(values, 1))


# -- schemas: name and descriptor, made when first asked for ---------------------------------------

Schema = tuple[str, Callable[[], bytes]]


# fmt: off
def _compressed_image() -> bytes:
    return _set("CompressedImage", [_STAMP, (4, "frame_id", "string"), (2, "data", "bytes"),
                                    (3, "format", "string")])


def _compressed_video() -> bytes:
    return _set("CompressedVideo", [_STAMP, (2, "frame_id", "string"), (3, "data", "bytes"),
                                    (4, "format", "string")])


def _raw_image() -> bytes:
    return _set("RawImage", [
        _STAMP, (7, "frame_id", "string"), (2, "width", "fixed32"), (3, "height", "fixed32"),
        (4, "encoding", "string"), (5, "step", "fixed32"), (6, "data", "bytes"),
    ])


def _image_annotations() -> bytes:
    metadata = "repeated KeyValuePair"
    types = ["UNKNOWN", "POINTS", "LINE_LOOP", "LINE_STRIP", "LINE_LIST"]
    others = [
        _described("Color", [(1, "r", "double"), (2, "g", "double"), (3, "b", "double"),
                             (4, "a", "double")]),
        _described("Point2", [(1, "x", "double"), (2, "y", "double")]),
        _described("KeyValuePair", [(1, "key", "string"), (2, "value", "string")]),
        _described("CircleAnnotation", [
            _STAMP, (2, "position", "Point2"), (3, "diameter", "double"),
            (4, "thickness", "double"), (5, "fill_color", "Color"), (6, "outline_color", "Color"),
            (7, "metadata", metadata),
        ]),
        protobuf.message_descriptor("foxglove", "PointsAnnotation", [
            _STAMP, (2, "type", "enum"), (3, "points", "repeated Point2"),
            (4, "outline_color", "Color"), (5, "outline_colors", "repeated Color"),
            (6, "fill_color", "Color"), (7, "thickness", "double"), (8, "metadata", metadata),
        ], enum=("Type", types)),
        _described("TextAnnotation", [
            _STAMP, (2, "position", "Point2"), (3, "text", "string"), (4, "font_size", "double"),
            (5, "text_color", "Color"), (6, "background_color", "Color"), (7, "metadata", metadata),
        ]),
    ]
    return _set("ImageAnnotations", [
        (1, "circles", "repeated CircleAnnotation"), (2, "points", "repeated PointsAnnotation"),
        (3, "texts", "repeated TextAnnotation"), (4, "metadata", metadata),
        (5, "timestamp", "timestamp"),
    ], others)
# fmt: on


_STAMP: protobuf.Member = (1, "timestamp", "timestamp")


def _described(name: str, members: list[protobuf.Member]) -> bytes:
    return protobuf.message_descriptor("foxglove", name, members)


def _set(name: str, members: list[protobuf.Member], others: Sequence[bytes] = ()) -> bytes:
    return protobuf.descriptor_set("foxglove", name, members, others=others)


COMPRESSED_IMAGE: Schema = ("foxglove.CompressedImage", _compressed_image)
COMPRESSED_VIDEO: Schema = ("foxglove.CompressedVideo", _compressed_video)
RAW_IMAGE: Schema = ("foxglove.RawImage", _raw_image)
IMAGE_ANNOTATIONS: Schema = ("foxglove.ImageAnnotations", _image_annotations)
