"""Answers while they grow, token by token: shown in part, ended before a stop text, or given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from flowrun.tasks.models.question import ModelError, Question

__all__ = ["GrowingAnswers", "cut_at_stop", "layers_of"]


class GrowingAnswers:
    """A stopping criterion for transformers' `generate`: called after each token of a batch.

    As a context manager it also ends the reading of the prompt, which may take a minute on a CPU: if
    none of the questions is wanted any more, the model raises `ModelError` before its next layer.

    questions: one for each row.
    begin: number of tokens of a row before its answer.
    decode: turns tokens into text.
    layers: see `layers_of`.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        *,
        begin: int,
        decode: Callable[[Any], str],
        layers: Sequence[Any] = (),
    ) -> None:
        self._questions = questions
        self._begin = begin
        self._decode = decode
        self._reads_text = any(question.stop or question.on_text for question in questions)
        self._layers = layers
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        self._hooks = [layer.register_forward_pre_hook(self._look_early) for layer in self._layers]
        return self

    def __exit__(self, *_error: object) -> None:
        self._remove_hooks()

    def _remove_hooks(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _look_early(self, _layer: Any, _arguments: Any) -> None:
        if all(question.withdrawn() for question in self._questions):
            raise ModelError("the question was withdrawn")

    def __call__(self, tokens: Any, _scores: Any, **_more: Any) -> Any:
        import torch

        self._remove_hooks()  # the prompt has been read; a token takes little
        if not self._reads_text:
            done = [question.withdrawn() for question in self._questions]
        else:
            done = [
                self._look(question, row)
                for question, row in zip(self._questions, tokens[:, self._begin :], strict=True)
            ]
        return torch.tensor(done, device=tokens.device)

    def _look(self, question: Question, row: Any) -> bool:
        if question.withdrawn():
            return True
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


def layers_of(model: Any) -> list[Any]:
    """The layers of a torch model: between two of them it can be ended."""
    from torch.nn import ModuleList

    return [
        layer for module in model.modules() if isinstance(module, ModuleList) for layer in module
    ]
