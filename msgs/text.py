"""What a model was asked and what it answered."""

from __future__ import annotations

from flowrun.msgs.fields import Measured
from flowrun.msgs.message import Message

__all__ = ["PromptResponseMsg"]


class PromptResponseMsg(Message):
    """An answer of a vision-language model about one frame; `tov_ns` is the frame's time.

    prompt: what was asked.
    response: the answer, without special tokens and without the model's reasoning.
    truncated: whether the answer was cut off before the model had ended it: at `max_new_tokens`, or by
        the server.
    reasoning: what a reasoning model thought before it answered; "" of others.
    frame_id: `ImageRgb8Msg.frame_id` of the frame that the answer is about.
    frame_cycle: the cycle in which that frame was taken.
    frame_width, frame_height: the size of that frame in pixels, to which boxes in the response refer.
    backend: which backend answered ("embedded", "transformers", ...).
    server: the address of the server that answered, without user and password; "" of a model in
        flowrun's own process.
    tokens: how many tokens were generated.
    latency_ms: wall time from the call of the model to its answer.
    """

    prompt: str
    response: str
    truncated: bool
    reasoning: str
    frame_id: int
    frame_cycle: int
    frame_width: int
    frame_height: int
    backend: str
    server: Measured[str]
    tokens: int
    latency_ms: Measured[float]
