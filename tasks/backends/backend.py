"""The protocol of a backend: what `Inference` asks of whatever answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flowrun.tasks.models.question import Answer, Question

__all__ = ["Backend"]


class Backend(Protocol):
    """Answers questions. Used by one thread at a time."""

    where: str
    """Once loaded: the device and type that a model of this process computes in; "" of servers."""

    def load(self) -> None:
        """Get ready: load the weights, reach the server. May block for minutes. Called once before
        the first question, and again after it raised. Raises `ModelError`."""

    def answer(self, question: Question) -> Answer:
        """The answer. Raises `ModelError`, or what the library raised."""

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers to questions that come together, in their order; raises as `answer` does. A model
        of this process computes those together that may be joined."""

    def healthy(self) -> bool:
        """Whether a question is worth a try, after one has failed. Takes a second at most."""

    def cancel(self) -> None:
        """Let `load` and `answer` raise soon from now on, where that is possible, also if they are
        running on another thread: no answer is wanted any more. May be called from any thread."""

    def close(self) -> None:
        """Give back what `load` took. Called once, also if `load` raised or was never called."""
