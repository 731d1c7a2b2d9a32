"""`Template`: a text with expressions in braces."""

from __future__ import annotations

import string

from flowrun.tasks.conditions.condition import Condition
from flowrun.tasks.conditions.language import INPUTS, ConditionError, Seen

__all__ = ["Template"]


class Template:
    """A text with conditions' expressions in braces: "{count('person')} at the door"; `{{` is a brace.

    `ConditionError` for a brace alone, or a wrong expression.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConditionError(
                f"{text!r}: {error}; an expression is in braces, and {{{{ is a brace"
            ) from None
        self._parts: list[tuple[str, Condition | None, str]] = []
        for before, expression, spec, conversion in parts:
            if conversion is not None:
                raise ConditionError(f"{text!r}: no !{conversion} in an expression")
            made = None if expression is None else Condition(expression)
            self._parts.append((before, made, spec or ""))
        self.inputs: frozenset[str] = frozenset().union(
            *(it.inputs for _, it, _ in self._parts if it is not None)
        )
        """The inputs that its expressions read."""
        if "message" not in self.inputs:
            self.fill(Seen({name: INPUTS[name]() for name in self.inputs}))

    def fill(self, seen: Seen) -> str:
        """The text, of what was seen."""
        said = []
        for before, expression, spec in self._parts:
            said.append(before)
            if expression is not None:
                value, _ = expression.value(seen)
                try:
                    said.append(format(value, spec))
                except (TypeError, ValueError) as error:
                    raise ConditionError(f"{self.text!r}: {error}") from None
        return "".join(said)
