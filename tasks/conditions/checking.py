"""What of an expression is no condition, and where: found before it is ever computed."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from flowrun.runtime.wording import listed, nearest
from flowrun.tasks.conditions.language import (
    COMPUTING,
    INPUTS,
    NAMES,
    READS,
    ConditionError,
    Seen,
)

__all__ = ["Check", "parsed"]

_NODES = (
    ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Call, ast.keyword,
    ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.List, ast.Tuple, ast.Set, ast.ListComp,
    ast.GeneratorExp, ast.comprehension, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
    ast.expr_context,
)  # fmt: skip
_EXAMPLES = {
    "answer": "response", "detections": "labels", "zones": "counts", "lines": "ins", "message": "value",
}  # fmt: skip


def parsed(source: str, lead: int) -> ast.Expression:
    """The tree of an expression. `ConditionError` where it is none.

    lead: number of characters that somebody wrote before it.
    """
    try:
        return ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConditionError(_syntax(error, source, lead)) from None


@dataclass(frozen=True, slots=True)
class Check:
    """The check of one expression.

    text: as somebody wrote it. source: what is computed of it. lead: number of characters before that.
    """

    text: str
    source: str
    lead: int

    def inputs(self, tree: ast.Expression) -> Iterator[str]:
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
                yield from self._call(node)
            elif isinstance(node, ast.Attribute):
                yield from self._field(node)
            elif isinstance(node, ast.Name) and id(node) not in called | fields:
                self._name(node, bound)
            elif isinstance(node, ast.Constant) and not isinstance(
                node.value, (bool, int, float, str, type(None))
            ):
                self._wrong(node, f"{node.value!r} is not part of a condition")

    def _call(self, node: ast.Call) -> Iterator[str]:
        known = [*READS, *COMPUTING]
        if not isinstance(node.func, ast.Name):
            self._wrong(node, f"only functions are called; functions: {listed(known)}")
        name = node.func.id
        if name not in known:
            self._wrong(
                node, f"unknown function {name!r}; functions: {listed(known)}{nearest(name, known)}"
            )
        if name in READS:
            signature = inspect.signature(getattr(Seen, name))
            names = [it.arg for it in node.keywords]
            if None in names or any(isinstance(it, ast.Starred) for it in node.args):
                self._wrong(node, f"{name}: write the arguments out")
            try:
                signature.bind(None, *node.args, **dict.fromkeys(filter(None, names)))
            except TypeError as error:
                self._wrong(node, f"{name}: {error}; write {_shown(name, signature)}")
            yield READS[name]

    def _field(self, node: ast.Attribute) -> Iterator[str]:
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

    def _name(self, node: ast.Name, bound: set[str]) -> None:
        if node.id in NAMES or node.id in bound or node.id in {"True", "False", "None"}:
            return
        if node.id in INPUTS:
            self._wrong(node, f"read a field of {node.id}, such as {node.id}.{_EXAMPLES[node.id]}")
        if node.id in READS or node.id in COMPUTING:
            self._wrong(node, f"{node.id!r} is a function; call it: {node.id}(...)")
        known = [*NAMES, *(f"{name}.FIELD" for name in INPUTS), *(f"{it}()" for it in READS)]
        near = nearest(node.id, known) or f"; a text is in quotes: '{node.id}'"
        self._wrong(node, f"unknown name {node.id!r}; known: {listed(known)}{near}")

    def _wrong(self, node: ast.AST, text: str) -> NoReturn:
        column = getattr(node, "col_offset", None)
        if column is None:
            raise ConditionError(f"{self.text!r}: {text}")
        column = len(self.source.encode()[:column].decode(errors="ignore")) + self.lead + 1
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
