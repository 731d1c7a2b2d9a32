"""`Condition`: an expression that is right, and whether it holds."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from flowrun.msgs.message import Message
from flowrun.runtime.wording import listed, nearest
from flowrun.tasks.conditions.checking import Check, parsed
from flowrun.tasks.conditions.computing import evaluator_class
from flowrun.tasks.conditions.language import INPUTS, ConditionError, Seen

__all__ = ["Condition", "Reading"]

_LONGEST = 4096
"""Characters of an expression."""


class Reading(NamedTuple):
    """What a condition came to.

    holds: whether it is so.
    values: what it read, by how it is written: "count('person')" -> 2.
    """

    holds: bool
    values: dict[str, Any]


class Condition:
    """An expression that is right: `ConditionError` says what is wrong with another.

    text: as somebody wrote it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # As long as it was, so that columns stay.
        source = re.sub(r"[\r\n\t]", " ", text)
        lead = len(source) - len(source.lstrip())
        source = source.strip()
        if not source:
            raise ConditionError("a condition is missing, such as count('person') > 0")
        if len(source) > _LONGEST:
            raise ConditionError(
                f"a condition has at most {_LONGEST:,} characters; got {len(source):,}; "
                "write a function, and give its name: my_module:my_function"
            )
        tree = parsed(source, lead)
        self._body = tree.body
        self._source = source
        self.inputs: frozenset[str] = frozenset(Check(text, source, lead).inputs(tree))
        """The inputs that it reads."""
        self._written = {
            id(node): ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Call, ast.Attribute, ast.Name))
        }
        self._try_without_anything()

    def _try_without_anything(self) -> None:
        """Compute it for an empty answer and no objects, as it must be able to: what is of the wrong
        kind shows then. Which zones, lines and fields there are is not known yet."""
        if "message" in self.inputs:
            return
        try:
            self.value(Seen({name: INPUTS[name]() for name in self.inputs}))
        except ConditionError as error:
            if not isinstance(error.__cause__, LookupError) or not self.inputs & {"zones", "lines"}:
                raise ConditionError(str(error)) from None

    def problems_with(self, inputs: Mapping[str, type[Message]]) -> Iterator[str]:
        """What is wrong with it for these inputs: a field of `message` that its class has not.

        inputs: by name, the class of what is connected.
        """
        connected = inputs.get("message")
        if connected is None or connected is Message:
            return
        fields = list(connected.defaults)
        for node in ast.walk(self._body):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "message"
                and node.attr not in fields
            ):
                yield (
                    f"{connected.__name__} has no field {node.attr!r}; fields: {listed(fields)}"
                    f"{nearest(node.attr, fields)}"
                )

    def read(self, seen: Seen) -> Reading:
        """Whether it holds for what was seen. `ConditionError` where it cannot be computed."""
        value, values = self.value(seen)
        is_number = isinstance(value, float) and math.isnan(value)
        return Reading(bool(value) and not is_number, values)

    def value(self, seen: Seen) -> tuple[Any, dict[str, Any]]:
        """What it comes to, and what it read."""
        from simpleeval import InvalidExpression  # loaded by graphs that have a condition

        try:
            value, values = self._evaluator.of(seen, self._source, self._body)
        except ConditionError as error:
            raise ConditionError(f"{self.text!r}: {error}") from None
        except RecursionError:
            raise ConditionError(f"{self.text!r} is nested too deep") from None
        except InvalidExpression as error:
            raise ConditionError(f"{self.text!r} comes to something too large") from error
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ConditionError(f"{self.text!r} fails: {error}") from error
        return value, values

    @cached_property
    def _evaluator(self) -> Any:
        return evaluator_class()(self._written)
