"""A task that answers about pictures without a model, and may have a shadow."""

from __future__ import annotations

import threading
from typing import ClassVar

from flowrun.msgs import ImageRgb8Msg, PromptResponseMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig


class Answers(Task):
    """`prompt`, and the number of the picture. `wrong_at`: says something else about this one.

    breaks: raises instead. hangs: waits until the test sets `free`.
    """

    shadow_type = "support.shadow_tasks.Answers"
    free: ClassVar[threading.Event] = threading.Event()

    class Config(TaskConfig):
        prompt: Live[str] = "say"
        wrong_at: int = -1
        breaks: bool = False
        hangs: bool = False
        quiet: bool = False
        shadow: None = None

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        if self.config.breaks:
            raise ValueError("broken")
        if self.config.hangs:
            assert self.free.wait(60)
        if self.config.quiet and image.frame_id % 2:
            return
        number = image.frame_id if image.frame_id != self.config.wrong_at else -1
        answer.prompt, answer.response = self.config.prompt, f"{self.config.prompt} {number}"
        answer.frame_id, answer.frame_cycle = image.frame_id, ctx.cycle
        answer.publish(tov_ns=image.tov_ns)
