"""`Detect`: an object-detection model finds objects in frames."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.backends.backend import ModelError
from flowrun.tasks.checkpoints import find_checkpoint
from flowrun.tasks.detector import ObjectDetector

__all__ = ["Detect"]


class Detect(Task):
    """Find objects in each frame that comes.

    `model` is an object-detection checkpoint of the transformers library, such as those of the
    RT-DETR, RT-DETRv2, D-FINE, DETR and YOLOS families. With `background: true` the graph's cycles
    go on meanwhile and the model always gets the newest frame. Each frame gives a message, also one
    without objects; `tov_ns`, `frame_id` and `frame_cycle` say which frame. The surest object comes
    first.
    """

    class Config(TaskConfig):
        model: str
        """A folder (relative ones start at the graph file) or a hub id: PekingU/rtdetr_r18vd."""
        threshold: Live[Annotated[float, Field(ge=0, le=1)]] = 0.5
        """Objects with a score of at most this are left out."""
        labels: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
        """Only objects with these of the model's labels; null for all."""
        device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
        """auto, cpu, cuda or cuda:N; auto: the first GPU, if there is one."""
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
        """auto: float32; bfloat16 knows 256 steps between 0.5 and 1, too few for an edge."""
        threads: PositiveInt | None = None
        """CPU threads of torch, for the whole process; torch's own number if not given."""
        local_files_only: bool = False
        """Never look on the network for the model."""

    config: Config

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        try:
            find_checkpoint(config.model, graph_dir)
        except ModelError as error:
            yield "model", str(error)

    def start(self, ctx: Context) -> None:
        config = self.config
        started = time.perf_counter()
        if config.threads is not None:
            import torch

            torch.set_num_threads(config.threads)
        self._detector = ObjectDetector.load(
            find_checkpoint(config.model, ctx.graph_dir),
            device=config.device,
            dtype=config.dtype,
            local_files_only=config.local_files_only,
        )
        ctx.computes_on = self._detector.where
        self._only = None if config.labels is None else self._detector.class_ids(config.labels)
        loaded = time.perf_counter()
        self._detector.detect(np.zeros((240, 320, 3), np.uint8), threshold=1.0)
        ctx.log.info(
            "model loaded",
            model=config.model,
            parameters=self._detector.parameters,
            where=self._detector.where,
            labels=len(self._detector.names),
            load_s=round(loaded - started, 2),
            warm_up_s=round(time.perf_counter() - loaded, 2),
        )

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], detections: Output[DetectionsMsg]
    ) -> None:
        called = time.perf_counter()
        found = self._detector.detect(
            image.pixels, threshold=self.config.threshold, only=self._only
        )
        detections.latency_ms = (time.perf_counter() - called) * 1000
        detections.boxes, detections.scores = found.boxes, found.scores
        detections.labels, detections.class_ids = found.labels, found.class_ids
        detections.width, detections.height = image.width, image.height
        detections.frame_id = image.frame_id
        detections.frame_cycle = ctx.cycle
        detections.publish(tov_ns=image.tov_ns)
