"""The values of a section's keys, checked by the tables of `keys`; what is left out has its default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import yaml

from flowrun.runtime.errors import Location
from flowrun.runtime.graph.keys import Key, expected, fits, key_names, required_names
from flowrun.runtime.graph.values import ValueReader, is_null

__all__ = ["items_of", "names_of", "places_of", "section_items", "values_of"]

_NAME = re.compile(r"\w[\w-]*")
_RULES_OF_THEIR_OWN = ("config", "addresses", "instances", "name lists", "named sections")
"""The kinds whose values whoever reads the section reads."""


def values_of(
    reader: ValueReader, section: Key, items: Mapping[str, yaml.Node], owner: str = ""
) -> dict[str, Any]:
    """What the file says for the keys of `section` that are scalars or sections themselves; a key
    that is left out, or wrong, has its default."""
    values: dict[str, Any] = {}
    for key in section.keys:
        node = items.get(key.name)
        if key.kind == "section":
            inner = section_items(reader, key, node, owner)
            values[key.name] = key.spec(**values_of(reader, key, inner))
        elif key.kind == "names":
            values[key.name] = () if node is None else names_of(reader, key, node)
        elif key.kind == "cores":
            values[key.name] = None if node is None else _cores(reader, key, node)
        elif key.kind not in _RULES_OF_THEIR_OWN:
            value = reader.checked(
                node,
                repr(key.name),
                expected=expected(key),
                fits=partial(fits, key),
                default=key.default,
            )
            is_number = key.kind == "number" and value is not None
            values[key.name] = float(value) if is_number else value
    return values


def names_of(reader: ValueReader, key: Key, node: yaml.Node) -> tuple[str, ...]:
    """The texts of a list of names, each once."""
    found: dict[str, None] = {}
    nodes = reader.sequence(node, repr(key.name))
    if not nodes and (is_null(node) or isinstance(node, yaml.SequenceNode)):
        reader.problem(node, f"{key.name!r} is empty; leave it out, or name at least one")
    for item in nodes:
        text = reader.checked(
            item,
            f"an item of {key.name!r}",
            expected="a name: letters, digits, '_' and '-'",
            fits=lambda value: isinstance(value, str) and bool(_NAME.fullmatch(value)),
        )
        if text is not None:
            found[text] = None
    return tuple(found)


def _cores(reader: ValueReader, key: Key, node: yaml.Node) -> tuple[int, ...] | None:
    """The numbers of a list of cores, each once, in their order; None for null."""
    if is_null(node):
        return None
    nodes = reader.sequence(node, repr(key.name))
    if not nodes and isinstance(node, yaml.SequenceNode):
        reader.problem(node, f"{key.name!r} is empty; name at least one core, or leave it out")
    found = {
        reader.checked(
            item,
            f"an item of {key.name!r}",
            expected="the number of a core, 0 or more",
            fits=lambda value: type(value) is int and value >= 0,
        )
        for item in nodes
    } - {None}
    return tuple(sorted(found)) or None


def section_items(
    reader: ValueReader, section: Key, node: yaml.Node | None, owner: str = ""
) -> dict[str, yaml.Node]:
    """Key -> value node of a section, which may be left out or empty."""
    if node is None or is_null(node):
        return {}
    return items_of(reader, section, node, f"{owner}{section.name!r}")


def items_of(reader: ValueReader, section: Key, node: yaml.Node, what: str) -> dict[str, yaml.Node]:
    return reader.known_items(node, what, keys=key_names(section), required=required_names(section))


def places_of(reader: ValueReader, items: Mapping[str, yaml.Node]) -> dict[str, Location]:
    """The place of each value."""
    return {name: reader.at(node) for name, node in items.items()}
