"""Whether an answer is the right one: texts are compared as people read them, boxes by their overlap."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.tasks.evaluation.recorded import DETECTIONS

__all__ = ["LEAST_OVERLAP", "Boxes", "Score", "Truth", "boxes_in", "score", "shown"]

LEAST_OVERLAP = 0.5
"""Intersection over union from which on two boxes of one label are the same object."""


@dataclass(frozen=True, slots=True)
class Score:
    """How near an answer is to the right one: 1 for the same, 0 for nothing of it.

    right: whether it is the same.
    """

    near: float
    right: bool


@dataclass(frozen=True, slots=True)
class Boxes:
    """Labelled boxes: left, top, right, bottom, all in the same unit."""

    boxes: NDArray[np.float64]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """What the right answer is: the fields of a message, or those of one that is wrong.

    is_wrong: whether the fields are those of a wrong answer, of which no right one is known.
    """

    fields: Mapping[str, Any]
    is_wrong: bool = False


def score(kind: str, answer: Mapping[str, Any], truth: Truth) -> Score | None:
    """How near `answer`, the fields of a message of that kind, is to the truth; None where that cannot
    be known, because it is another answer than one that is wrong."""
    found = _near(kind, answer, truth.fields)
    if not truth.is_wrong:
        return found
    return Score(0.0, right=False) if found.right else None


def _near(kind: str, answer: Mapping[str, Any], right: Mapping[str, Any]) -> Score:
    if (one := boxes_in(kind, answer)) is not None and (other := boxes_in(kind, right)) is not None:
        near = _f1(one, other)
        return Score(near, right=near == 1)
    is_same = _read(answer.get("response")) == _read(right.get("response"))
    return Score(float(is_same), right=is_same)


def boxes_in(kind: str, fields: Mapping[str, Any]) -> Boxes | None:
    """The boxes of detections, or of an answer in text that holds some, or was asked for some; None of
    other answers."""
    if kind == DETECTIONS:
        boxes = np.array(fields.get("boxes", ()), np.float64).reshape(-1, 4)
        labels = tuple(map(str, fields.get("labels", ())))
        number = min(len(boxes), len(labels))
        return Boxes(boxes[:number], labels[:number])
    text, prompt = str(fields.get("response", "")), str(fields.get("prompt", ""))
    asks = prompt.lstrip().startswith("detect")
    if "<loc" not in text and not asks:
        return None
    from flowrun.tasks.parse_detections import parse_boxes  # which brings pydantic

    found = parse_boxes(text)
    if not found and not asks:
        return None
    size = fields.get("frame_width") or 1, fields.get("frame_height") or 1
    boxes = np.array([it.xyxy for it in found], np.float64).reshape(-1, 4) * (*size, *size)
    return Boxes(boxes, tuple(it.label for it in found))


def _f1(one: Boxes, other: Boxes) -> float:
    """The harmonic mean of how many boxes of each are in the other: each box is matched with one of its
    label at most, those that overlap most first."""
    from flowrun.tasks.boxes import overlaps

    total = len(one.labels) + len(other.labels)
    if not total:
        return 1.0
    same = np.array(one.labels, dtype=object)[:, None] == np.array(other.labels, dtype=object)[None]
    near = np.where(same, overlaps(one.boxes, other.boxes), 0.0)
    matched = 0
    while near.size and near.max() >= LEAST_OVERLAP:
        row, column = np.unravel_index(near.argmax(), near.shape)
        near[row, :] = near[:, column] = 0.0
        matched += 1
    return 2 * matched / total


def _read(text: Any) -> str:
    """A text as people read it: spaces, capitals and a full stop at the end do not matter."""
    return _folded("" if text is None else str(text))


@functools.lru_cache(10_000)  # answers are often the same
def _folded(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()


def shown(kind: str, fields: Mapping[str, Any] | None) -> str:
    """An answer in a line."""
    if fields is None:
        return ""
    if "error" in fields:
        return str(fields["error"])
    if kind == DETECTIONS:
        labels: Sequence[str] = fields.get("labels", ())
        counts = {label: labels.count(label) for label in dict.fromkeys(labels)}
        return ", ".join(f"{n} {label}" if n > 1 else label for label, n in counts.items()) or "-"
    return str(fields.get("response", ""))
