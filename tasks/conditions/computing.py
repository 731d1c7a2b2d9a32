"""What an expression comes to, and what it has read: simpleeval computes it."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from flowrun.msgs.message import Message
from flowrun.runtime.wording import listed, nearest
from flowrun.tasks.conditions.language import NAMES, READS, ConditionError, Messages, Seen

__all__ = ["evaluator_class"]

_LONGEST_TEXT, _LONGEST_LIST = 200, 20
"""Of a value that is kept of what was read."""


@cache
def evaluator_class() -> Any:
    """Simpleeval's class, with fields of messages alone. Made when a condition is first computed: a
    graph without one does not load the package."""
    from simpleeval import EvalWithCompoundTypes

    class Evaluator(EvalWithCompoundTypes):  # type: ignore[misc]  # has no types
        def __init__(self, written: Mapping[int, str]) -> None:
            super().__init__()
            self._written = written
            self._leave()

        def _leave(self) -> None:
            """Forget what was seen: messages are no task's to keep."""
            self._messages: Messages = {}
            self._values: dict[str, Any] = {}
            self.functions: dict[str, Callable[..., Any]] = {}
            self.names: dict[str, Any] = {}

        def of(self, seen: Seen, source: str, body: ast.expr) -> tuple[Any, dict[str, Any]]:
            self._messages = seen.messages
            self.functions, self.names = seen.functions(), seen.names()
            try:
                return self.eval(source, previously_parsed=body), self._values
            finally:
                self._leave()

        def _eval_call(self, node: ast.Call) -> Any:
            value = super()._eval_call(node)
            if isinstance(node.func, ast.Name) and node.func.id in READS:
                self._note(node, value)
            return value

        def _eval_name(self, node: ast.Name) -> Any:
            value = super()._eval_name(node)
            if node.id in NAMES:
                self._note(node, value)
            return value

        def _eval_attribute(self, node: ast.Attribute) -> Any:
            assert isinstance(node.value, ast.Name)
            value = _field(self._messages[node.value.id], node.attr)
            self._note(node, value)
            return value

        def _note(self, node: ast.AST, value: Any) -> None:
            self._values[self._written[id(node)]] = _kept(value)

    return Evaluator


def _field(message: Message, name: str) -> Any:
    """A field as an expression reads it: an array as a list."""
    fields = list(message.defaults)
    if name not in fields:
        kind = message.own_class.__name__
        raise ConditionError(
            f"{kind} has no field {name!r}; fields: {listed(fields)}{nearest(name, fields)}"
        )
    value = getattr(message, name)
    return value.tolist() if isinstance(value, np.ndarray) else value


def _kept(value: Any) -> Any:
    """A value as an alert keeps it: no number that is none, and no more of it than somebody reads."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}…"
    if isinstance(value, (list, tuple)):
        return [_kept(item) for item in value[:_LONGEST_LIST]]
    return value
