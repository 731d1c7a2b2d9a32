"""The YAML nodes of a graph file -> values, each with its place; `${ENV}` is resolved here.

YAML is read by the 1.2 core schema, as editors do: `no` and `12:30` are texts. Anchors, aliases and
merge keys (`<<`) work; tags do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from flowrun.runtime.errors import Location, Problem
from flowrun.runtime.wording import (
    MASK,
    described,
    is_secret_between,
    listed,
    mask_urls,
    nearest,
    says_password,
    says_secret,
    secrets_in_urls,
)

__all__ = [
    "VARIABLE",
    "ConfigValues",
    "Locate",
    "Origin",
    "UnknownHere",
    "Value",
    "ValueReader",
    "is_null",
    "is_plain",
    "is_secret_place",
    "typed",
]

_TAG = "tag:yaml.org,2002:"
VARIABLE = re.compile(
    r"(?P<literal>\$\$\{)|"
    r"\$\{(?:(?P<mark>secret:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?"
)
"""`${NAME}`, `${secret:NAME}`, each with a default or without; `$${` for the text itself."""
_INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def typed(text: str) -> Any:
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


_Path = tuple[str | int, ...]
Locate = Callable[[_Path], Location]
"""Gives the place of what is at a path of a graph, such as ("tasks", 0, "config")."""


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar's value.

    masked: the same as it may be shown.
    secrets: the texts in it that are secret.
    variables: the names of the environment variables in it.
    shown: those whose values may be shown.
    only_variables: whether it holds nothing else.
    """

    value: Any
    masked: Any
    secrets: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()
    only_variables: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where nodes come from.

    file: as an error text shows it.
    included_at: as in `Location`.
    has_lines: False for what is no file.
    place: that of a node which a program says; None for a file.
    """

    file: str
    included_at: tuple[Location, ...] = ()
    has_lines: bool = True
    place: Location | None = None


class UnknownHere(str):
    """A value of which a part is set on another machine alone: the names of its variables stand for
    them. What it must be cannot be checked here."""

    __slots__ = ()


@dataclass(slots=True)
class ConfigValues:
    """What a task's `config` holds.

    value: the mapping.
    masked: the same as it may be shown.
    where: the place of each key and item, by its path.
    scalars: the start and end of each scalar in the file's text, by its path.
    secrets: the texts that are secret: by the name of their key or of their environment variable,
        marked as `${secret:NAME}`, or the password in a URL.
    """

    value: dict[str, Any] = field(default_factory=dict)
    masked: dict[str, Any] = field(default_factory=dict)
    where: dict[_Path, Location] = field(default_factory=dict)
    scalars: dict[_Path, tuple[int, int]] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)


_OURS = {
    "connections": "cnx", "edges": "cnx", "links": "cnx", "nodes": "tasks", "from": "src", "to": "dst",
    "source": "src", "target": "dst", "message": "msg", "name": "id", "class": "type",
    "params": "config", "settings": "config",
}  # fmt: skip
"""What other programs call our keys."""
_ELSEWHERE = {"a task": "; those of its type belong under config: {...}"}
"""Where keys that nothing is near to may belong."""
_EXAMPLES = {
    "a task": "{id: n, type: Counter}",
    "a connection": "{src: n, dst: square, msg: IntMsg}",
}


@dataclass(slots=True)
class ValueReader:
    """Reads nodes and collects problems, each once, even if aliases lead to it twice."""

    file: str
    env: Mapping[str, str]
    known: Mapping[str, str] = field(default_factory=dict)
    """What stands for variables that `env` does not have."""
    is_elsewhere: bool = False
    """Whether what is read is for another machine, where variables are set that are not set here: a
    value that has one is `UnknownHere`."""
    problems: dict[Problem, None] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    """The environment variables that the file names, with the values that they have; "" for one that
    is not set."""
    secret_variables: set[str] = field(default_factory=set)
    """Those that give a secret somewhere."""
    plain_variables: set[str] = field(default_factory=set)
    """Those whose value is shown somewhere."""
    origins: dict[str, Origin] = field(default_factory=dict)
    """Of nodes that are not from `file`, by the name of their marks."""
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By the `id` of a node, its start and end in the graph's text, where that is not the file's."""
    _scalars: dict[tuple[int, bool], Value | None] = field(default_factory=dict)

    def at(self, node: yaml.Node) -> Location:
        mark = node.start_mark
        origin = self.origins.get(mark.name)
        if origin is None:
            return Location(self.file, mark.line + 1, mark.column + 1)
        if origin.place is not None:
            return origin.place
        if not origin.has_lines:
            return Location(origin.file, 0, 0)
        return Location(origin.file, mark.line + 1, mark.column + 1, origin.included_at)

    def new_origin(self, origin: Origin) -> str:
        """The name of `origin` for the marks of its nodes."""
        name = str(len(self.origins) + 1)
        self.origins[name] = origin
        return name

    def note_places(self, node: yaml.Node, locate: Locate, path: _Path = ()) -> None:
        """Give `node`, which is at `path` of a graph, and all below it the places that a program has
        said them at."""
        place, mark = locate(path), node.start_mark
        name = self.new_origin(Origin(place.file, place=place))
        node.start_mark = yaml.Mark(
            name, mark.index, mark.line, mark.column, mark.buffer, mark.pointer
        )
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self.note_places(key, locate, (*path, key.value))
                self.note_places(value, locate, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for i, item in enumerate(node.value):
                self.note_places(item, locate, (*path, i))

    def problem(self, node: yaml.Node, message: str) -> None:
        self.problems[Problem(self.at(node), message)] = None

    def items(self, node: yaml.Node, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key -> (key node, value node) of a mapping, including what its merge keys bring."""
        if not isinstance(node, yaml.MappingNode) or not self._untagged(node, "map"):
            example = _EXAMPLES.get(what, "(key: value)")
            self.problem(node, f"{what} must be a mapping {example}; got {self.shown(node)}")
            return {}
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None or not self._untagged(key, "str"):
                self.problem(key, f"a key of {what} must be a text; got {self.shown(key)}")
            elif name == "<<" and is_plain(key):
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
        """Key -> value node of a mapping, which may hold only `keys` and must hold `required`."""
        items = self.items(node, what)
        for name, (key, _) in items.items():
            if name not in keys:
                self.problem(
                    key,
                    f"unknown key {name!r} in {what}; valid keys: {listed(keys)}"
                    + (nearest(_OURS.get(name, name), keys) or _ELSEWHERE.get(what, "")),
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

    def checked(
        self,
        node: yaml.Node | None,
        what: str,
        *,
        expected: str,
        fits: Callable[[Any], bool],
        default: Any = None,
    ) -> Any:
        """The scalar at `node`, or `default` if there is none or it does not fit: a problem is then
        noted.

        what: the key, for an error text.
        expected: what its value must be, for an error text.
        fits: whether a value is what is expected.
        default: what holds without a scalar.
        """
        if node is None:
            return default
        if not isinstance(node, yaml.ScalarNode):
            self.problem(node, f"{what} must be {expected}; got {self.shown(node)}")
            return default
        found = self.scalar(node)
        if found is None:
            return default
        self._note_shown(found)
        if fits(found.value):
            return found.value
        if isinstance(found.value, UnknownHere):
            return default
        self.problem(node, f"{what} must be {expected}; got {described(found.masked)}")
        return default

    def config(self, node: yaml.Node | None) -> ConfigValues:
        """The values of a task's `config`, which may be left out or empty."""
        read = ConfigValues()
        if node is None or is_null(node):
            return read
        read.where[()] = self.at(node)
        if isinstance(node, yaml.MappingNode):
            read.value, read.masked = self._value(node, (), read)
        else:
            self.items(node, "'config'")  # notes the problem
        return read

    def _value(self, node: yaml.Node, path: _Path, read: ConfigValues) -> tuple[Any, Any]:
        """Any value, and the same as it may be shown; what else is found goes into `read`."""
        plain: Any
        masked: Any
        if isinstance(node, yaml.MappingNode):
            plain, masked = {}, {}
            for name, (key, child) in self.items(node, _path_in_words(path)).items():
                read.where[*path, name] = self.at(key)
                plain[name], masked[name] = self._value(child, (*path, name), read)
        elif isinstance(node, yaml.SequenceNode):
            plain, masked = [], []
            self._untagged(node, "seq")
            for i, child in enumerate(node.value):
                read.where[*path, i] = self.at(child)
                item, shown = self._value(child, (*path, i), read)
                plain.append(item)
                masked.append(shown)
        else:
            in_file = node.start_mark.index, node.end_mark.index
            read.scalars[path] = self.spans.get(id(node), in_file)
            found = self.scalar(node) or Value(None, None)
            if is_secret_place(path, found.value):
                if found.only_variables:
                    self.secret_variables |= found.variables
                read.secrets.add(str(found.value))
                return found.value, MASK
            read.secrets |= found.secrets
            self._note_shown(found)
            return found.value, found.masked
        return plain, masked

    def scalar(self, node: yaml.Node) -> Value | None:
        """The scalar's value with `${NAME}` resolved; None if it has a problem, which is noted.

        Results are kept by node, so that a long text with many aliases is resolved once.
        """
        at = id(node), self.is_elsewhere
        if at not in self._scalars:
            self._scalars[at] = self._resolve(node) if self._untagged(node, "str") else None
        return self._scalars[at]

    def _resolve(self, node: yaml.Node) -> Value | None:
        text: str = node.value
        plain = is_plain(node)
        if "${" not in text:
            value = typed(text) if plain else text
            if not isinstance(value, str):
                return Value(value, value)
            return Value(value, mask_urls(value), secrets_in_urls(value))
        values: list[str] = []
        shown: list[str] = []
        end, known_problems = 0, len(self.problems)
        secrets: set[str] = set()
        names: dict[str, str] = {}
        for match in VARIABLE.finditer(text):
            before = text[end : match.start()]
            end = match.end()
            value, is_secret = self._variable(node, match)
            if value and is_secret_between("".join([*values, before]), text[end:]):
                is_secret = True
                self.secret_variables |= {match["name"]} - {None}
            if match["name"]:
                names[match["name"]] = value
            if is_secret and value:
                secrets.add(value)
            values += [before, value]
            shown += [before, MASK if is_secret and value else value]
        if len(self.problems) > known_problems:
            return None
        only_variables = not "".join([*values[::2], text[end:]])
        whole = len(values) == 2 and not values[0] and end == len(text)
        resolved = "".join([*values, text[end:]])
        masked = mask_urls("".join([*shown, text[end:]]))
        in_urls = secrets_in_urls(resolved)
        secrets |= in_urls
        self.secret_variables |= {name for name, value in names.items() if value in in_urls}
        visible = frozenset(name for name, value in names.items() if value in masked)
        if self.is_elsewhere and any(map(self._is_unknown, VARIABLE.finditer(text))):
            resolved = UnknownHere(resolved)
        elif whole and plain:
            resolved, masked = typed(resolved), typed(masked)
        return Value(
            resolved, masked, frozenset(secrets), frozenset(names), visible, only_variables
        )

    def _variable(self, node: yaml.Node, match: re.Match[str]) -> tuple[str, bool]:
        """The text that `match` stands for, and whether it is secret."""
        if match["literal"]:
            return "${", False
        name, default = match["name"], match["default"]
        if name is None:
            self.problem(
                node,
                "'${' must begin ${NAME}, ${NAME:-default} or ${secret:NAME}; write '$${' for the text "
                "'${'",
            )
            return "", False
        is_secret = match["mark"] is not None or says_secret(name)
        if self.is_elsewhere and self._is_unknown(match):
            return name, is_secret
        value = self.env.get(name) or self.known.get(name, "")
        self.variables[name] = value
        if is_secret:
            self.secret_variables.add(name)
        if value or (default is None and name in self.env):
            return value, is_secret
        if default is not None:
            return default, is_secret
        self.problem(
            node,
            f"environment variable {name!r} is not set; set it, or write ${{{name}:-default}}",
        )
        return "", False

    def _is_unknown(self, match: re.Match[str]) -> bool:
        """Whether `match` is a variable that is not set here, and has no default."""
        name = match["name"]
        if match["literal"] or name is None or match["default"] is not None:
            return False
        return not (self.env.get(name) or self.known.get(name))

    def _note_shown(self, found: Value) -> None:
        self.plain_variables |= found.shown

    def _untagged(self, node: yaml.Node, kind: str) -> bool:
        if node.tag == _TAG + kind:
            return True
        tag = node.tag.replace(_TAG, "!!")
        self.problem(node, f"the tag {tag!r} has no meaning in a graph file; remove it")
        return kind != "str"

    def shown(self, node: yaml.Node) -> str:
        """The value at `node` as an error text shows it, `${NAME}` unresolved."""
        if isinstance(node, yaml.ScalarNode):
            return described(typed(node.value) if is_plain(node) else node.value)
        return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def is_plain(node: yaml.Node) -> bool:
    """Whether `node` is a scalar without quotes, whose text YAML gives a type."""
    return isinstance(node, yaml.ScalarNode) and node.style is None


def is_secret_place(path: _Path, value: Any) -> bool:
    """Whether `value`, at `path` of a task's config, is a secret by the names of its keys. Numbers are
    one only where the name can mean nothing else."""
    if isinstance(value, str):
        return bool(value) and any(isinstance(key, str) and says_secret(key) for key in path)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return any(isinstance(key, str) and says_password(key) for key in path)


def is_null(node: yaml.Node) -> bool:
    return is_plain(node) and typed(node.value) is None


def _path_in_words(path: _Path) -> str:
    return repr(".".join(map(str, ("config", *path))))
