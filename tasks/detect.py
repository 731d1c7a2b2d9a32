"""`Detect`: an object-detection model finds objects in frames."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, PositiveInt

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.backends.budget import Budget, Spending, is_timed
from flowrun.tasks.boxes import BoxChoice, Fraction
from flowrun.tasks.models.checkpoints import find_checkpoint
from flowrun.tasks.models.detector import Found, ObjectDetector, Search, class_names, ids_of
from flowrun.tasks.models.installed import need_packages, packages_missing
from flowrun.tasks.models.question import ModelError
from flowrun.tasks.models.shared import Shared, SharedModel
from flowrun.tasks.named_inputs import InputNames, batched_pairs

__all__ = ["Detect", "DetectBatch"]

_SharedDetector: TypeAlias = SharedModel[ObjectDetector, Search, Found]
_MODELS: Shared[_SharedDetector] = Shared()


class Detect(Task):
    """Find objects in each frame that comes.

    `model` is an object-detection checkpoint of the transformers library, such as those of the
    RT-DETR, RT-DETRv2, D-FINE, DETR and YOLOS families. With `background: true` the graph's cycles
    go on meanwhile and the model always gets the newest frame. Each frame gives a message, also one
    without objects, but for frames that `budget` leaves out; `tov_ns`, `frame_id` and `frame_cycle`
    say which frame. The surest object comes first. Tasks with the same `model`, `device` and `dtype`
    share one copy of it.

    Boxes are in pixels of the frame, scores from 0 to 1. A checkpoint that is no detector, and a label
    that it does not know, are errors before the first cycle.
    """

    class Config(BoxChoice):
        model: str
        """The checkpoint: a folder (relative ones start at the graph file) or a hub id, such as
        PekingU/rtdetr_r18vd."""
        threshold: Live[Fraction] = 0.5
        """Objects with a score of at most this are left out."""
        confidence: Live[dict[str, Fraction] | None] = None
        """The score for some of the model's labels, in place of `threshold`, such as {person: 0.7}."""
        labels: (
            Annotated[tuple[str, ...], Field(min_length=1)]
            | Annotated[dict[str, str], Field(min_length=1)]
            | None
        ) = None
        """Only objects with these of the model's labels; null for all. Each with the name that its
        objects get, such as {automobile: car}, where that is another."""
        budget: Budget | None = None
        """How often the model looks at a frame at most: {per_hour, p99_ms}. What is left out for that is
        in the log, the report and the metrics, with the cause."""
        max_batch: PositiveInt = 1
        """How many frames of one size the model may look at together, where several tasks share it
        and wait for it. The last digits then depend on who waits: with more than 1, a replay takes
        the detections from the log."""
        device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
        """Where the model computes: auto, cpu, cuda or cuda:N; auto: the first GPU, if there is one."""
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
        """The type that the model computes in; auto: float32, since bfloat16 has 256 steps between
        0.5 and 1, too few for an edge."""
        threads: PositiveInt | None = None
        """CPU threads of torch, for the whole process; torch's own number if not given."""
        local_files_only: bool = False
        """Never look on the network for the model."""

    leaves_out = True

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._shared: _SharedDetector | None = None
        self._spending = Spending(self.config.budget)
        self._only: frozenset[int] | None = None
        """The class ids that are looked for; None for all."""
        self._names: dict[str, str] = {}
        """What the model's labels are called."""
        self._least: dict[int, float] = {}
        """Class id -> the score that its objects need, of those in `confidence`."""

    example_config = MappingProxyType({"model": "PekingU/rtdetr_r18vd"})

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        text = packages_missing("Detect")
        if text is not None:
            yield "model", text
        try:
            names = class_names(find_checkpoint(config.model, graph_dir))
        except ModelError as error:
            yield "model", str(error)
            return
        for key, labels in (("labels", config.labels), ("confidence", config.confidence)):
            try:
                if names is not None and labels is not None:
                    ids_of(labels, names, config.model)
            except ModelError as error:
                yield key, str(error)

    @classmethod
    def is_external(cls, config: TaskConfig) -> bool:
        assert isinstance(config, cls.Config)
        return config.max_batch > 1 or is_timed(config.budget)

    def start(self, ctx: Context) -> None:
        need_packages("Detect")
        config = self.config
        if config.threads is not None:
            import torch

            torch.set_num_threads(config.threads)
        checkpoint = find_checkpoint(config.model, ctx.graph_dir)
        self._key = str(checkpoint), config.device, config.dtype
        self._shared = _MODELS.acquire(self._key, lambda: self._load(checkpoint, ctx))
        detector = self._shared.model
        self._only = None if config.labels is None else detector.class_ids(config.labels)
        self._names = config.labels if isinstance(config.labels, dict) else {}
        self._least = self._least_scores()
        ctx.computes_on = detector.where

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        del ctx
        if "confidence" in changed:
            self._least = self._least_scores()

    def _least_scores(self) -> dict[int, float]:
        assert self._shared is not None
        ids, least = self._shared.model.class_ids, self.config.confidence or {}
        return {id_: it for label, it in least.items() for id_ in ids([label])}

    def _search(self, image: ImageRgb8Msg) -> Search:
        threshold = min([self.config.threshold, *self._least.values()])
        return Search(image.pixels, threshold, self._only)

    def _chosen(self, found: Found) -> Found:
        """What is left of what the model has found."""
        config = self.config
        if self._least:
            needed = [self._least.get(int(id_), config.threshold) for id_ in found.class_ids]
            found = found.rows(np.flatnonzero(found.scores > np.array(needed, np.float32)))
        if self._names:
            found = replace(found, labels=[self._names[label] for label in found.labels])
        return found.rows(config.best_of(found.boxes, found.scores, found.labels))

    def stop(self, ctx: Context) -> None:
        if self._shared is not None:
            self._spending.report_to(ctx.log)
            self._shared = None
            _MODELS.release(self._key)

    def freeze(self) -> Any:
        return None if self.config.budget is None else self._spending.freeze()

    def thaw(self, state: Any) -> None:
        if state is not None:
            self._spending.thaw(state)

    def _load(self, checkpoint: Path | str, ctx: Context) -> _SharedDetector:
        started = time.perf_counter()
        detector = ObjectDetector.load(
            checkpoint,
            device=self.config.device,
            dtype=self.config.dtype,
            local_files_only=self.config.local_files_only,
        )
        loaded = time.perf_counter()
        detector.answers([Search(np.zeros((240, 320, 3), np.uint8), threshold=1.0)])
        ctx.log.info(
            "model loaded",
            model=self.config.model,
            parameters=detector.parameters,
            where=detector.where,
            labels=len(detector.names),
            load_s=round(loaded - started, 2),
            warm_up_s=round(time.perf_counter() - loaded, 2),
        )
        return SharedModel(detector, detector.answers)

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], detections: Output[DetectionsMsg]
    ) -> None:
        assert self._shared is not None
        if self._spending.leaves_out(ctx):
            return
        self._spending.report_to(ctx.log)
        self._spending.asked(ctx.now_ns)
        called = time.perf_counter()
        found = self._shared.answer(self._search(image), max_batch=self.config.max_batch)
        latency_ms = (time.perf_counter() - called) * 1000
        self._spending.answered(latency_ms, ctx.now_ns)
        self._publish(ctx, detections, image, found, latency_ms)

    def _publish(
        self,
        ctx: Context,
        detections: DetectionsMsg,
        image: ImageRgb8Msg,
        found: Found,
        latency_ms: float,
    ) -> None:
        found = self._chosen(found)
        detections.latency_ms = latency_ms
        detections.boxes, detections.scores = found.boxes, found.scores
        detections.labels, detections.class_ids = found.labels, found.class_ids
        detections.width, detections.height = image.width, image.height
        detections.frame_id = image.frame_id
        detections.frame_cycle = ctx.cycle
        detections.publish(tov_ns=image.tov_ns)


