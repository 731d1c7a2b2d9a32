"""Conditions of alerts: expressions over what models answered, found and counted.

    said('fire', 'smoke') or count('person', score=0.5) > 2 and (hour >= 22 or hour < 6)

They are written as in Python, without assignments, methods and imports: simpleeval computes them. A
condition is checked whole before the run; `Condition.read` then says whether it holds, and what it read.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache, cached_property
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.message import Message
from flowrun.msgs.regions import LinesMsg, ZonesMsg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.wording import listed, nearest

__all__ = ["INPUTS", "Condition", "ConditionError", "Reading", "Seen", "Template", "said"]

INPUTS: Mapping[str, type[Message]] = {
    "answer": PromptResponseMsg,
    "detections": DetectionsMsg,
    "zones": ZonesMsg,
    "lines": LinesMsg,
    "message": Message,
}
"""What a condition may read: the inputs of `Alert`, and the messages that they take."""
_LONGEST = 4096
"""Characters of an expression."""
_LONGEST_TEXT, _LONGEST_LIST = 200, 20
"""Of a value that is kept of what was read."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NODES = (
    ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Call, ast.keyword,
    ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.List, ast.Tuple, ast.Set, ast.ListComp,
    ast.GeneratorExp, ast.comprehension, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
    ast.expr_context,
)  # fmt: skip

Messages: TypeAlias = Mapping[str, Message]


class ConditionError(ValueError):
    """A condition is wrong, or what it computes fails: what, where in it, and what instead."""


class Reading(NamedTuple):
    """What a condition came to.

    holds: whether it is so.
    values: what it read, by how it is written: "count('person')" -> 2.
    """

    holds: bool
    values: dict[str, Any]


