"""What a task or a message is, as data: what it does, its ports, config, fields, an example.

The verbs `flowrun tasks NAME` and `flowrun messages NAME`, and the reference of the documentation, show
it.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flowrun.msgs.fields import MessageTypeError, is_measured, is_optional, strip
from flowrun.msgs.message import Message
from flowrun.runtime.graph.bind import live_keys
from flowrun.runtime.graph.example import Example
from flowrun.runtime.graph.find import (
    TaskTypes,
    find_message_type,
    find_task_class,
    message_name,
    task_types,
)
from flowrun.runtime.graph.ports import has_more_ports, ports_of
from flowrun.runtime.graph.schema import config_schema

__all__ = [
    "DescribedField",
    "DescribedKey",
    "DescribedMapping",
    "DescribedMessage",
    "DescribedPort",
    "DescribedTask",
    "describe_message",
    "describe_task",
    "in_words",
    "unit_of",
]

_UNITS = {
    "ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds", "s": "seconds",
    "hz": "times a second", "fps": "pictures a second", "px": "pixels", "mib": "MiB",
    "deg": "degrees", "m": "metres",
}  # fmt: skip
"""What the last part of a name says of its value."""


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
            DescribedPort(it.name, it.direction, message_name(it.message_type), it.required)
            for it in ports_of(kind)  # type: ignore[arg-type]  # a class is hashable
        ),
        tuple(_keys(schema, live_keys(kind))),
        mappings,
        has_more_ports(kind),
        Example(types, folder).of(name, kind),
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
