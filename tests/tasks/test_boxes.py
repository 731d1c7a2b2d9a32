"""Which boxes are kept, against a plain reference; what is asked of a detector and of an answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.tasks.boxes import BoxChoice, best, overlaps

Box = tuple[float, float, float, float]

# Whole numbers, so that boxes touch, coincide and lie within each other, over the border too.
SIDES = st.integers(-3, 12)
BOXES = st.lists(
    st.tuples(
        st.tuples(*[SIDES] * 4),
        st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]),
        st.sampled_from(["cat", "dog", "dog\0"]),
    ),
    max_size=12,
)


def overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = sum(max(it[2] - it[0], 0) * max(it[3] - it[1], 0) for it in (a, b)) - shared
    return shared / union if union > 0 else 0.0


def kept(
    objects: list[Any], threshold: float | None, most: int | None, *, agnostic: bool
) -> list[int]:
    """As a child would do it: the surest first, and each that no surer one hides."""
    order = sorted(
        range(len(objects)), key=lambda k: -objects[k][1] if objects[k][1] >= 0 else math.inf
    )
    chosen: list[int] = []
    for k in order:
        rivals = [j for j in chosen if agnostic or objects[j][2] == objects[k][2]]
        if threshold is None or all(
            overlap(objects[j][0], objects[k][0]) <= threshold for j in rivals
        ):
            chosen.append(k)
    return sorted(chosen if most is None else chosen[:most])


@settings(max_examples=60)
@given(
    objects=BOXES,
    threshold=st.sampled_from([None, 0.0, 0.3, 0.5, 1.0]),
    most=st.sampled_from([None, 1, 3]),
    agnostic=st.booleans(),
)
def test_what_is_kept_is_what_a_plain_reference_keeps(
    objects: list[Any], threshold: float | None, most: int | None, *, agnostic: bool
) -> None:
    choice = BoxChoice(iou_threshold=threshold, max_detections=most, class_agnostic_nms=agnostic)
    boxes = np.array([it[0] for it in objects], np.float32).reshape(-1, 4)
    scores = np.array([it[1] for it in objects], np.float32)
    labels = [it[2] for it in objects]
    assert choice.best_of(boxes, scores, labels).tolist() == kept(
        objects, threshold, most, agnostic=agnostic
    )
    expected = [[overlap(a, b) for b in boxes.tolist()] for a in boxes.tolist()]
    np.testing.assert_allclose(overlaps(boxes, boxes), np.array(expected).reshape(2 * [len(boxes)]))


def test_nothing_is_left_out_unless_asked() -> None:
    boxes = np.tile([0, 0, 5, 5], (3, 1))
    assert BoxChoice().best_of(boxes, np.ones(3), ["cat"] * 3).tolist() == [0, 1, 2]
    assert best(boxes, np.array([0.1, 0.9, 0.5]), None, iou_threshold=0.5, most=None).tolist() == [
        1
    ]


@pytest.mark.parametrize("value", [-0.1, 1.1, True, "much"])
def test_an_overlap_is_a_fraction(value: object) -> None:
    with pytest.raises(ValueError, match="iou_threshold"):
        BoxChoice(iou_threshold=value)
