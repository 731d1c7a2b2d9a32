"""What tasks and messages are, as data: what they do, ports, config, fields, an example.

The verbs `flowrun tasks` and `flowrun messages`, and the reference of the documentation, show it. A list
of all is read from the sources: importing the tasks of every package could load any library.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from flowrun.msgs.fields import MessageTypeError, is_measured, is_optional, strip
from flowrun.msgs.message import Message
from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph.bind import live_keys
from flowrun.runtime.graph.find import (
    TaskTypes,
    find_message_type,
    find_task_class,
    message_types,
    task_types,
)
from flowrun.runtime.graph.ports import Port, has_more_ports, ports_for, ports_of
from flowrun.runtime.graph.schema import config_schema
from flowrun.runtime.task import Task

__all__ = [
    "DescribedField",
    "DescribedKey",
    "DescribedMapping",
    "DescribedMessage",
    "DescribedPort",
    "DescribedTask",
    "Listed",
    "describe_message",
    "describe_task",
    "in_words",
    "listed_messages",
    "listed_tasks",
    "unit_of",
]

_UNITS = {
    "ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds", "s": "seconds",
    "hz": "times a second", "fps": "pictures a second", "px": "pixels", "mib": "MiB",
    "deg": "degrees", "m": "metres",
}  # fmt: skip
"""What the last part of a name says of its value."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A task or a message, in a list.

    name: as a graph file names it.
    path: module and class.
    sentence: what it is or does; "" if it does not say.
    """

    name: str
    path: str
    sentence: str


@dataclass(frozen=True, slots=True)
class DescribedPort:
    """A port of a task. required: of an input, whether the task is called only where it is present."""

    name: str
    direction: Literal["input", "output"]
    message: str
    required: bool


@dataclass(frozen=True, slots=True)
class DescribedKey:
    """A key of a task's config.

    value: what it may be, in words, limits included.
    default: as JSON holds it; nothing if `required`.
    unit: of a number; "" if its name does not say.
    live: whether it may change while the graph runs.
    sentence: what it is for.
    """

    name: str
    value: str
    default: Any
    required: bool
    unit: str
    live: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class DescribedMapping:
    """A mapping that a key of a task's config holds. text: what it is, in a line."""

    text: str
    keys: tuple[DescribedKey, ...]


@dataclass(frozen=True, slots=True)
class DescribedTask:
    """A task type.

    text: what it does, all that its class says.
    config: its keys. mappings: what some of these hold, by name.
    more_ports: whether there are more ports, which depend on the config.
    example: a graph file that uses it.
    """

    name: str
    path: str
    text: str
    ports: tuple[DescribedPort, ...]
    config: tuple[DescribedKey, ...]
    mappings: dict[str, DescribedMapping]
    more_ports: bool
    example: str


@dataclass(frozen=True, slots=True)
class DescribedField:
    """A field of a message.

    type: in words; of an array its element type. shape: of an array, names and numbers; "" of others.
    default: as JSON holds it.
    measured: whether it is a measurement of the run, which a replay does not compare.
    sentence: what it is, with its unit.
    """

    name: str
    type: str
    shape: str
    default: Any
    measured: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class DescribedMessage:
    """A message type.

    text: what it is, without what it says of its fields.
    schema: the name of its schema in the log, and how that is encoded.
    example: its fields as JSON, as `flowrun publish` takes them.
    """

    name: str
    path: str
    text: str
    fields: tuple[DescribedField, ...]
    schema: str
    encoding: str
    example: dict[str, Any]


# -- lists, without importing anything -------------------------------------------------------------


def listed_tasks(types: TaskTypes, folder: Path) -> list[Listed]:
    """All task types that have a short name, and those in the Python files of `folder`, by name."""
    found = [
        Listed(name, point.value.replace(":", "."), _sentence_in(point.module, point.attr))
        for name, points in types.items()
        for point in points
    ]
    return [*sorted(found, key=lambda it: it.name), *_in_folder(folder, _is_task)]


def listed_messages(folder: Path) -> list[Listed]:
    """The messages that ship with flowrun, and those in the Python files of `folder`, by name."""
    found = [
        Listed(name, _path_of(kind), _first_sentence(kind.__doc__ or ""))
        for name, kind in sorted(message_types().items())
    ]
    return [*found, *_in_folder(folder, _is_message)]


