"""`Crop`: a part of each picture."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig

__all__ = ["Crop"]

_NS_PER_S = 1_000_000_000

Box = Annotated[list[float], Field(min_length=4, max_length=4)]


class Crop(Task):
    """Cut a part out of each picture.

    The part is `box`; or, with `detections` connected, the surest (or largest) object that was found, so
    that another model may look at it closely. A picture without such an object is left out. Detections
    of a detector that runs in the background are late: a picture gets the newest ones, at most
    `max_age_s` away from it, scaled where the detector saw the picture in another size.

    A message holds one picture, so that one object of a picture is cut out; for several classes, have a
    `Crop` with its `labels` for each. What is cut lies within the picture, and has at least one pixel.
    """

    class Config(TaskConfig):
        box: Live[Box | None] = None
        """Left, top, right and bottom, in pixels of the picture, or in parts of its size if `unit` says
        so. null: what is found."""
        unit: Literal["pixels", "parts"] = "pixels"
        """parts: `box` is in parts of the picture's width and height, from 0 to 1."""
        labels: list[str] | None = None
        """Only objects of these classes; null for all."""
        pick: Literal["surest", "largest"] = "surest"
        """Which of several objects is cut out."""
        margin: Live[NonNegativeFloat] = 0.1
        """What is added around an object on each side, in parts of its width and height."""
        max_age_s: Live[PositiveFloat | None] = 2.0
        """How old detections may be, against the picture; null takes them until others come."""

        @model_validator(mode="after")
        def _has_an_area(self) -> Crop.Config:
            if self.box is not None:
                left, top, right, bottom = self.box
                if not (0 <= left < right and 0 <= top < bottom):
                    raise ValueError(
                        "'box' must be left, top, right and bottom, with 0 <= left < right and 0 <= "
                        f"top < bottom; got {self.box}"
                    )
                if self.unit == "parts" and max(right, bottom) > 1:
                    raise ValueError(f"'box' has parts of more than 1: {self.box}; unit: pixels?")
            return self

    example_config = MappingProxyType({"box": [100, 50, 420, 290]})

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._newest: DetectionsMsg | None = None

    def process(
        self,
        ctx: Context,
        image: Input[ImageRgb8Msg] | None,
        detections: Input[DetectionsMsg] | None,
        cropped: Output[ImageRgb8Msg],
    ) -> None:
        del ctx
        if detections is not None:
            self._newest = detections.copy()
        if image is None:
            return
        box = self._box(image)
        if box is None:
            return
        left, top, right, bottom = box
        pixels = cropped.allocate_pixels(bottom - top, right - left)
        pixels[...] = image.pixels[top:bottom, left:right]
        cropped.describe_as(image)
        cropped.publish(tov_ns=image.tov_ns)

    def _box(self, image: ImageRgb8Msg) -> tuple[int, int, int, int] | None:
        """Left, top, right and bottom, whole pixels within the picture; None if nothing was found."""
        width, height = image.width, image.height
        box = self.config.box
        if box is None:
            edges = self._found(image)
            return None if edges is None else _within(edges, width, height)
        if self.config.unit == "parts":
            box = [part * length for part, length in zip(box, (width, height) * 2, strict=True)]
        if box[0] >= width or box[1] >= height:
            raise ValueError(
                f"the box {', '.join(f'{edge:g}' for edge in box)} is outside the picture, which has "
                f"{width}x{height} pixels"
            )
        return _within(tuple(box), width, height)

    def _found(self, image: ImageRgb8Msg) -> tuple[float, ...] | None:
        newest = self._newest
        if newest is None or self._is_too_old(newest, image):
            return None
        labels = self.config.labels
        boxes = np.nan_to_num(newest.boxes.astype(np.float64))
        areas = np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(
            boxes[:, 3] - boxes[:, 1], 0, None
        )
        allowed = [labels is None or label in labels for label in newest.labels]
        rows = np.flatnonzero((areas > 0) & np.array(allowed, bool))
        if not len(rows):
            return None
        worth = areas if self.config.pick == "largest" else np.nan_to_num(newest.scores, nan=-1.0)
        left, top, right, bottom = boxes[rows[np.argmax(worth[rows])]].tolist()
        by_x, by_y = newest.scale_to(image.width, image.height)
        more_x, more_y = (right - left) * self.config.margin, (bottom - top) * self.config.margin
        return (
            (left - more_x) * by_x,
            (top - more_y) * by_y,
            (right + more_x) * by_x,
            (bottom + more_y) * by_y,
        )

    def _is_too_old(self, detections: DetectionsMsg, image: ImageRgb8Msg) -> bool:
        """Also where they are too new, as when a source has started again."""
        limit = self.config.max_age_s
        return limit is not None and abs(image.tov_ns - detections.tov_ns) > limit * _NS_PER_S

    def freeze(self) -> Any:
        if self._newest is None:
            return None
        data = b"".join(bytes(part) for part in self._newest.encode())
        return {"tov_ns": self._newest.tov_ns, "detections": data}

    def thaw(self, state: Any) -> None:
        self._newest = None
        if state is not None:
            self._newest = DetectionsMsg()
            self._newest.load(state["detections"])
            self._newest.publish(tov_ns=state["tov_ns"])


def _within(edges: tuple[float, ...], width: int, height: int) -> tuple[int, int, int, int]:
    """Whole pixels of a picture that hold the box, cut at the picture's edges, and at least one."""
    left, top, right, bottom = edges
    first_x = min(max(math.floor(left), 0), width - 1)
    first_y = min(max(math.floor(top), 0), height - 1)
    end_x = max(min(math.ceil(right), width), first_x + 1)
    end_y = max(min(math.ceil(bottom), height), first_y + 1)
    return first_x, first_y, end_x, end_y
