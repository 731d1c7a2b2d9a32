"""Answers while they grow, token by token: shown in part, ended before a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flowrun.tasks.models.question import Question

__all__ = ["GrowingAnswers", "cut_at_stop"]


class GrowingAnswers:
    """A stopping criterion for transformers' `generate`: called after each token of a batch.

    questions: one for each row.
    begin: number of tokens of a row before its answer.
    decode: turns tokens into text.
    """

    def __init__(
        self, questions: Sequence[Question], *, begin: int, decode: Callable[[Any], str]
    ) -> None:
        self._questions = questions
        self._begin = begin
        self._decode = decode

    @staticmethod
    def needed(questions: Sequence[Question]) -> bool:
        """Whether `generate` has to be watched; if not, no text is decoded at each step."""
        return any(question.stop or question.on_text for question in questions)

    def __call__(self, tokens: Any, _scores: Any, **_more: Any) -> Any:
        import torch

        done = [
            self._look(question, row)
            for question, row in zip(self._questions, tokens[:, self._begin :], strict=True)
        ]
        return torch.tensor(done, device=tokens.device)

    def _look(self, question: Question, row: Any) -> bool:
        if not question.stop and question.on_text is None:
            return False
        text = self._decode(row)
        cut = cut_at_stop(text, question.stop)
        # Half a character: its other bytes are in the next token.
        if question.on_text is not None and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            question.on_text(cut)
        return len(cut) < len(text)


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first of the texts of `stop` in it."""
    return text[: min([len(text), *(at for part in stop if (at := text.find(part)) >= 0)])]
