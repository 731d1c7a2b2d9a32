"""The reference page of graph files, as Markdown: every key, and every key of the tasks' configs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph import keys
from flowrun.runtime.graph.bind import live_keys
from flowrun.runtime.graph.find import TaskTypes, find_task_class
from flowrun.runtime.graph.keys import Key
from flowrun.runtime.graph.schema import config_schema
from flowrun.runtime.task import Task

__all__ = ["graph_reference"]

_HEAD = """\
<!-- Written by `make reference`. The texts are those of runtime/graph/keys.py and of the tasks. -->

# The graph file

A graph file is YAML 1.2; of its keys, only `tasks` must be there. In any value, `${NAME}` stands for an
environment variable, `${NAME:-default}` for one that may not be set, and `$${` for the text `${`.
`flowrun check GRAPH` lists every mistake in a file, `flowrun schema` prints the same reference as a
JSON Schema, with which an editor completes keys.
"""

_KINDS = {
    "id": "text",
    "type": "text",
    "message": "text",
    "endpoint": "text",
    "path": "text",
    "names": "list of text",
    "values": "mapping of any value",
    "config": "mapping",
    "section": "mapping",
    "list": "list",
    "flag": "true or false",
    "number": "number (above 0)",
}

_Row = tuple[str, str, str, str]


def graph_reference(types: TaskTypes) -> str:
    """The page, with the config of each of `types` whose module can be imported here."""
    sections = [
        _section("The keys of a graph file", keys.GRAPH),
        _section("`tasks`: a list", keys.TASK),
        _section("`logging` of a task", keys.TASK_LOGGING),
        _section("`cnx`: a list", keys.CONNECTION),
        _section("`includes`: a list", keys.INCLUDE),
        _section("`logging`", keys.LOGGING),
        *(_section(f"`{key.name}` of `logging`", key) for key in keys.LOGGING.keys if key.keys),
        _section("`runtime`", keys.RUNTIME),
    ]
    tasks = [text for name in sorted(types) for text in _task(name, types)]
    return "\n".join([_HEAD, *sections, "# The tasks\n", *tasks]).rstrip("\n") + "\n"


def _section(title: str, section: Key) -> str:
    rows = [(key.name, _kind(key), _default(key), key.sentence) for key in section.keys]
    return f"## {title}\n\n{section.sentence}\n\n{_table(rows)}"


def _kind(key: Key) -> str:
    if key.kind == "whole":
        return f"whole number (at least {key.minimum})"
    return ", ".join(key.choices) or _KINDS[key.kind]


def _default(key: Key) -> str:
    if key.required:
        return "required"
    if key.kind == "list":
        return "`[]`"
    is_mapping = key.kind in ("section", "config")
    return f"`{json.dumps({} if is_mapping else key.default)}`"


def _task(name: str, types: TaskTypes) -> Iterable[str]:
    try:
        task_class = find_task_class(name, folder=Path(), types=types)
    except FlowrunError:
        return
    schema = config_schema(task_class.Config, "{model}")
    yield f"## {name}\n\n{inspect.cleandoc(task_class.__doc__ or '')}\n"
    yield _config(schema, task_class)
    for model, inner in schema.get("$defs", {}).items():
        doc = inspect.cleandoc(inner.get("description", "")).partition("\n")[0]
        yield f"### {model}\n\n{doc}\n"
        yield _config(inner)


def _config(schema: Mapping[str, Any], task_class: type[Task] | None = None) -> str:
    properties = schema.get("properties", {})
    if not properties:
        return "It has no keys.\n"
    live = live_keys(task_class) if task_class is not None else ()
    rows: list[_Row] = []
    for key, described in properties.items():
        is_required = key in schema.get("required", ())
        default = "required" if is_required else f"`{json.dumps(_default_of(described))}`"
        sentence = described.get("description", "")
        if key in live:
            sentence += " May change while the graph runs."
        rows.append((key, _in_words(described), default, sentence))
    return _table(rows)


def _default_of(schema: Mapping[str, Any]) -> Any:
    """A list or mapping that is made for each config, empty, is not in the schema."""
    return schema.get("default", [] if schema.get("type") == "array" else {})


def _in_words(schema: Mapping[str, Any] | Literal[True]) -> str:
    """What a JSON Schema of pydantic's lets a value be."""
    if schema is True:
        return "any value"
    if "$ref" in schema:
        return f"{schema['$ref']}"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(_in_words(option) for option in schema[union])
    if "const" in schema or "enum" in schema:
        choices = schema.get("enum") or [schema["const"]]
        return ", ".join(map(str, choices))
    match schema.get("type"):
        case "array":
            return f"list of {_in_words(schema.get('items', {}))}"
        case "object":
            return f"mapping of {_in_words(schema.get('additionalProperties', {}))}"
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


def _table(rows: Iterable[_Row]) -> str:
    lines = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    for name, *cells in rows:
        lines.append("| " + " | ".join([f"`{name}`", *(_cell(cell) for cell in cells)]) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