def _sentence_in(module: str, name: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    for item in _definitions(Path(spec.origin)):
        if item.name == name:
            return _first_sentence(ast.get_docstring(item) or "")
    return ""


_Definition = ast.ClassDef | ast.FunctionDef


def _definitions(path: Path) -> list[_Definition]:
    """The classes and functions of a file; none of one that is not Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    return [item for item in tree.body if isinstance(item, _Definition)]


def _in_folder(folder: Path, is_one: Any) -> list[Listed]:
    found = []
    for path in sorted(folder.glob("*.py")):
        if path.stem.isidentifier() and not path.stem.startswith(("test_", "conftest")):
            known: set[str] = set()
            for item in _definitions(path):
                if not item.name.startswith("_") and is_one(item, known):
                    known.add(item.name)
                    name = f"{path.stem}.{item.name}"
                    found.append(Listed(name, name, _first_sentence(ast.get_docstring(item) or "")))
    return found


def _is_task(item: _Definition, known: set[str]) -> bool:
    if isinstance(item, ast.FunctionDef):
        return any(_last_name(it) == "task" for it in item.decorator_list)
    return any((_last_name(it) or "") in {"Task", *known} for it in item.bases)


def _is_message(item: _Definition, known: set[str]) -> bool:
    if isinstance(item, ast.FunctionDef):
        return False
    names = [_last_name(it) or "" for it in item.bases]
    return any(it in {"Message", *known} or it.endswith("Msg") for it in names)


def _last_name(node: ast.expr) -> str | None:
    match node:
        case (
            ast.Name(id=name)
            | ast.Attribute(attr=name)
            | ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))
        ):
            return name
        case _:
            return None


def _first_sentence(text: str) -> str:
    paragraph = " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
    return re.split(r":(?= |$)|\.(?= [A-Z`(]|$)", paragraph, maxsplit=1)[0]


# -- one of them -----------------------------------------------------------------------------------


def describe_task(name: str, *, folder: Path, types: TaskTypes | None = None) -> DescribedTask:
    """What is to know of a task type. `UsageError` if there is none of that name.

    folder: whose modules a dotted name may name.
    types: what a name without a dot may be; those of the installed packages if not given.
    """
    types = task_types() if types is None else types
    kind = find_task_class(name, folder=folder, types=types)
    schema = config_schema(kind.Config, "{model}")
    mappings = {
        model: DescribedMapping(
            inspect.cleandoc(inner.get("description", "")).partition("\n")[0], tuple(_keys(inner))
        )
        for model, inner in schema.get("$defs", {}).items()
    }
    return DescribedTask(
        name,
        _path_of(kind),
        inspect.cleandoc(kind.__doc__ or ""),
        tuple(
            DescribedPort(it.name, it.direction, _short_name(it.message_type), it.required)
            for it in ports_of(kind)  # type: ignore[arg-type]  # a class is hashable
        ),
        tuple(_keys(schema, live_keys(kind))),
        mappings,
        has_more_ports(kind),
        _Example(types, folder).of(name, kind),
    )


def describe_message(name: str, *, folder: Path) -> DescribedMessage:
    """What is to know of a message type; arguments and errors as for `describe_task`."""
    kind = find_message_type(name, folder=folder)
    text, of_fields = "", dict[str, str]()
    for base in reversed(kind.__mro__):
        if issubclass(base, Message) and base is not Message:
            text, found = _split(inspect.cleandoc(base.__doc__ or ""), kind.defaults)
            of_fields |= found
    return DescribedMessage(
        name,
        _path_of(kind),
        text,
        tuple(_field(kind, field, of_fields.get(field, "")) for field in kind.defaults),
        kind.schema_name,
        kind.schema_encoding,
        _example_of(kind),
    )


def _path_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _short_name(kind: type[Message]) -> str:
    if kind is Message:
        return "any message"
    return kind.__name__ if message_types().get(kind.__name__) is kind else _path_of(kind)


def unit_of(name: str) -> str:
    """The unit that a name says, such as `timeout_s`; "" if it says none."""
    *before, last = name.split("_")
    return _UNITS.get(last, "") if before or last == "fps" else ""


def _keys(schema: Mapping[str, Any], live: Iterable[str] = ()) -> Iterator[DescribedKey]:
    required = schema.get("required", ())
    for name, described in schema.get("properties", {}).items():
        yield DescribedKey(
            name,
            in_words(described),
            None if name in required else _default_of(described),
            name in required,
            unit_of(name),
            name in live,
            described.get("description", ""),
        )


def _default_of(schema: Mapping[str, Any]) -> Any:
    """A list or mapping that is made for each config, empty, is not in the schema."""
    return schema.get("default", [] if schema.get("type") == "array" else {})


def in_words(schema: Mapping[str, Any] | Literal[True]) -> str:
    """What a JSON Schema of pydantic's lets a value be."""
    if schema is True:
        return "any value"
    if "$ref" in schema:
        return f"{schema['$ref']}"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(in_words(option) for option in schema[union])
    if "const" in schema or "enum" in schema:
        choices = schema.get("enum") or [schema["const"]]
        return ", ".join(map(str, choices))
    match schema.get("type"):
        case "array":
            return f"list of {in_words(schema.get('items', {}))}"
        case "object":
            return f"mapping of {in_words(schema.get('additionalProperties', {}))}"
        case "boolean":
            return "true or false"
        case "integer":
            return f"whole number{_limits(schema)}"
        case "number":
            return f"number{_limits(schema)}"
        case "string":
            return "text"
        case "null":
            return "null"
    return "any value"


_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def _limits(schema: Mapping[str, Any]) -> str:
    limits = [f"{words} {schema[name]}" for name, words in _LIMITS.items() if name in schema]
    return f" ({' and '.join(limits)})" if limits else ""


# -- an example of a task --------------------------------------------------------------------------


class _Example:
    """Makes graph files: one for a task, with tasks before it that make what it reads."""

    def __init__(self, types: TaskTypes, folder: Path) -> None:
        self._tasks: list[tuple[str, str, dict[str, Any]]] = []
        self._connections: list[tuple[str, str, str]] = []
        self._known: dict[str, tuple[type[Task], tuple[Port, ...]]] = {}
        """The task types that can be imported here, and their ports."""
        for name in types:
            with contextlib.suppress(FlowrunError):
                kind = find_task_class(name, folder=folder, types=types)
                self._known[name] = kind, ports_for(kind, _config_of(kind, kind.example_config))
        self._made: dict[type[Message], str] = {}
        """Which task makes a message, of those that the graph has."""

    def of(self, name: str, kind: type[Task]) -> str:
        id_ = self._id_of(name)
        config = dict(kind.example_config) or _required(kind)
        missing = self._add(name, id_, kind, config, depth=4)
        lines = [f"# {it}" for it in missing]
        lines.append("tasks:")
        for task, type_, values in self._tasks:
            lines.append(f"  - id: {task}")
            lines.append(f"    type: {type_}")
            if values:
                shown = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=1000)
                lines.append(f"    config: {shown.rstrip()}")
        if self._connections:
            lines.append("cnx:")
        for src, dst, msg in self._connections:
            lines.append(f"  - {{src: {src}, dst: {dst}, msg: {msg}}}")
        return "\n".join(lines) + "\n"

    def _add(
        self, name: str, id_: str, kind: type[Task], config: dict[str, Any], *, depth: int
    ) -> list[str]:
        """Add a task, and what it needs before it; what nobody makes, in words."""
        missing = []
        ports = ports_for(kind, _config_of(kind, config))
        inputs = [port for port in ports if port.is_input]
        connections = []
        for port in inputs:
            made = self._maker(self._wanted(kind, config, port), depth)
            if made is None:
                if port.required:
                    message = _short_name(port.message_type)
                    missing.append(f"{id_} needs a task that publishes {message}")
                continue
            source, message_type = made
            several = sum(issubclass(message_type, it.message_type) for it in inputs) > 1
            dst = f"{id_}.{port.name}" if several else id_
            connections.append((source, dst, _short_name(message_type)))
        self._tasks.append((id_, name, config))
        self._connections += connections
        for port in ports:
            if port.is_output:
                several = (
                    sum(it.message_type is port.message_type for it in ports if it.is_output) > 1
                )
                self._made.setdefault(port.message_type, f"{id_}.{port.name}" if several else id_)
        return missing

    def _wanted(self, kind: type[Task], config: Mapping[str, Any], port: Port) -> type[Message]:
        """The message to connect to an input: of its class, or of a narrower one where the task asks for
        that."""
        checked = _config_of(kind, config)
        if checked is None:
            return port.message_type
        published = {
            it.message_type for _, ports in self._known.values() for it in ports if it.is_output
        }
        narrower = sorted(
            (it for it in published if issubclass(it, port.message_type)),
            key=lambda it: it.__name__,
        )
        return next(
            (
                it
                for it in (port.message_type, *narrower)
                if not any(kind.check_inputs(checked, {port.name: it}))
            ),
            port.message_type,
        )

    def _maker(self, message: type[Message], depth: int) -> tuple[str, type[Message]] | None:
        """The task of the graph that publishes `message`, which is added if need be, and what it does
        publish; None: there is none."""
        if (found := self._found(message)) is not None:
            return found
        best: tuple[int, str, type[Task]] | None = None
        for name in self._known:
            cost = self._cost(name, message, depth)
            if cost is not None and (best is None or cost[0] < best[0]):
                best = cost[0], name, cost[1]
        if best is None:
            return None
        _, name, kind = best
        config = dict(kind.example_config) or _required(kind)
        self._add(name, self._id_of(name), kind, config, depth=depth - 1)
        return self._found(message)

    def _found(self, message: type[Message]) -> tuple[str, type[Message]] | None:
        kinds = [message, *(kind for kind in self._made if issubclass(kind, message))]
        return next(((self._made[kind], kind) for kind in kinds if kind in self._made), None)

    def _cost(self, name: str, message: type[Message], depth: int) -> tuple[int, type[Task]] | None:
        """How many tasks it takes to get `message` of a task type; None if that does not give it."""
        if depth == 0:
            return None
        kind, ports = self._known[name]
        if not any(port.is_output and issubclass(port.message_type, message) for port in ports):
            return None
        if any(port.is_input and issubclass(port.message_type, message) for port in ports):
            return None
        cost = 1
        for port in ports:
            if port.is_input and self._found(port.message_type) is None:
                costs = [
                    found[0]
                    for other in self._known
                    if (found := self._cost(other, port.message_type, depth - 1)) is not None
                ]
                if costs:
                    cost += min(costs)
                elif port.required:
                    return None
        return cost, kind

    def _id_of(self, name: str) -> str:
        word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.rpartition(".")[2]).lower()
        taken = {task for task, *_ in self._tasks}
        return word if word not in taken else f"{word}_{len(taken)}"


