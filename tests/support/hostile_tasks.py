"""A task whose every word is meant for the terminal."""

from __future__ import annotations

from flowrun.msgs import IntMsg, TextMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig


class Hostile(Task):
    class Config(TaskConfig):
        text: str

    def start(self, ctx: Context) -> None:
        text = self.config.text
        ctx.log.warning(text, word=text, bare=text.split("\n", maxsplit=1)[0], **{text[:8]: 1})

    def process(self, ctx: Context, number: Input[IntMsg], text: Output[TextMsg]) -> None:
        text.value = f"{number.value}{self.config.text}"
        text.publish()
        try:
            raise ValueError(self.config.text)
        except ValueError:
            ctx.log.exception(self.config.text)
        if number.value == 2:
            raise OSError(self.config.text)
