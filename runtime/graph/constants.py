"""`{{NAME}}` in the values of a graph file: its constants, and the params of the file that includes it.

Alone, `{{NAME}}` is the value itself, whatever it is, in quotes or not; within a text it is the value's
text. `{{{{` is the text `{{`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from flowrun.runtime.graph.file import MAX_BYTES
from flowrun.runtime.graph.spec import IDENTIFIER
from flowrun.runtime.graph.values import ValueReader, is_null, is_plain
from flowrun.runtime.wording import listed, nearest

__all__ = ["Scope", "escaped_braces"]

_NAME = re.compile(IDENTIFIER)
_REFERENCE = re.compile(rf"(?P<literal>\{{{{4}})|\{{\{{(?:\s*(?P<name>{IDENTIFIER})\s*\}}\}})?")
_ALONE = re.compile(rf"\{{\{{\s*({IDENTIFIER})\s*\}}\}}")


def escaped_braces(text: str) -> str:
    """The text of a scalar whose value is `text`."""
    return text.replace("{{", "{{{{")


@dataclass(slots=True)
class Scope:
    """What the values of one file may name.

    values: the value of each constant and param.
    used: the names that a value has used.
    """

    reader: ValueReader
    values: dict[str, yaml.Node] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    has_filled: bool = False
    """Whether a node was replaced by another."""
    _filled: dict[int, tuple[yaml.Node, yaml.Node]] = field(default_factory=dict)
    """By the `id` of a node, the node itself, and what it has become."""

    def fill(self, node: yaml.Node) -> yaml.Node:
        """`node` with the values in the places of their names; a name that nothing has is noted as a
        problem. The nodes that are replaced keep their places in the file."""
        if id(node) not in self._filled:
            self._filled[id(node)] = node, node  # an alias to what is around it has been refused
            made = self._made(node)
            self._filled[id(node)] = node, made
            self.has_filled = self.has_filled or made is not node
        return self._filled[id(node)][1]

    def _made(self, node: yaml.Node) -> yaml.Node:
        match node:
            case yaml.ScalarNode():
                alone = _ALONE.fullmatch(node.value)
                if alone is not None:
                    return self._value(node, alone[1])
                return self._text(node) if "{{" in node.value else node
            case yaml.SequenceNode():
                items = [self.fill(item) for item in node.value]
                return node if _same(items, node.value) else _copy(node, items)
            case yaml.MappingNode():
                name = _named(node)
                if name is not None:
                    return self._value(node, name)
                pairs = [(key, self.fill(value)) for key, value in node.value]
                same = _same([it for _, it in pairs], [it for _, it in node.value])
                return node if same else _copy(node, pairs)
            case _:
                return node

    def _value(self, node: yaml.Node, name: str) -> yaml.Node:
        found = self._find(node, name)
        if found is None:
            found = yaml.ScalarNode("tag:yaml.org,2002:str", "", node.start_mark, node.end_mark)
        return _at(found, node)

    def _text(self, node: yaml.ScalarNode) -> yaml.ScalarNode:
        """The scalar with the texts of the values."""
        parts, end = [], 0
        for match in _REFERENCE.finditer(node.value):
            parts.append(node.value[end : match.start()])
            end = match.end()
            parts.append("{{" if match["literal"] else self._part(node, match["name"]))
        text = "".join([*parts, node.value[end:]])
        if len(text) > MAX_BYTES:
            self.reader.problem(node, f"a text of more than {MAX_BYTES} characters with its values")
            text = ""
        return yaml.ScalarNode(node.tag, text, node.start_mark, node.end_mark, style=node.style)

    def _part(self, node: yaml.Node, name: str | None) -> str:
        if name is None:
            self.reader.problem(node, "'{{' must begin {{NAME}}; write '{{{{' for the text '{{'")
            return "{{"
        found = self._find(node, name)
        if found is None:
            return ""
        if not isinstance(found, yaml.ScalarNode):
            self.reader.problem(
                node,
                f"{{{{{name}}}}} is {self.reader.shown(found)}, which cannot be a part of a text; write "
                "it alone",
            )
            return ""
        return str(found.value)

    def _find(self, node: yaml.Node, name: str) -> yaml.Node | None:
        self.used.add(name)
        found = self.values.get(name)
        if found is None:
            self.reader.problem(
                node,
                f"nothing gives {{{{{name}}}}} a value; constants and params here: "
                f"{listed(self.values)}" + nearest(name, self.values),
            )
        return found


def _named(node: yaml.Node) -> str | None:
    """The name in `{{NAME}}`, which YAML reads as a mapping in a mapping."""
    for _ in range(2):
        if not isinstance(node, yaml.MappingNode) or not node.flow_style or len(node.value) != 1:
            return None
        node, value = node.value[0]
        if not (is_null(value) and value.value == ""):
            return None
    is_name = is_plain(node) and _NAME.fullmatch(node.value)
    return node.value if is_name else None


def _at(node: yaml.Node, place: yaml.Node) -> yaml.Node:
    """A copy of `node` that is at `place` in the file."""
    start, end = place.start_mark, place.end_mark
    if isinstance(node, yaml.ScalarNode):
        return yaml.ScalarNode(node.tag, node.value, start, end, style=node.style)
    assert isinstance(node, yaml.CollectionNode)
    return type(node)(node.tag, node.value, start, end, flow_style=node.flow_style)


def _copy(node: yaml.CollectionNode, value: Any) -> yaml.Node:
    return type(node)(node.tag, value, node.start_mark, node.end_mark, flow_style=node.flow_style)


def _same(made: list[yaml.Node], nodes: list[yaml.Node]) -> bool:
    return all(a is b for a, b in zip(made, nodes, strict=True))
