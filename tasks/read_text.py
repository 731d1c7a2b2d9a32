"""`ReadText`: what is written in a picture, read by small models that their package brings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.extras import import_optional, missing
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.boxes import Fraction

__all__ = ["ReadText"]

_PACKAGES = ("rapidocr", "onnxruntime")


class ReadText(Task):
    """Read the text in each picture: signs, displays, number plates, in Latin letters and Chinese.

    With the PP-OCR models that come in the package `rapidocr`, on the CPU, without a network: a large
    part of a second for a picture, so give it `background: true`, `rate_hz`, or a `Crop` before it. Each
    line of text is an object: its label is the text, its box the smallest upright one around it, in the
    order of reading. A picture without text gives a message without objects. Needs the extra `text`.
    """

    class Config(TaskConfig):
        threshold: Live[Fraction] = 0.5
        """Lines with a score below this are left out."""
        max_side: Annotated[int, Field(ge=64, le=4096)] = 960
        """Pictures whose longer side has more pixels are made smaller to find text: letters of less than
        about 10 pixels are not read after that."""
        threads: PositiveInt = 1
        """CPU threads of the models."""

    @classmethod
    def check(cls, _config: TaskConfig, _graph_dir: Path) -> Iterator[tuple[str, str]]:
        text = missing("ReadText", _PACKAGES, extra="text")
        if text is not None:
            yield "", text

    def start(self, ctx: Context) -> None:
        import_optional("onnxruntime", "ReadText", extra="text")
        rapidocr = import_optional("rapidocr", "ReadText", extra="text")
        threads, runtime = self.config.threads, "EngineConfig.onnxruntime"
        self._read = rapidocr.RapidOCR(
            params={
                "Global.log_level": "critical",
                "Det.limit_type": "max",
                "Det.limit_side_len": self.config.max_side,
                f"{runtime}.intra_op_num_threads": threads,
                f"{runtime}.inter_op_num_threads": threads,
            }
        )
        ctx.computes_on = "cpu"

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], texts: Output[DetectionsMsg]
    ) -> None:
        called = time.perf_counter()
        found = self._read(np.ascontiguousarray(image.pixels[:, :, ::-1]))  # as OpenCV has it
        lines = (
            [] if found.boxes is None else zip(found.boxes, found.txts, found.scores, strict=True)
        )
        size = np.array([image.width, image.height], np.float32)
        kept = [
            (
                np.clip([*corners.min(axis=0), *corners.max(axis=0)], 0, np.tile(size, 2)),
                text,
                score,
            )
            for corners, text, score in lines
            if text and score >= self.config.threshold
        ]
        texts.boxes = np.array([box for box, _, _ in kept], np.float32).reshape(-1, 4)
        texts.scores = np.array([score for _, _, score in kept], np.float32)
        texts.labels = [text for _, text, _ in kept]
        texts.class_ids = np.full(len(kept), -1, np.int32)
        texts.width, texts.height = image.width, image.height
        texts.frame_id, texts.frame_cycle = image.frame_id, ctx.cycle
        texts.latency_ms = (time.perf_counter() - called) * 1000
        texts.publish(tov_ns=image.tov_ns)
