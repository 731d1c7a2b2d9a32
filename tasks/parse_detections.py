"""`ParseDetections`: the boxes in a vision-language model's answer, as detections."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.tasks.boxes import BoxChoice

__all__ = ["ParseDetections", "TextBox", "parse_boxes"]

_GRID = 1024
"""Number of steps into which PaliGemma's location tokens divide a picture's height and width."""
# `<locYYYY><locXXXX><locYYYY><locXXXX> label`; `segment` answers hold the mask's tokens between.
_BOX = re.compile(r"<loc(\d{4})>\s*" * 4 + r"(?:<seg\d{3}>\s*)*([^<;]*)")


@dataclass(frozen=True, slots=True)
class TextBox:
    """A labelled box: left, top, right, bottom in fractions of the picture's width and height."""

    xyxy: tuple[float, float, float, float]
    label: str


def parse_boxes(text: str) -> list[TextBox]:
    """The boxes in `text`, in its order: `<locYYYY><locXXXX><locYYYY><locXXXX> label ; ...`, top,
    left, bottom, right, as PaliGemma answers `detect ...`.

    Anything that is not a box is skipped: other text, a box that was cut off, one without an area.
    """
    boxes = []
    for found in _BOX.finditer(text):
        first_y, first_x, last_y, last_x = (min(int(n), _GRID) / _GRID for n in found.groups()[:4])
        if first_y < last_y and first_x < last_x:
            boxes.append(TextBox((first_x, first_y, last_x, last_y), found[5].strip()))
    return boxes


class ParseDetections(Task):
    """The objects that an answer of `Inference` names with their boxes.

    Models of the PaliGemma family answer the prompts `detect cat` and `detect cat ; dog` so, and
    the model that ships with flowrun does. An answer without boxes is one without objects. Such a
    model gives no scores and no class ids: they are NaN and -1. Boxes are in pixels of the frame that
    the answer is about, whose time the message has. What is no box in the answer is skipped.
    """

    class Config(BoxChoice):
        labels: (
            Annotated[tuple[str, ...], Field(min_length=1)]
            | Annotated[dict[str, str], Field(min_length=1)]
            | None
        ) = None
        """Only objects that the answer calls so; null for all. Each with the name that its objects get,
        such as {"red circle": ball}, where that is another."""

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._warned_of: str | None = None

    def process(
        self, ctx: Context, answer: Input[PromptResponseMsg], detections: Output[DetectionsMsg]
    ) -> None:
        width, height = answer.frame_width, answer.frame_height
        if width < 1 or height < 1:
            raise ValueError(
                f"an answer about a frame of {width}x{height} pixels: the task that answers must "
                "set frame_width and frame_height"
            )
        found = parse_boxes(answer.response)
        if not found and not answer.prompt.lstrip().startswith("detect"):
            self._warn(ctx, answer)
        found = self._chosen(found)
        fractions = np.array([box.xyxy for box in found], np.float64).reshape(-1, 4)
        detections.boxes = (fractions * (width, height, width, height)).astype(np.float32)
        detections.scores = np.full(len(found), np.nan, np.float32)
        detections.labels = [box.label for box in found]
        detections.class_ids = np.full(len(found), -1, np.int32)
        detections.width, detections.height = width, height
        detections.frame_id = answer.frame_id
        detections.frame_cycle = answer.frame_cycle
        detections.latency_ms = answer.latency_ms
        detections.publish(tov_ns=answer.tov_ns)

    def _chosen(self, found: list[TextBox]) -> list[TextBox]:
        config = self.config
        if config.labels is not None:
            wanted = config.labels
            names = wanted if isinstance(wanted, dict) else {label: label for label in wanted}
            found = [replace(it, label=names[it.label]) for it in found if it.label in names]
        boxes = np.array([it.xyxy for it in found], np.float64).reshape(-1, 4)
        labels = [it.label for it in found]
        return [found[k] for k in config.best_of(boxes, np.full(len(found), np.nan), labels)]

    def _warn(self, ctx: Context, answer: PromptResponseMsg) -> None:
        """Once a prompt: it may be meant to ask for something else now and then."""
        if self._warned_of != answer.prompt:
            self._warned_of = answer.prompt
            ctx.log.warning(
                "no boxes in the answer; ask for them with a prompt such as 'detect cat'",
                prompt=answer.prompt,
                response=answer.response,
            )
