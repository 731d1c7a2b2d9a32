"""A task that answers about pictures without a model, and one that finds a box in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg, PromptResponseMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.backends.budget import Budget, Spending
from support.films import draw
from support.helpers import START_NS

STEP_NS = 33_000_000
GRAPH = """\
tasks:
  - {id: cam, type: VideoCapture, config: {source_uri: FILM}}
  - {id: says, type: support.answer_tasks.Says, config: {prompt: first}, on_error: skip}
  - {id: finds, type: support.answer_tasks.Finds}
cnx:
  - {src: cam, dst: says, msg: ImageRgb8Msg}
  - {src: cam, dst: finds, msg: ImageRgb8Msg}
logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 5, LOGGING}
"""


class Says(Task):
    """`prompt`, and the number of the picture; of each third one only. Picture 13 is an error."""

    hook: ClassVar[Callable[[int], None]] = staticmethod(lambda number: None)

    class Config(TaskConfig):
        prompt: Live[str] = "say"

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        type(self).hook(image.frame_id)
        if image.frame_id == 13:
            raise ValueError("picture 13")
        if image.frame_id % 3 == 0:
            answer.prompt = self.config.prompt
            answer.response = f"{self.config.prompt}: {image.frame_id}"
            answer.frame_id, answer.frame_cycle = image.frame_id, ctx.cycle
            answer.publish(tov_ns=image.tov_ns)


class Thrifty(Task):
    """The number of each picture, as far as its budget allows."""

    leaves_out = True

    class Config(TaskConfig):
        per_hour: int = 3

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._spending = Spending(Budget(per_hour=self.config.per_hour))

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        if not self._spending.leaves_out(ctx):
            self._spending.asked(ctx.now_ns)
            answer.response = str(image.frame_id)
            answer.publish(tov_ns=image.tov_ns)

    def freeze(self) -> Any:
        return self._spending.freeze()

    def thaw(self, state: Any) -> None:
        self._spending.thaw(state)


class SaysOfEach(Task):
    """The number of each picture of one cycle."""

    class Config(TaskConfig):
        inputs: list[str]

    def process(
        self, ctx: Context, *answer: Input[ImageRgb8Msg] | Output[PromptResponseMsg]
    ) -> None:
        for image, said in zip(answer[::2], answer[1::2], strict=True):
            if image is not None:
                said.response, said.frame_cycle = str(image.frame_id), ctx.cycle
                said.publish(tov_ns=image.tov_ns)


class Finds(Task):
    """One box, as far to the right as the picture's number."""

    def process(self, ctx: Context, image: Input[ImageRgb8Msg], out: Output[DetectionsMsg]) -> None:
        left = float(image.frame_id)
        out.boxes = np.array([[left, 2, left + 10, 22]], np.float32)
        out.scores, out.labels = np.array([0.5], np.float32), ["ball"]
        out.class_ids = np.array([7], np.int32)
        out.width, out.height, out.frame_id = image.width, image.height, image.frame_id
        out.frame_cycle = ctx.cycle
        out.publish(tov_ns=image.tov_ns)


def answered(
    folder: Path,
    *,
    logging: str = "mode: all",
    film: Mapping[str, Any] | None = None,
    name: str = "film.mp4",
) -> Path:
    """The directory of a run on a film with a key frame at every eighth picture. The prompt is "second"
    from the cycle after picture 8 on."""
    drawn = draw(folder / name, **{"bf": "0", **(film or {})})

    def hook(run: Run, number: int) -> None:
        if number == 8:
            run.set_live("says", {"prompt": "second"})

    return ran(GRAPH.replace("FILM", str(drawn)).replace("LOGGING", logging), folder, hook=hook)


def ran(text: str, folder: Path, *, hook: Callable[[Run, int], None] | None = None) -> Path:
    """The directory of a run of a graph. hook: called before each picture that `Says` is asked about."""
    plan = plan_graph(bind(parse_graph(text, path=folder / "answers.yaml", env={})))
    run = Run(plan, clock=ManualClock(START_NS, step_ns=STEP_NS), directory=folder / "run")
    if hook is not None:
        Says.hook = staticmethod(partial(hook, run))
    try:
        result = run.run()
    finally:
        Says.hook = staticmethod(lambda number: None)
    assert result.error is None
    return folder / "run"


def has_eight(answer: PromptResponseMsg) -> bool:
    """A condition of an alert."""
    return answer.response.endswith(" 8")
