"""A camera of drawn scenes, with a call of the test's before each picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.task import Context, Output, Task, TaskConfig
from flowrun.tasks.embedded.training.scenes import HELD_OUT_SEEDS, draw, make_scene


class Scenes(Task):
    """Held-out scenes, one a cycle."""

    hook: ClassVar[Callable[[int], None]] = staticmethod(lambda number: None)

    class Config(TaskConfig):
        limit: int = 4

    def start(self, ctx: Context) -> None:
        self.next = 0

    def process(self, ctx: Context, image: Output[ImageRgb8Msg]) -> None:
        if self.next == self.config.limit:
            ctx.finish()
            return
        type(self).hook(self.next)
        scene = draw(make_scene(HELD_OUT_SEEDS[self.next]))
        image.allocate_pixels(*scene.shape[:2])[...] = scene
        image.frame_id = self.next
        image.publish(tov_ns=ctx.now_ns)
        self.next += 1
