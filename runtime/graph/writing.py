"""Python values -> the text of a graph file, and back: what `values` reads, written.

Texts are written so that they are read as texts; keys are texts. `${NAME}` is as in a file:
`"${PORT}"` becomes what the variable says, also a number. A text that a file had in quotes stays in
quotes.
"""

from __future__ import annotations

import enum
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, SecretStr

from flowrun.runtime.graph.values import ValueReader, is_plain, typed

__all__ = ["Unwritable", "plain", "read_back", "written"]

_TEXT = "tag:yaml.org,2002:str"
_LINE_END = re.compile("[\n\r\x85\u2028\u2029]")


class Unwritable(Exception):  # noqa: N818  # says itself what is wrong
    """A value that a graph file cannot hold.

    path: where it is in what was given.
    """

    def __init__(self, path: tuple[str | int, ...], value: object) -> None:
        self.path = path
        kind = type(value)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        super().__init__(
            "a graph holds texts, numbers, True, False, None, and lists and dicts of these; got "
            f"an object of type {module}{kind.__qualname__}"
        )


class _Quoted(str):
    """A text that a file has in quotes."""

    __slots__ = ()


def plain(value: Any, path: tuple[str | int, ...] = ()) -> Any:
    """A copy of `value`, as texts, numbers, truth values, None, lists and dicts. Paths become texts,
    NumPy's values Python's. `Unwritable` says what cannot be one of them."""
    match value:
        case None | bool() | _Quoted():
            return value
        case enum.Enum():
            return plain(value.value, path)
        case str():
            return str(value)
        case int():
            return int(value)
        case float():
            return float(value)
        case os.PathLike():
            return plain(os.fspath(value), path)
        case np.generic() | np.ndarray():
            return plain(value.tolist(), path)
        case SecretStr():
            return value.get_secret_value()
        case BaseModel():
            given = {key: getattr(value, key) for key in value.model_fields_set}
            return plain(given, path)
        case Mapping():
            items = {}
            for key, item in value.items():
                if isinstance(key, bool) or not isinstance(key, (str, int)):
                    raise Unwritable((*path, str(key)), key)
                items[str(key)] = plain(item, (*path, str(key)))
            return items
        case list() | tuple():
            return [plain(item, (*path, i)) for i, item in enumerate(value)]
    raise Unwritable(path, value)


def written(data: Any) -> str:
    """The text of a graph file with `data`, which `plain` has made."""
    # All are texts to the emitter: which of them needs quotes is decided here.
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf))


def read_back(reader: ValueReader, node: yaml.Node) -> Any:
    """What `plain` would have made of a program that says what `node` does: `${NAME}` stays."""
    if isinstance(node, yaml.MappingNode):
        items = reader.items(node, "a mapping")
        return {name: read_back(reader, value) for name, (_, value) in items.items()}
    if isinstance(node, yaml.SequenceNode):
        return [read_back(reader, item) for item in node.value]
    if is_plain(node):
        return node.value if "${" in node.value else typed(node.value)
    return _Quoted(node.value) if "${" in node.value else node.value


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # all plain scalars are texts

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    is_quoted = not isinstance(typed(value), str) or value == "<<" or _LINE_END.search(value)
    return dumper.represent_scalar(_TEXT, value, style='"' if is_quoted else None)


def _quoted(dumper: _Dumper, value: _Quoted) -> yaml.Node:
    return dumper.represent_scalar(_TEXT, str(value), style='"')


def _other(dumper: _Dumper, value: bool | float | None) -> yaml.Node:  # noqa: FBT001
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, float) and not math.isfinite(value):
        text = ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    else:
        text = repr(value)
    return dumper.represent_scalar(_TEXT, text)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(_Quoted, _quoted)
for kind in (bool, int, float, type(None)):
    _Dumper.add_representer(kind, _other)
