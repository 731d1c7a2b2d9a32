"""`Blur`: what was found in a picture is made unrecognizable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveInt

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig

__all__ = ["Blur", "concealed"]

_NS_PER_S = 1_000_000_000

Method = Literal["pixelate", "blur", "fill"]


class Blur(Task):
    """Make faces, or whatever else was found, unrecognizable.

    For privacy it fails on the safe side: a picture about which no detections have come, in its own
    cycle, is concealed as a whole. A detector that works in the background, or not on every picture,
    needs `max_age_s`.

    A run that is to hold no faces must not log the camera either: give it `logging: {enabled: false}`.
    A replay then begins with the pictures that this task has made. `flowrun check` warns where the log
    keeps, or another task shows, the pictures as they were before.
    """

    class Config(TaskConfig):
        labels: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
        """What is concealed: objects with these labels; null: all that is found."""
        method: Live[Method] = "pixelate"
        """How: squares of one colour each, a blur, or black."""
        blocks: Live[PositiveInt] = 6
        """Into how many squares the longer side is divided; a blur is as coarse."""
        margin: Live[NonNegativeFloat] = 0.15
        """By how much of their width and height boxes are made larger on each side: a detector's box
        ends at the face."""
        max_age_s: Live[NonNegativeFloat] = 0.0
        """How much older than the picture detections may be. Who has moved meanwhile is not hidden."""

    conceals: ClassVar[str | None] = "image"

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._newest: DetectionsMsg | None = None

    @classmethod
    def check_inputs(
        cls, config: TaskConfig, inputs: Mapping[str, type[Message]]
    ) -> Iterator[tuple[str, str]]:
        del config
        if "detections" not in inputs:
            yield (
                "",
                "Blur does not know what to conceal: connect a task that finds it, such as DetectFaces "
                "or Detect",
            )

    def process(
        self,
        ctx: Context,
        image: Input[ImageRgb8Msg] | None,
        detections: Input[DetectionsMsg] | None,
        blurred: Output[ImageRgb8Msg],
    ) -> None:
        del ctx
        if detections is not None:
            self._newest = detections.copy()
        if image is None:
            return
        pixels = blurred.allocate_pixels(image.height, image.width)
        pixels[...] = image.pixels
        config = self.config
        for left, top, right, bottom in self._boxes(image):
            part = pixels[top:bottom, left:right]
            part[...] = concealed(part, config.method, blocks=config.blocks)
        blurred.describe_as(image)
        blurred.publish(tov_ns=image.tov_ns)

    def _boxes(self, image: ImageRgb8Msg) -> list[tuple[int, int, int, int]]:
        """What to conceal: left, top, right, bottom in pixels of the picture, within it."""
        found, width, height = self._newest, image.width, image.height
        if found is None or not self._is_about(found, image):
            return [(0, 0, width, height)]
        labels = self.config.labels
        rows = [k for k, label in enumerate(found.labels) if labels is None or label in labels]
        boxes = found.boxes[rows].astype(np.float64) * np.tile(found.scale_to(width, height), 2)
        size = np.array([width, height], np.float64)
        more = (boxes[:, 2:] - boxes[:, :2]) * self.config.margin
        first = np.floor(np.clip(boxes[:, :2] - more, 0, size)).astype(int)
        last = np.ceil(np.clip(boxes[:, 2:] + more, 0, size)).astype(int)
        # Where a box is so thin that it has no pixel, what it is about is there all the same.
        last = np.minimum(np.maximum(last, first + 1), size.astype(int))
        return [
            (left, top, right, bottom)
            for (left, top), (right, bottom) in zip(first.tolist(), last.tolist(), strict=True)
            if left < right and top < bottom
        ]

    def _is_about(self, found: DetectionsMsg, image: ImageRgb8Msg) -> bool:
        if (found.tov_ns, found.frame_id) == (image.tov_ns, image.frame_id):
            return True
        age_ns = image.tov_ns - found.tov_ns
        return 0 <= age_ns <= self.config.max_age_s * _NS_PER_S and self.config.max_age_s > 0

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


def concealed(pixels: NDArray[np.uint8], method: Method, *, blocks: int) -> NDArray[np.uint8]:
    """`pixels`, uint8 (H, W, 3), made unrecognizable: a new array.

    blocks: into how many parts the longer side is divided; of each part at most its mean is left.
    """
    height, width = pixels.shape[:2]
    if method == "fill":
        return np.zeros_like(pixels)
    side = max(1, -(-max(height, width) // blocks))
    if method == "blur":
        return _blurred(pixels, side)
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    sums = np.add.reduceat(pixels, rows, axis=0, dtype=np.uint32)
    sums = np.add.reduceat(sums, columns, axis=1)
    high = np.diff(rows, append=height)[:, None, None]
    wide = np.diff(columns, append=width)[None, :, None]
    means: NDArray[np.uint8] = (sums // (high * wide)).astype(np.uint8)
    return means.repeat(high[:, 0, 0], axis=0).repeat(wide[0, :, 0], axis=1)


def _blurred(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    from PIL import Image, ImageFilter

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    # Three box filters, which are near to a Gaussian, in whole numbers: the same on every CPU.
    for _ in range(3):
        picture = picture.filter(ImageFilter.BoxBlur(side / 2))
    return np.asarray(picture)