@dataclass(slots=True)
class Seen:
    """What a condition reads: the functions and names of its language.

    messages: by input, the newest message, of those in which one has come.
    at_ns: the time that `hour` and its like are of.
    zone: the time zone of these.
    """

    messages: Messages
    at_ns: int = 0
    zone: tzinfo = UTC

    def names(self) -> dict[str, Any]:
        """The names of the language, with their values."""
        at = datetime.fromtimestamp(self.at_ns // 1_000_000_000, UTC).astimezone(self.zone)
        return {"hour": at.hour, "minute": at.minute, "weekday": _DAYS[at.weekday()]}

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions of the language."""
        return {**{name: getattr(self, name) for name in _READING}, **_COMPUTING}

    def messages_of(self, inputs: Sequence[str]) -> dict[str, Message]:
        """Of these inputs, the messages that have come."""
        return {name: self.messages[name] for name in inputs if name in self.messages}

    # -- answers ---------------------------------------------------------------------------------

    def said(self, word: str, *words: str) -> bool:
        """Whether one of the words is in the answer: whole words, whatever their case."""
        return said(self._text("said"), _texts("said", (word, *words)))

    def number(self) -> float:
        """The first number in the answer; no number, which is neither more nor less than any, where it
        has none."""
        found = _NUMBER.search(self._text("number"))
        return math.nan if found is None else float(found[0])

    # -- objects ---------------------------------------------------------------------------------

    def count(self, *labels: str, score: float = 0.0) -> int:
        """How many objects were found: of these classes, or of all."""
        return sum(1 for _ in self._scores("count", labels, score))

    def best(self, *labels: str) -> float:
        """The highest score of these classes, or of all; 0 if none is found."""
        return max(self._scores("best", labels, 0.0), default=0.0)

    # -- zones and lines -------------------------------------------------------------------------

    def inside(self, zone: str, *labels: str) -> int:
        """How many objects are in the zone: of these classes, or of all."""
        zones, at = self._region("inside", "zones", zone)
        if at is None:
            return 0
        if not labels:
            return int(zones.counts[at])
        return sum(zones.labels[at].get(label, 0) for label in _texts("inside", labels))

    def stay_s(self, zone: str) -> float:
        """How long the track that has been in the zone for longest has, in seconds; 0 without one."""
        zones, at = self._region("stay_s", "zones", zone)
        return 0.0 if at is None else max(zones.inside_s[at], default=0.0)

    def entered(self, zone: str) -> int:
        """How many tracks have come into the zone since the last message."""
        zones, at = self._region("entered", "zones", zone)
        return 0 if at is None else len(zones.entered[at])

    def left(self, zone: str) -> int:
        """How many tracks have gone from the zone since the last message."""
        zones, at = self._region("left", "zones", zone)
        return 0 if at is None else len(zones.left[at])

    def crossed(self, line: str, direction: str | None = None) -> int:
        """How many tracks have crossed the line since the last message: "in", "out", or both."""
        if direction not in {None, "in", "out"}:
            raise ConditionError(f"crossed: a direction is 'in' or 'out'; got {direction!r}")
        lines, at = self._region("crossed", "lines", line)
        if at is None:
            return 0
        both = {"in": len(lines.went_in[at]), "out": len(lines.went_out[at])}
        return sum(both.values()) if direction is None else both[direction]

    # -- what they read --------------------------------------------------------------------------

    def _text(self, function: str) -> str:
        return str(self._message("answer", function).response)

    def _message(self, name: str, _function: str) -> Any:
        return self.messages[name]

    def _scores(self, function: str, labels: Sequence[str], least: float) -> Iterator[float]:
        """The scores of the objects of `labels` that have at least the score; 1 of those without."""
        wanted = _texts(function, labels)
        if isinstance(least, bool) or not isinstance(least, (int, float)):
            raise ConditionError(f"{function}: score is a number; got {least!r}")
        found = self._message("detections", function)
        for label, given in zip(found.labels, found.scores.tolist(), strict=True):
            score = 1.0 if math.isnan(given) else given
            if (not wanted or label in wanted) and score >= least:
                yield score

    def _region(self, function: str, name: str, region: str) -> tuple[Any, int | None]:
        """The message, and which of its entries is about the zone or the line of that name."""
        _texts(function, (region,))
        message = self._message(name, function)
        names = list(message.names)
        if region in names:
            return message, names.index(region)
        if names:  # the check of a condition has none
            kind = name[:-1]
            raise ConditionError(
                f"{function}: unknown {kind} {region!r}; {name}: {listed(names)}"
                f"{nearest(region, names)}"
            )
        return message, None


_READS = {
    "said": "answer", "number": "answer",
    "count": "detections", "best": "detections",
    "inside": "zones", "stay_s": "zones", "entered": "zones", "left": "zones",
    "crossed": "lines",
}  # fmt: skip
"""By function, the input that it reads."""
_READING = tuple(_READS)
_COMPUTING: dict[str, Callable[..., Any]] = {
    "abs": abs, "all": all, "any": any, "len": len, "max": max, "min": min, "round": round, "sum": sum,
    "lower": lambda text: str(text).lower(),
}  # fmt: skip
_NAMES = ("hour", "minute", "weekday")
_EXAMPLES = {
    "answer": "response", "detections": "labels", "zones": "counts", "lines": "ins", "message": "value",
}  # fmt: skip


def said(text: str, words: Sequence[str]) -> bool:
    """Whether one of the words is in the text: whole words, whatever their case."""
    options = "|".join(re.escape(word) for word in words)
    return re.search(rf"(?<!\w)(?:{options})(?!\w)", text, re.IGNORECASE) is not None


def _texts(function: str, values: Sequence[Any]) -> Sequence[str]:
    for value in values:
        if not isinstance(value, str) or not value:
            raise ConditionError(f"{function} takes texts, such as {function}('x'); got {value!r}")
    return values


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
        try:
            tree = ast.parse(source, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ConditionError(_syntax(error, source, lead)) from None
        self._body = tree.body
        self._lead, self._source = lead, source
        self.inputs: frozenset[str] = frozenset(self._check(tree))
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
        return _evaluator_class()(self._written)

    # -- the check ---------------------------------------------------------------------------------

    def _check(self, tree: ast.Expression) -> Iterator[str]:
        """The inputs that are read. `ConditionError` for the first thing that is wrong."""
        bound = {
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        fields = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if not isinstance(node, _NODES):
                self._wrong(node, f"{type(node).__name__} is not part of a condition")
            if isinstance(node, ast.Call):
                yield from self._check_call(node)
            elif isinstance(node, ast.Attribute):
                yield from self._check_field(node)
            elif isinstance(node, ast.Name) and id(node) not in called | fields:
                self._check_name(node, bound)
            elif isinstance(node, ast.Constant) and not isinstance(
                node.value, (bool, int, float, str, type(None))
            ):
                self._wrong(node, f"{node.value!r} is not part of a condition")

    def _check_call(self, node: ast.Call) -> Iterator[str]:
        known = [*_READING, *_COMPUTING]
        if not isinstance(node.func, ast.Name):
            self._wrong(node, f"only functions are called; functions: {listed(known)}")
        name = node.func.id
        if name not in known:
            self._wrong(
                node, f"unknown function {name!r}; functions: {listed(known)}{nearest(name, known)}"
            )
        if name in _READS:
            signature = inspect.signature(getattr(Seen, name))
            names = [it.arg for it in node.keywords]
            if None in names or any(isinstance(it, ast.Starred) for it in node.args):
                self._wrong(node, f"{name}: write the arguments out")
            try:
                signature.bind(None, *node.args, **dict.fromkeys(filter(None, names)))
            except TypeError as error:
                self._wrong(node, f"{name}: {error}; write {_shown(name, signature)}")
            yield _READS[name]

    def _check_field(self, node: ast.Attribute) -> Iterator[str]:
        if not isinstance(node.value, ast.Name) or node.value.id not in INPUTS:
            self._wrong(
                node,
                f"only the inputs have fields, such as answer.tokens; inputs: {listed(INPUTS)}",
            )
        name = node.value.id
        fields = [] if name == "message" else list(INPUTS[name].defaults)
        if name == "message":
            if node.attr.startswith("_"):
                self._wrong(node, f"a message has no field {node.attr!r}")
        elif node.attr not in fields:
            self._wrong(
                node,
                f"{name} has no field {node.attr!r}; fields: {listed(fields)}"
                f"{nearest(node.attr, fields)}",
            )
        yield name

    def _check_name(self, node: ast.Name, bound: set[str]) -> None:
        if node.id in _NAMES or node.id in bound or node.id in {"True", "False", "None"}:
            return
        if node.id in INPUTS:
            self._wrong(node, f"read a field of {node.id}, such as {node.id}.{_EXAMPLES[node.id]}")
        if node.id in _READS or node.id in _COMPUTING:
            self._wrong(node, f"{node.id!r} is a function; call it: {node.id}(...)")
        known = [*_NAMES, *(f"{name}.FIELD" for name in INPUTS), *(f"{it}()" for it in _READING)]
        near = nearest(node.id, known) or f"; a text is in quotes: '{node.id}'"
        self._wrong(node, f"unknown name {node.id!r}; known: {listed(known)}{near}")

    def _wrong(self, node: ast.AST, text: str) -> NoReturn:
        column = getattr(node, "col_offset", None)
        if column is None:
            raise ConditionError(f"{self.text!r}: {text}")
        column = len(self._source.encode()[:column].decode(errors="ignore")) + self._lead + 1
        raise ConditionError(f"character {column} of {self.text!r}: {text}")


def _shown(name: str, signature: inspect.Signature) -> str:
    """A function as it is called: `count('label', ..., score=0.0)`."""
    parts = []
    for it in list(signature.parameters.values())[1:]:
        if it.kind is it.VAR_POSITIONAL:
            parts.append("...")
        elif it.kind is it.KEYWORD_ONLY or it.default not in {it.empty, None}:
            parts.append(f"{it.name}={it.default}")
        else:
            parts.append(f"'{it.name}'")
    return f"{name}({', '.join(parts)})"


def _syntax(error: BaseException, source: str, lead: int) -> str:
    """What is no Python, and where."""
    example = "a condition is an expression, such as count('person') > 2 or said('fire')"
    if not isinstance(error, SyntaxError):
        return f"{source!r}: {error or 'it is nested too deep'}; {example}"
    return f"character {(error.offset or len(source)) + lead} of {source!r}: {error.msg}; {example}"


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


@cache
def _evaluator_class() -> Any:
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
            if isinstance(node.func, ast.Name) and node.func.id in _READS:
                self._note(node, value)
            return value

        def _eval_name(self, node: ast.Name) -> Any:
            value = super()._eval_name(node)
            if node.id in _NAMES:
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


def _kept(value: Any) -> Any:
    """A value as an alert keeps it: no number that is none, and no more of it than somebody reads."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}…"
    if isinstance(value, (list, tuple)):
        return [_kept(item) for item in value[:_LONGEST_LIST]]
    return value