class DetectBatch(Detect):
    """Find objects in the frames of several cameras: those of one cycle in one batch.

    For each name of `inputs` there is an input port of that name, and `<name>_detections` with what is
    found. The frames of one size that come in the same cycle are looked at together; a camera that
    gives none has no message then. Which frames are together depends on nothing but the cycle: a replay
    computes the same detections.
    """

    class Config(Detect.Config):
        inputs: InputNames
        """The names of the cameras: letters, digits and '_'."""
        max_batch: PositiveInt = 16
        """How many frames the model looks at together at most; of more, the rest comes after that."""

    example_config = MappingProxyType(
        {"model": "PekingU/rtdetr_r18vd", "inputs": ["front", "back"]}
    )

    @classmethod
    def is_external(cls, config: TaskConfig) -> bool:
        assert isinstance(config, cls.Config)
        return is_timed(config.budget)  # batches are the cycle's own

    def process(
        self, ctx: Context, *detections: Input[ImageRgb8Msg] | Output[DetectionsMsg]
    ) -> None:
        assert self._shared is not None
        config = self.config
        given: list[tuple[ImageRgb8Msg, DetectionsMsg]] = []
        for image, output in batched_pairs(detections):
            if image is not None and not self._spending.leaves_out(ctx):
                self._spending.asked(ctx.now_ns)
                given.append((image, output))
        if not given:
            return
        self._spending.report_to(ctx.log)
        called = time.perf_counter()
        searches = [self._search(image) for image, _ in given]
        found: list[Found] = []
        for begin in range(0, len(searches), config.max_batch):
            found += self._shared.together(searches[begin : begin + config.max_batch])
        latency_ms = (time.perf_counter() - called) * 1000
        self._spending.answered(latency_ms, ctx.now_ns)
        for (image, output), it in zip(given, found, strict=True):
            self._publish(ctx, output, image, it, latency_ms)
