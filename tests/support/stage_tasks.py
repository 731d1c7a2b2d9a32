"""A task that does what the files of a folder say, for a run that goes through all of its states."""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from flowrun.msgs.detections import TracksMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.named_inputs import InputNames, batched_pairs

LOOK_S = 0.02


class Player(Task):
    """Answers each picture. It starts when `go` exists, hangs while `hang` does, and fails while `raise`
    does; these are files of `folder`.
    """

    class Config(TaskConfig):
        folder: Path
        """Where the files are."""
        prompt: Live[str] = "detect shapes"
        """Is in the answer."""
        presets: list[str] = Field(default_factory=list)
        """Prompts to choose from."""
        max_new_tokens: Live[Annotated[int, Field(gt=0)]] = 50
        """Does nothing."""

    def start(self, ctx: Context) -> None:
        ctx.progress = ("weights", 0.6)
        while not (self.config.folder / "go").exists():
            time.sleep(LOOK_S)
        ctx.log.info("plays", folder=str(self.config.folder))

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        while (self.config.folder / "hang").exists():
            time.sleep(LOOK_S)
        if (self.config.folder / "raise").exists():
            raise ValueError("no <i>memory</i>")
        scene = image.frame_id // 20
        answer.prompt = self.config.prompt
        answer.response = f"<loc0200><loc0100><loc0800><loc0500> scene {scene} <b>bold</b>"
        answer.truncated, answer.reasoning = False, ""
        answer.frame_id, answer.frame_cycle = image.frame_id, ctx.cycle
        answer.frame_height, answer.frame_width = image.pixels.shape[:2]
        answer.backend, answer.tokens, answer.latency_ms = "stage", 7, 120.0 + 1500 * (scene % 3)
        answer.publish(tov_ns=image.tov_ns)


FOUND = (0.25, 0.3, 0.75, 0.6)
"""Where `Finder` finds its object: left, top, right and bottom as shares of the picture."""


class Finder(Task):
    """Finds the same object in each picture, which a tracker knows."""

    class Config(TaskConfig):
        label: str = "thing"
        """Its class."""

    def process(self, ctx: Context, image: Input[ImageRgb8Msg], found: Output[TracksMsg]) -> None:
        find(ctx, image, found, self.config.label)


class FinderOfMany(Task):
    """Finds it in the pictures of the last of several cameras."""

    class Config(TaskConfig):
        inputs: InputNames
        """The names of the cameras."""

    def process(self, ctx: Context, *found: Input[ImageRgb8Msg] | Output[TracksMsg]) -> None:
        *_, (image, out) = batched_pairs(found)
        if image is not None:
            find(ctx, image, out, "thing")


def find(ctx, image, found, label):
    size = np.array([image.width, image.height] * 2, np.float32)
    found.boxes = (np.array([FOUND], np.float32) * size).astype(np.float32)
    found.scores = np.array([0.875], np.float32)
    found.labels = [label]
    found.class_ids = np.array([2], np.int32)
    found.tracker_ids = np.array([5], np.int64)
    found.width, found.height = image.width, image.height
    found.frame_id, found.frame_cycle = image.frame_id, ctx.cycle
    found.latency_ms = 1.0
    found.publish(tov_ns=image.tov_ns)
