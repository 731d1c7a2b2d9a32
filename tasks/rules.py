"""What raises alerts: words in an answer, objects that are found, an expression, a function."""

from __future__ import annotations

import inspect
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from flowrun.runtime.errors import UsageError, WrongReturnError
from flowrun.runtime.graph.find import find_callable
from flowrun.runtime.wording import listed, nearest, with_article
from flowrun.tasks.conditions.condition import Condition
from flowrun.tasks.conditions.language import INPUTS, Seen, said

__all__ = ["Called", "Found", "FoundOut", "Rule", "Said", "When", "is_function"]

_FUNCTION = re.compile(r"\w+(\.\w+)*:\w+")


def is_function(when: str) -> bool:
    """Whether a condition names a function, `module:name`."""
    return _FUNCTION.fullmatch(when.strip()) is not None


class FoundOut(NamedTuple):
    """That a rule's condition holds.

    text: what an alert says, if the graph does not.
    values: what the rule has read.
    """

    text: str
    values: dict[str, Any]


class Rule(Protocol):
    """What raises alerts.

    name: under which its state is kept.
    text: what it looks for, as somebody wrote it.
    inputs: what it reads; an alert is about the first of them that has come.
    """

    name: str
    text: str
    inputs: tuple[str, ...]

    def read(self, seen: Seen) -> FoundOut | None:
        """What is so; None if it is not."""
        ...


class Said:
    """One of the words is in the answer."""

    name = "answer"
    inputs: tuple[str, ...] = ("answer",)

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words
        self.text = f"contains {listed(words)}"

    def read(self, seen: Seen) -> FoundOut | None:
        answer: Any = seen.messages["answer"]
        if not said(answer.response, self._words):
            return None
        return FoundOut(answer.response, {"answer.response": answer.response})


class Found:
    """An object of one of the classes is found, with a score of at least `threshold`."""

    name = "detections"
    inputs: tuple[str, ...] = ("detections",)

    def __init__(self, labels: tuple[str, ...], threshold: float) -> None:
        self._labels, self._threshold = labels, threshold
        self.text = f"labels {listed(labels)}"

    def read(self, seen: Seen) -> FoundOut | None:
        detections: Any = seen.messages["detections"]
        found = Counter(
            label
            for label, score in zip(detections.labels, detections.scores.tolist(), strict=True)
            if label in self._labels and (math.isnan(score) or score >= self._threshold)
        )
        if not found:
            return None
        text = ", ".join(f"{number} {label}" for label, number in found.items())
        return FoundOut(text, {f"count({label!r})": number for label, number in found.items()})


class When:
    """An expression holds."""

    name = "when"

    def __init__(self, text: str) -> None:
        self.text = text
        self._condition = Condition(text)
        self.inputs = tuple(name for name in INPUTS if name in self._condition.inputs)

    def read(self, seen: Seen) -> FoundOut | None:
        if not self._condition.inputs <= seen.messages.keys():
            return None
        holds, values = self._condition.read(seen)
        if not holds:
            return None
        shown = ", ".join(f"{name} = {value}" for name, value in values.items())
        return FoundOut(shown or self.text, values)


class Called:
    """A function of the inputs says so: true, or a text that the alert says.

    Its parameters are named as inputs; one without a default is waited for. `UsageError` where there is
    no such function.
    """

    name = "when"

    def __init__(self, text: str, folder: Path) -> None:
        self.text = text
        self._function: Callable[..., Any] = find_callable(text, folder=folder)
        try:
            parameters = inspect.signature(self._function).parameters.values()
        except (TypeError, ValueError):
            raise UsageError(f"{text}: nobody can say which arguments it takes") from None
        for it in parameters:
            if it.name not in INPUTS or it.kind is it.POSITIONAL_ONLY:
                raise UsageError(
                    f"{text} takes {it.name!r}; it may take {listed(INPUTS)}"
                    f"{nearest(it.name, list(INPUTS))}"
                )
        if not parameters:
            raise UsageError(f"{text} takes nothing; it may take {listed(INPUTS)}")
        taken = {it.name: it.default is it.empty for it in parameters}
        self.inputs = tuple(name for name in INPUTS if name in taken)
        self._required = {name for name, is_required in taken.items() if is_required}

    def read(self, seen: Seen) -> FoundOut | None:
        if not self._required <= seen.messages.keys():
            return None
        returned = self._function(**seen.messages_of(self.inputs))
        if returned is None or returned is False or returned == "":
            return None
        if returned is True:
            return FoundOut(self.text, {})
        if isinstance(returned, str):
            return FoundOut(returned, {})
        said = f"{self.text} returned {with_article(type(returned).__name__)}"
        raise WrongReturnError(
            self._function,
            f"{said}; it may return true, false, a text that the alert says, or None",
        )
