"""A task that answers about pictures without a model, and may have a shadow."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from flowrun.msgs import ImageRgb8Msg, PromptResponseMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.backends.budget import Budget, Spending


class Answers(Task):
    """`prompt`, and the number of the picture. `wrong_at`: says something else about this one;
    wrong_each: about each of which the number is a multiple of it.

    breaks: raises instead. hangs: waits until the test sets `free`. budget: of questions.
    """

    leaves_out = True
    shadow_type = "support.shadow_tasks.Answers"
    free: ClassVar[threading.Event] = threading.Event()

    class Config(TaskConfig):
        prompt: Live[str] = "say"
        wrong_at: int = -1
        wrong_each: int = 0
        breaks: bool = False
        hangs: bool = False
        quiet: bool = False
        budget: Budget | None = None
        shadow: None = None

    def start(self, ctx: Context) -> None:
        self._spending = Spending(self.config.budget)

    def freeze(self) -> Any:
        return self._spending.freeze()

    def thaw(self, state: Any) -> None:
        self._spending.thaw(state)

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        if self._spending.leaves_out(ctx):
            return
        self._spending.asked(ctx.now_ns)
        if self.config.breaks:
            raise ValueError("broken")
        if self.config.hangs:
            assert self.free.wait(60)
        if self.config.quiet and image.frame_id % 2:
            return
        number, each = image.frame_id, self.config.wrong_each
        if number == self.config.wrong_at or (each and number % each == 0):
            number = -1
        answer.prompt, answer.response = self.config.prompt, f"{self.config.prompt} {number}"
        answer.frame_id, answer.frame_cycle = image.frame_id, ctx.cycle
        answer.publish(tov_ns=image.tov_ns)
