"""What a model is asked about a picture, what it answers, and the error of one that cannot."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.errors import FlowrunError

__all__ = ["Answer", "ModelError", "Question", "Sampling"]


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


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one picture.

    pixels: RGB, of shape (H, W, 3); read only, and only until the answer is there.
    sampling: None takes the likeliest token each time.
    stop: the answer ends before the first of these texts.
    on_text: called with the answer so far, as it grows, on any thread.
    """

    pixels: NDArray[np.uint8]
    prompt: str
    max_new_tokens: int
    sampling: Sampling | None = None
    stop: tuple[str, ...] = ()
    on_text: Callable[[str], None] | None = None

    @property
    def joins(self) -> Hashable:
        """See `Asked`: what is drawn depends on who else is in the batch."""
        return "likeliest" if self.sampling is None else None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answers.

    text: without special tokens.
    tokens: number of tokens that were generated; 0 if that is not known.
    """

    text: str
    tokens: int
