"""A camera for tests of what reads logs: small pictures with all kinds of other fields."""

from __future__ import annotations

import numpy as np

from flowrun.msgs import DetectionsMsg, FloatMsg, ImageRgb8Msg, Measured, Message, PromptResponseMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from support import helpers

STEP_NS = 33_333_333


class ReadingMsg(Message):
    """One field of each kind that a table knows."""

    count: int
    level: float
    ok: bool
    name: str
    raw: bytes
    gap: float | None
    words: list[str]
    took_ms: Measured[float]


class Camera(Task):
    """A moving gradient, `limit` times; the last column shows the number of the frame."""

    class Config(TaskConfig):
        limit: int = 5
        width: int = 64
        height: int = 48
        changes_at: int = -1

    def start(self, ctx: Context) -> None:
        self.next = 0

    def process(self, ctx: Context, image: Output[ImageRgb8Msg]) -> None:
        config = self.config
        if self.next == config.limit:
            ctx.finish()
            return
        width = config.width // 2 if self.next == config.changes_at else config.width
        pixels = image.allocate_pixels(config.height, width)
        pixels[...] = np.linspace(40, 200, width, dtype=np.uint8)[None, :, None]
        pixels[:, :, 2] = 20 * (self.next % 10)
        image.frame_id = self.next
        image.fps = 30.0
        image.source = "test"
        image.publish(tov_ns=helpers.START_NS + self.next * STEP_NS + 7 * (self.next % 3))
        self.next += 1


class Read(Task):
    """A reading of each picture."""

    class Config(TaskConfig):
        wrong_at: int = -1
        took_ms: float = 1.0

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], reading: Output[ReadingMsg]
    ) -> None:
        number = image.frame_id
        reading.count = number + (number == self.config.wrong_at)
        reading.level = number / 2
        reading.ok = number % 2 == 0
        reading.name = f'no. "{number}",\n'
        reading.raw = bytes([number])
        reading.gap = None if number == 1 else float(number)
        reading.words = ["a"] * number
        reading.took_ms = self.config.took_ms
        reading.publish(tov_ns=image.tov_ns)


class Find(Task):
    """As many boxes as the frame's number; the second without a score."""

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], found: Output[DetectionsMsg]
    ) -> None:
        count = image.frame_id
        found.boxes = np.array([[k, 2, k + 10, 20] for k in range(count)], np.float32).reshape(
            -1, 4
        )
        found.scores = np.array([0.5, np.nan, 0.25][:count], np.float32)
        found.labels = ["cat", "dog", "cat"][:count]
        found.class_ids = np.array([7, -1, 7][:count], np.int32)
        found.publish(tov_ns=image.tov_ns)


class Answer(Task):
    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        answer.prompt, answer.response = "cap en", f"ünï {image.frame_id}"
        answer.publish(tov_ns=image.tov_ns)
        ctx.log.info("answered", number=image.frame_id)


def record_pictures(tmp_path, config="", reading="", run="run", more=""):
    """A run of a camera and its readings; the run's directory."""
    read = f"r=Read({reading})" if reading else "r=Read"
    camera = f"c=Camera({config})" if config else "c=Camera"
    plan = helpers.plan_of(tmp_path, f"{camera}; {read}{more}", "c > r: ImageRgb8Msg")
    _, result = helpers.record(plan, tmp_path / run)
    assert result.error is None
    return tmp_path / run


class Darken(Task):
    class Config(TaskConfig):
        by: int = 2

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], darker: Output[ImageRgb8Msg]
    ) -> None:
        pixels = darker.allocate_pixels(image.height, image.width)
        np.subtract(image.pixels, self.config.by, out=pixels)
        darker.publish(tov_ns=image.tov_ns)


class Mean(Task):
    def process(self, ctx: Context, image: Input[ImageRgb8Msg], mean: Output[FloatMsg]) -> None:
        mean.value = float(image.pixels.mean())
        mean.publish(tov_ns=image.tov_ns)


def pictures_run(tmp_path):
    """Five small pictures, made darker, and how bright they are then."""
    plan = helpers.plan_of(
        tmp_path,
        "c=Camera(width: 16, height: 12); d=Darken; m=Mean",
        "c > d: ImageRgb8Msg; d > m: ImageRgb8Msg",
    )
    _, result = helpers.record(plan, tmp_path / "run")
    assert result.error is None