def _config_of(kind: type[Task], config: Mapping[str, Any]) -> Any:
    try:
        return kind.Config.model_validate(config)
    except ValueError:
        return None


_OF_TYPE = {
    "string": "example",
    "integer": 1,
    "number": 1,
    "boolean": True,
    "array": [],
    "object": {},
}


def _required(kind: type[Task]) -> dict[str, Any]:
    """A value for each key of the config that must be given."""
    schema = config_schema(kind.Config, "{model}")
    values = {}
    for name in schema.get("required", ()):
        described = schema["properties"][name]
        choices = described.get("examples") or described.get("enum")
        values[name] = choices[0] if choices else _OF_TYPE.get(described.get("type", ""), "example")
    return values


# -- messages --------------------------------------------------------------------------------------


def _split(text: str, names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The text of a class without what it says of its fields, and that by field: lines that begin with
    `name: ` or `name, other: `, and those below that are set in."""
    kept, of_fields, now = [], dict[str, str](), list[str]()
    known = set(names)
    for line in text.splitlines():
        found = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        if found is not None and known.issuperset(found[1].split(", ")):
            now = found[1].split(", ")
            of_fields |= dict.fromkeys(now, _capitalized(found[2]))
        elif now and line.startswith("    "):
            for name in now:
                of_fields[name] += f" {line.strip()}"
        else:
            now = []
            kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), of_fields


def _capitalized(text: str) -> str:
    """With a capital, unless it begins with a name, such as float32."""
    is_word = text.partition(" ")[0].isalpha()
    return text[:1].upper() + text[1:] if is_word else text


def _field(kind: type[Message], name: str, sentence: str) -> DescribedField:
    array = kind.array_fields.get(name)
    unit = unit_of(name)
    if unit and unit not in sentence and "per second" not in sentence:
        sentence = f"{sentence} In {unit}.".lstrip()
    return DescribedField(
        name,
        _type_words(kind.field_types[name]) if array is None else f"array of {array.dtype}",
        "" if array is None else f"({', '.join(array.shape.dims.split())})",
        _as_json(kind.defaults[name]),
        is_measured(kind.field_types[name]),
        sentence,
    )


def _type_words(declared: Any) -> str:
    base, _ = strip(declared)
    if is_optional(base):
        options = [it for it in typing.get_args(base) if it is not type(None)]
        return " or ".join([*map(_type_words, options), "null"])
    return base.__name__ if isinstance(base, type) and not typing.get_args(base) else str(base)


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return "" if isinstance(value, bytes) else value


def _example_of(kind: type[Message]) -> dict[str, Any]:
    """Fields as JSON holds them: of one of everything where that makes a message, or the defaults."""
    for length in (1, 0):
        message, shown = kind(), dict[str, Any]()
        for name, declared in kind.field_types.items():
            base, _ = strip(declared)
            array = kind.array_fields.get(name)
            if array is not None:
                shape = [int(it) if it.isdigit() else length for it in array.shape.dims.split()]
                value: Any = np.zeros(shape, array.dtype)
            elif typing.get_origin(base) is list and length:
                [item] = typing.get_args(base)
                value = [] if typing.get_origin(item) or item is Any else [item()]
            else:
                value = kind.defaults[name]
            shown[name] = _as_json(value)
            setattr(message, name, value)
        try:
            message.publish(tov_ns=0)
        except MessageTypeError:
            continue
        return shown
    return {name: _as_json(value) for name, value in kind.defaults.items()}
