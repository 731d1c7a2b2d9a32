"""What tasks do with boxes: how much they overlap, and which of those that do are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from flowrun.runtime.task import Live, TaskConfig

__all__ = ["BoxChoice", "Fraction", "best", "overlaps"]

Fraction = Annotated[float, Field(ge=0, le=1)]


class BoxChoice(TaskConfig):
    """Which of the boxes that a model gives are kept."""

    iou_threshold: Live[Fraction | None] = None
    """Of objects of one label whose boxes overlap by more than this (intersection over union), only
    the surest is kept; null keeps all, as models do that find each object once."""
    class_agnostic_nms: Live[bool] = False
    """Compare the boxes of different labels, too, where `iou_threshold` is given."""
    max_detections: Live[PositiveInt | None] = None
    """The most objects of a picture that are kept, the surest ones; null for all."""

    def best_of(
        self, boxes: NDArray[Any], scores: NDArray[Any], labels: Sequence[str]
    ) -> NDArray[np.intp]:
        """As `best`, by this choice."""
        return best(
            boxes,
            scores,
            None if self.class_agnostic_nms else labels,
            iou_threshold=self.iou_threshold,
            most=self.max_detections,
        )


def overlaps(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of each box of `first` (N, 4) with each of `second` (M, 4), as (N, M); 0
    with a box that has no area."""
    one, other = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.maximum(sides, 0).prod(axis=-1)
    areas = [np.maximum(it[..., 2:] - it[..., :2], 0).prod(axis=-1) for it in (one, other)]
    union = areas[0] + areas[1] - shared
    made: NDArray[np.float64] = np.divide(shared, union, where=union > 0, out=np.zeros(union.shape))
    return made


def best(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    labels: Sequence[str] | None,
    *,
    iou_threshold: float | None,
    most: int | None,
) -> NDArray[np.intp]:
    """The rows of the boxes that are kept, in their order: non-maximum suppression, then the `most`
    surest. Of equal scores, and where there are none (NaN), the first is the surest.

    labels: of each box; only those of one label are compared. None: all are.
    iou_threshold: boxes that overlap a surer one by more than this are left out; None: none are.
    most: how many are kept at most; None: all.
    """
    order = np.argsort(np.nan_to_num(-scores, nan=np.inf), kind="stable")
    if iou_threshold is not None and len(order) > 1:
        hides = overlaps(boxes[order], boxes[order]) > iou_threshold
        if labels is not None:
            numbers: dict[str, int] = {}
            groups = np.array([numbers.setdefault(labels[k], len(numbers)) for k in order])
            hides &= groups[:, None] == groups[None]
        kept = np.ones(len(order), bool)
        for k in range(len(order)):
            if kept[k]:
                kept[k + 1 :] &= ~hides[k, k + 1 :]
        order = order[kept]
    return np.sort(order[:most])
