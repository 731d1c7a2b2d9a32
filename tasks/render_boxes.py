"""`RenderBoxes`: detections drawn on the picture.

Lines are written straight into the slot's array, and text comes from Pillow: drawing costs one copy
of the picture. The `supervision` package draws more kinds of marks, but would bring 15 packages
(matplotlib, scipy, ...) and an OpenCV of its own.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.labels import label_patch

__all__ = ["RenderBoxes", "color_of", "draw_boxes"]

_NS_PER_S = 1_000_000_000
# fmt: off
_PALETTE = (
    (230, 60, 60), (60, 180, 75), (70, 120, 240), (245, 150, 40), (170, 80, 220), (30, 190, 200),
    (240, 80, 180), (160, 200, 40), (250, 215, 50), (130, 95, 60), (110, 205, 160), (150, 150, 240),
)
# fmt: on
_SMALLEST_TEXT_PX = 11
_LONGEST_LABEL = 60


class RenderBoxes(Task):
    """Draw the newest detections on each picture.

    A detector that runs in the background is late, and slower than the camera: a picture gets the
    newest detections that have come, as long as they are about a frame at most `max_age_s` away from
    it. What is drawn follows from the inputs alone, and so is the same in a replay. Boxes are
    scaled where the detector saw the picture in another size. A picture without boxes is passed on
    as it is.
    """

    class Config(TaskConfig):
        max_age_s: Live[PositiveFloat | None] = 2.0
        """How old detections may be, against the picture; null draws them until others come."""
        line_px: PositiveInt | None = None
        """Width of the lines; if not given, by the picture's size: 3 at 640x480, 8 at 1080p."""
        labels: bool = True
        """Write the label at each box, with its score where it has one."""

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._newest: DetectionsMsg | None = None

    def process(
        self,
        ctx: Context,
        image: Input[ImageRgb8Msg] | None,
        detections: Input[DetectionsMsg] | None,
        rendered: Output[ImageRgb8Msg],
    ) -> None:
        del ctx
        if detections is not None:
            self._newest = detections.copy()
        if image is None:
            return
        newest = self._newest
        if newest is None or newest.count == 0 or self._is_too_old(newest, image):
            rendered.fill(image)
        else:
            pixels = rendered.allocate_pixels(image.height, image.width)
            pixels[...] = image.pixels
            draw_boxes(pixels, newest, line_px=self.config.line_px, labels=self.config.labels)
        rendered.frame_id, rendered.pts = image.frame_id, image.pts
        rendered.fps, rendered.source = image.fps, image.source
        rendered.pixel_aspect = image.pixel_aspect
        rendered.publish(tov_ns=image.tov_ns)

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


def draw_boxes(
    pixels: NDArray[np.uint8],
    detections: DetectionsMsg,
    *,
    line_px: int | None = None,
    labels: bool = True,
) -> None:
    """Draw `detections` into `pixels`, uint8 of shape (height, width, 3).

    line_px: width of the lines, None: by the picture's size. A line lies inside its box's edge.
    The same class has the same colour in every picture and every run.
    """
    height, width = pixels.shape[:2]
    line = line_px or max(1, round(math.sqrt(width * height) / 180))
    scale = np.array([width, height, width, height], np.float64)
    size = np.array([detections.width, detections.height] * 2, np.float64)
    corners = np.nan_to_num(detections.boxes.astype(np.float64) * scale / np.maximum(size, 1))
    corners = np.clip(np.rint(corners), 0, scale).astype(int)
    shown = [(k, *edges) for k, edges in enumerate(corners.tolist()) if _has_area(edges)]
    for k, left, top, right, bottom in shown:
        box = pixels[top:bottom, left:right]
        color = color_of(detections.labels[k], int(detections.class_ids[k]))
        box[:line] = box[-line:] = box[:, :line] = box[:, -line:] = color
    # Labels last: a box must not cross out what its neighbour is called.
    for k, left, top, *_ in shown if labels else ():
        text = _text(detections, k)
        if text:
            color = color_of(detections.labels[k], int(detections.class_ids[k]))
            tile = label_patch(text, color, max(_SMALLEST_TEXT_PX, 5 * line))
            y, x = max(top - tile.shape[0], 0), max(min(left, width - tile.shape[1]), 0)
            place = pixels[y : y + tile.shape[0], x : x + tile.shape[1]]
            place[...] = tile[: place.shape[0], : place.shape[1]]


def color_of(label: str, class_id: int) -> tuple[int, int, int]:
    """The colour (RGB) of a class: by its number, or by its name where it has none."""
    return _PALETTE[
        (class_id if class_id >= 0 else zlib.crc32(label.encode("utf-8", "replace")))
        % len(_PALETTE)
    ]


def _has_area(edges: list[int]) -> bool:
    left, top, right, bottom = edges
    return left < right and top < bottom


def _text(detections: DetectionsMsg, k: int) -> str:
    label = " ".join(detections.labels[k].split())
    label = label if len(label) <= _LONGEST_LABEL else f"{label[:_LONGEST_LABEL]}..."
    score = float(detections.scores[k])
    return label if math.isnan(score) else f"{label} {score:.2f}".lstrip()
