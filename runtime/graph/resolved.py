"""The text of a graph that was put together from several files, constants and settings.

The log keeps it as the graph file: a replay needs none of the files. Secrets are masked in it by the
places of its scalars, as in a file that a person wrote.
"""

from __future__ import annotations

from typing import Any

import yaml

from flowrun.runtime.errors import InternalError
from flowrun.runtime.graph.constants import escaped_braces
from flowrun.runtime.graph.file import compose
from flowrun.runtime.graph.values import is_plain

__all__ = ["resolved_text"]


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # plain scalars stay plain texts


def resolved_text(root: yaml.Node) -> tuple[str, dict[int, tuple[int, int]]]:
    """The text of `root`, and by the `id` of each of its scalars, where it starts and ends there."""
    made = _block(root, {})
    text: str = yaml.serialize(made, Dumper=_Dumper, allow_unicode=True, width=1 << 30)
    spans: dict[int, tuple[int, int]] = {}
    _note_spans(root, compose(text, "the resolved graph"), spans, set())
    return text, spans


def _block(node: yaml.Node, made: dict[int, yaml.Node]) -> yaml.Node:
    """A copy as it is written: mappings and lists as blocks, nothing left empty."""
    if id(node) in made:
        return made[id(node)]
    copy: yaml.Node
    if isinstance(node, yaml.ScalarNode):
        text = "null" if is_plain(node) and node.value == "" else escaped_braces(node.value)
        copy = yaml.ScalarNode(node.tag, text, style=node.style)
    elif isinstance(node, yaml.SequenceNode):
        copy = yaml.SequenceNode(
            node.tag, [_block(it, made) for it in node.value], flow_style=False
        )
    else:
        pairs = [(_block(key, made), _block(value, made)) for key, value in node.value]
        copy = yaml.MappingNode(node.tag, pairs, flow_style=False)
    made[id(node)] = copy
    return copy


def _note_spans(
    node: yaml.Node, written: yaml.Node, spans: dict[int, tuple[int, int]], seen: set[int]
) -> None:
    if id(node) in seen:
        return
    seen.add(id(node))
    if type(node) is not type(written):
        raise InternalError(f"the resolved graph reads as {written!r:.200}; expected {node!r:.200}")
    if isinstance(node, yaml.ScalarNode):
        spans[id(node)] = written.start_mark.index, written.end_mark.index
        return
    for item, other in zip(node.value, written.value, strict=True):
        if isinstance(node, yaml.SequenceNode):
            _note_spans(item, other, spans, seen)
        else:
            for one, two in zip(item, other, strict=True):
                _note_spans(one, two, spans, seen)
