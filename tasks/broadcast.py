"""Sinks that show what passes to clients outside the run (the page, the HTTP API)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.broadcast import Answer, Picture
from flowrun.runtime.pictures.encode import jpeg_of
from flowrun.runtime.task import Context, Input, Task, TaskConfig

__all__ = ["BroadcastChat", "BroadcastImage"]


class BroadcastImage(Task):
    """Offer frames to clients as JPEG: to the page, and at `/api/v0/streaming/image`.

    Pictures of pixels that are not square are made square. A client gets the newest picture; one that is
    slow misses some, and neither the cycle nor other clients wait for it.

    Costs the cycle nothing while nobody watches, and at most a copy of the pixels while somebody
    does: the JPEG is made on the client's thread, once for all clients, and of a video without making
    its pixels where its colours are a JPEG's.
    """

    class Config(TaskConfig):
        quality: Annotated[int, Field(ge=1, le=100)] = 80
        """Quality of the JPEG, from 1 to 100."""
        channel_id: NonNegativeInt | None = None
        """The number by which clients ask for it; none: that of its camera, or one that is free."""

    shows = "picture"

    def process(self, ctx: Context, image: Input[ImageRgb8Msg]) -> None:
        if not ctx.broadcast.watched:
            return
        # `copy` shares what the slot does not own, such as the picture of VideoCapture.
        shown, quality = image.copy(), self.config.quality
        ctx.broadcast.offer(
            Picture(image.tov_ns, ctx.cycle, lambda: jpeg_of(shown, quality=quality))
        )


class BroadcastChat(Task):
    """Offer answers to clients: to the page, and at `/api/v0/inference/result`.

    Each with its prompt, the time and cycle of its frame, and its latency in milliseconds. A client gets
    the newest answer; nobody waits for one that is slow.
    """

    class Config(TaskConfig):
        channel_id: NonNegativeInt | None = None
        """The number by which clients ask for it; none: that of its camera, or one that is free."""

    shows = "answer"

    def process(self, ctx: Context, answer: Input[PromptResponseMsg]) -> None:
        ctx.broadcast.offer(
            Answer(
                tov_ns=answer.tov_ns,
                cycle=answer.frame_cycle,
                prompt=answer.prompt,
                response=answer.response,
                truncated=answer.truncated,
                reasoning=answer.reasoning,
                backend=answer.backend,
                tokens=answer.tokens,
                latency_ms=answer.latency_ms,
            )
        )
