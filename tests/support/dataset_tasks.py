"""Tasks that say of each picture the same box, its number, or which pixels it has."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg, PromptResponseMsg
from flowrun.runtime.task import Context, Input, Output, Task


class Finds(Task):
    """A square that is higher than the picture."""

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], detections: Output[DetectionsMsg]
    ) -> None:
        detections.boxes = np.array([[2, -1, 10, 20]], np.float32)
        detections.scores = np.array([0.5], np.float32)
        detections.labels = ["square"]
        detections.class_ids = np.array([0], np.int32)
        detections.width, detections.height = image.width, image.height
        detections.frame_id, detections.frame_cycle = image.frame_id, ctx.cycle
        detections.publish(tov_ns=image.tov_ns)


class Says(Task):
    """The number of the picture."""

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        answer.prompt, answer.response = "which?", f"frame {image.frame_id}"
        answer.frame_id, answer.frame_cycle = image.frame_id, ctx.cycle
        answer.publish(tov_ns=image.tov_ns)


class Sums(Task):
    """The SHA-256 of the picture's pixels, and their shape."""

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        answer.prompt, answer.response = "pixels?", sum_of(image.pixels)
        answer.frame_id, answer.frame_cycle = image.frame_id, ctx.cycle
        answer.publish(tov_ns=image.tov_ns)


def sum_of(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape} {hashlib.sha256(pixels.tobytes()).hexdigest()}"
