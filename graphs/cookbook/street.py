"""A street, drawn here, and what a detector would find in it: graphs of this folder need no camera and
no model with it. In yours, take `VideoCapture` and `Detect` in its place.
"""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeInt, PositiveFloat

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg
from flowrun.runtime.task import Context, Output, Task, TaskConfig

WIDTH, HEIGHT = 320, 240
# label, class id, colour, width, height, where it is at second 0, and pixels a second
ROAD_USERS = (
    ("car", 2, (70, 120, 240), 60, 30, (-50, 90), (80, 0)),
    ("car", 2, (230, 60, 60), 60, 30, (320, 140), (-60, 0)),
    ("person", 0, (250, 215, 50), 16, 40, (150, 230), (5, -50)),
)


class Street(Task):
    """Two cars and a person, who come again every 8 seconds.

    image: RGB pictures of 320x240.
    detections: what is in them; the scores are random, the same ones in each run.
    """

    class Config(TaskConfig):
        fps: PositiveFloat = 10.0
        """Pictures a second of the film, which is not waited for."""
        frames: NonNegativeInt = 240
        """How many pictures there are; 0: no end."""

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._number = 0

    def start(self, ctx: Context) -> None:
        self._began_ns = ctx.clock_ns()

    def process(
        self, ctx: Context, image: Output[ImageRgb8Msg], detections: Output[DetectionsMsg]
    ) -> None:
        at_s = self._number / self.config.fps
        tov_ns = self._began_ns + round(at_s * 1e9)
        pixels = image.allocate_pixels(HEIGHT, WIDTH)
        pixels[:] = (96, 120, 96)
        pixels[80:180] = (70, 70, 74)
        boxes, labels, class_ids = [], [], []
        for label, class_id, color, width, height, place, speed in ROAD_USERS:
            x, y = (round(p + v * (at_s % 8)) for p, v in zip(place, speed, strict=True))
            left, top, right, bottom = (
                max(x, 0),
                max(y, 0),
                min(x + width, WIDTH),
                min(y + height, HEIGHT),
            )
            if left < right and top < bottom:
                pixels[top:bottom, left:right] = color
                boxes.append((left, top, right, bottom))
                labels.append(label)
                class_ids.append(class_id)
        image.frame_id, image.fps, image.source = self._number, self.config.fps, "street"
        image.publish(tov_ns=tov_ns)
        detections.boxes = np.array(boxes, np.float32).reshape(-1, 4)
        detections.scores = ctx.rng.uniform(0.7, 1.0, len(boxes)).astype(np.float32)
        detections.labels, detections.class_ids = labels, np.array(class_ids, np.int32)
        detections.width, detections.height = WIDTH, HEIGHT
        detections.frame_id, detections.frame_cycle = self._number, ctx.cycle
        detections.publish(tov_ns=tov_ns)
        self._number += 1
        if self._number == self.config.frames:
            ctx.finish()
