"""What a model is asked about a picture, what it answers, and the error of one that cannot."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.errors import FlowrunError

__all__ = ["Answer", "ModelError", "Question", "Sampling", "split_reasoning"]


class ModelError(FlowrunError):
    """A model cannot be loaded or run: which one, and what to do.

    may_pass: whether the same question may well be answered if it is asked again.
    """

    def __init__(self, text: str, *, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw the tokens of one answer; the same seed draws the same."""

    seed: int
    temperature: float


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one picture.

    pixels: RGB, of shape (H, W, 3); read only, and only until the answer is there.
    sampling: None takes the likeliest token each time.
    stop: the answer ends before the first of these texts.
    on_text: called with the answer so far, as it grows, on any thread.
    withdrawn: says whether the answer is not wanted any more; called often, on any thread.
    """

    pixels: NDArray[np.uint8]
    prompt: str
    max_new_tokens: int
    sampling: Sampling | None = None
    stop: tuple[str, ...] = ()
    on_text: Callable[[str], None] | None = None
    withdrawn: Callable[[], bool] = _never

    @property
    def joins(self) -> Hashable:
        """See `Asked`: what is drawn depends on who else is in the batch."""
        return "likeliest" if self.sampling is None else None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answers.

    text: without special tokens, and without the reasoning.
    tokens: number of tokens that were generated, those of the reasoning included; 0 if that is not
        known.
    truncated: whether the answer was cut off before the model had ended it.
    reasoning: what a reasoning model thought first; "" if it gave none.
    server: the address of the server that answered, without secrets; "" of models in this process.
    """

    text: str
    tokens: int
    truncated: bool = False
    reasoning: str = ""
    server: str = field(default="", compare=False)


_THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
)


def split_reasoning(text: str) -> tuple[str, str]:
    """What a model thought, if its text begins with that, and its answer.

    Some chat templates write the opening mark themselves, so that the text has only the closing one.
    """
    for begin, end in _THOUGHTS:
        begun = text.lstrip()
        if begun.startswith(begin) or end in text:
            thought, _, answer = begun.removeprefix(begin).partition(end)
            return thought, answer
    return "", text
