"""The YAML nodes of a graph file -> values, each with its place; `${ENV}` is resolved here.

YAML is read by the 1.2 core schema, as editors do: `no` and `12:30` are texts. Anchors, aliases and
merge keys (`<<`) work; tags do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from flowrun.runtime.errors import Location, Problem
from flowrun.runtime.wording import MASK, described, listed, mask_urls, nearest

__all__ = ["Value", "ValueReader", "is_null"]

_TAG = "tag:yaml.org,2002:"
_VARIABLE = re.compile(
    r"(?P<literal>\$\$\{)|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?"
)
_INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def _typed(text: str) -> Any:
    """What the plain scalar `text` means in YAML 1.2's core schema."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


@dataclass(frozen=True, slots=True)
class Value:
    """A value, and the same as it may be shown."""

    value: Any
    masked: Any


@dataclass(slots=True)
class ValueReader:
    """Reads nodes; collects problems, each once even where aliases lead to it twice."""

    file: str
    env: Mapping[str, str]
    problems: dict[Problem, None] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    scalars: dict[tuple[str | int, ...], tuple[int, int]] = field(default_factory=dict)
    """Where in the text the scalars stand that `value` has read, by their paths: from, to."""
    _scalars: dict[int, tuple[Value | None, frozenset[str]]] = field(default_factory=dict)

    def at(self, node: yaml.Node) -> Location:
        return Location(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def problem(self, node: yaml.Node, message: str) -> None:
        self.problems[Problem(self.at(node), message)] = None

    def items(self, node: yaml.Node, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key -> (key node, value node) of a mapping, its merge keys followed."""
        if not isinstance(node, yaml.MappingNode) or not self._untagged(node, "map"):
            self.problem(node, f"{what} must be a mapping (key: value); got {self.shown(node)}")
            return {}
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None or not self._untagged(key, "str"):
                self.problem(key, f"a key of {what} must be a text; got {self.shown(key)}")
            elif name == "<<" and _is_plain(key):
                sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for source in sources:
                    merged = self.items(source, "what '<<' merges") | merged
            elif name in found:
                first = found[name][0].start_mark.line + 1
                self.problem(key, f"duplicate key {name!r}; first on line {first}")
            else:
                found[name] = key, value
        return merged | found

    def known_items(
        self, node: yaml.Node, what: str, *, keys: tuple[str, ...], required: tuple[str, ...] = ()
    ) -> dict[str, yaml.Node]:
        """Key -> value node of a mapping that has only `keys`, and all of `required`."""
        items = self.items(node, what)
        for name, (key, _) in items.items():
            if name not in keys:
                self.problem(
                    key,
                    f"unknown key {name!r} in {what}; valid keys: {listed(keys)}"
                    + nearest(name, keys),
                )
        if isinstance(node, yaml.MappingNode):
            for name in required:
                if name not in items:
                    self.problem(node, f"{what} lacks {name!r}; it needs {listed(required)}")
        return {name: value for name, (_, value) in items.items() if name in keys}

    def sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode) and self._untagged(node, "seq"):
            return list(node.value)
        if is_null(node):
            return []
        self.problem(node, f"{what} must be a list (- ...); got {self.shown(node)}")
        return []

    def text(self, node: yaml.Node | None, what: str) -> str | None:
        """A text; None after a problem, which has been noted."""
        found = self._scalar_or_problem(node, what, "a text")
        if found is None or isinstance(found.value, str):
            return None if found is None else found.value
        assert node is not None
        self.problem(node, f"{what} must be a text; got {described(found.masked)}")
        return None

    def boolean(self, node: yaml.Node | None, what: str, *, default: bool) -> bool:
        found = self._scalar_or_problem(node, what, "true or false")
        if found is None or isinstance(found.value, bool):
            return default if found is None else found.value
        assert node is not None
        self.problem(node, f"{what} must be true or false; got {described(found.masked)}")
        return default

    def integer(self, node: yaml.Node | None, what: str, *, default: int, minimum: int) -> int:
        expected = f"a whole number of at least {minimum}"
        found = self._scalar_or_problem(node, what, expected)
        if found is None or (type(found.value) is int and found.value >= minimum):
            return default if found is None else found.value
        assert node is not None
        self.problem(node, f"{what} must be {expected}; got {described(found.masked)}")
        return default

    def rate(self, node: yaml.Node | None, what: str) -> float | None:
        """A number above 0; None where there is none, and after a problem."""
        expected = "a number above 0"
        found = self._scalar_or_problem(node, what, expected)
        if found is None or found.value is None:
            return None
        if type(found.value) in (int, float) and 0 < found.value < float("inf"):
            return float(found.value)
        assert node is not None
        self.problem(node, f"{what} must be {expected}; got {described(found.masked)}")
        return None

    def choice(
        self, node: yaml.Node | None, what: str, *, choices: tuple[str, ...], default: str
    ) -> str:
        expected = " or ".join(choices)
        found = self._scalar_or_problem(node, what, expected)
        if found is None or found.value in choices:
            return default if found is None else str(found.value)
        assert node is not None
        self.problem(node, f"{what} must be {expected}; got {described(found.masked)}")
        return default

    def _scalar_or_problem(self, node: yaml.Node | None, what: str, expected: str) -> Value | None:
        if node is None:
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        self.problem(node, f"{what} must be {expected}; got {self.shown(node)}")
        return None

    def value(
        self, node: yaml.Node, path: tuple[str | int, ...], where: dict[Any, Location]
    ) -> Value:
        """Any value; `where` takes the place of each key and item below it, by its path."""
        plain: Any
        masked: Any
        if isinstance(node, yaml.MappingNode):
            plain, masked = {}, {}
            for name, (key, child) in self.items(node, _path_in_words(path)).items():
                where[*path, name] = self.at(key)
                found = self.value(child, (*path, name), where)
                plain[name], masked[name] = found.value, found.masked
        elif isinstance(node, yaml.SequenceNode):
            plain, masked = [], []
            self._untagged(node, "seq")
            for i, child in enumerate(node.value):
                where[*path, i] = self.at(child)
                found = self.value(child, (*path, i), where)
                plain.append(found.value)
                masked.append(found.masked)
        else:
            self.scalars[path] = node.start_mark.index, node.end_mark.index
            return self.scalar(node) or Value(None, None)
        return Value(plain, masked)

    def scalar(self, node: yaml.Node) -> Value | None:
        """The scalar's value with `${NAME}` resolved; None after a problem, which has been noted.

        Kept by node: a long text behind many aliases is resolved once.
        """
        if id(node) not in self._scalars:
            outside, self.secrets = self.secrets, set()
            found = self._resolve(node) if self._untagged(node, "str") else None
            self._scalars[id(node)] = found, frozenset(self.secrets)
            self.secrets = outside
        found, secrets = self._scalars[id(node)]
        self.secrets |= secrets
        return found

    def _resolve(self, node: yaml.Node) -> Value | None:
        text: str = node.value
        plain = _is_plain(node)
        if "${" not in text:
            value = _typed(text) if plain else text
            return Value(value, mask_urls(value) if isinstance(value, str) else value)
        values, shown, end, known_problems = [], [], 0, len(self.problems)
        for match in _VARIABLE.finditer(text):
            before = text[end : match.start()]
            end = match.end()
            value, masked = self._variable(node, match)
            values += [before, value]
            shown += [before, masked]
        if len(self.problems) > known_problems:
            return None
        whole = len(values) == 2 and not values[0] and end == len(text)
        resolved = "".join([*values, text[end:]])
        masked = mask_urls("".join([*shown, text[end:]]))
        if whole and plain:
            return Value(_typed(resolved), _typed(masked))
        return Value(resolved, masked)

    def _variable(self, node: yaml.Node, match: re.Match[str]) -> tuple[str, str]:
        if match["literal"]:
            return "${", "${"
        name, default = match["name"], match["default"]
        if name is None:
            self.problem(
                node, "'${' must begin ${NAME} or ${NAME:-default}; write '$${' for the text '${'"
            )
            return "", ""
        value = self.env.get(name, "")
        if value or (default is None and name in self.env):
            self.secrets |= {value} if value else set()
            return value, MASK
        if default is not None:
            return default, default
        self.problem(
            node,
            f"environment variable {name!r} is not set; set it, or write ${{{name}:-default}}",
        )
        return "", ""

    def _untagged(self, node: yaml.Node, kind: str) -> bool:
        if node.tag == _TAG + kind:
            return True
        tag = node.tag.replace(_TAG, "!!")
        self.problem(node, f"the tag {tag!r} has no meaning in a graph file; leave it out")
        return kind != "str"

    def shown(self, node: yaml.Node) -> str:
        """What stands at `node`, for an error text; `${NAME}` unresolved."""
        if isinstance(node, yaml.ScalarNode):
            return described(_typed(node.value) if _is_plain(node) else node.value)
        return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def _is_plain(node: yaml.Node) -> bool:
    """Whether `node` is a scalar without quotes, whose text YAML gives a type."""
    return isinstance(node, yaml.ScalarNode) and node.style is None


def is_null(node: yaml.Node) -> bool:
    return _is_plain(node) and _typed(node.value) is None


def _path_in_words(path: tuple[str | int, ...]) -> str:
    return repr(".".join(map(str, ("config", *path))))
