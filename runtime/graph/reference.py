"""The reference page of graph files, as Markdown: every key, and every key of the tasks' configs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph import keys
from flowrun.runtime.graph.described import DescribedKey, describe_task
from flowrun.runtime.graph.find import TaskTypes
from flowrun.runtime.graph.keys import Key

__all__ = ["config_table", "graph_reference"]

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
    "cores": "list of whole numbers",
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
        _section("`background` of `runtime`", keys.BACKGROUND),
    ]
    tasks = [text for name in sorted(types) for text in _task(name, types)]
    return "\n".join([_HEAD, *sections, "# The tasks\n", *tasks]).rstrip("\n") + "\n"


def _section(title: str, section: Key) -> str:
    rows = [(key.name, _kind(key), _default(key), key.sentence) for key in section.keys]
    return f"## {title}\n\n{section.sentence}\n\n{_table(rows)}"


def _kind(key: Key) -> str:
    if key.kind == "whole" and key.maximum is not None:
        return f"whole number (from {key.minimum} to {key.maximum})"
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
        found = describe_task(name, folder=Path(), types=types)
    except FlowrunError:
        return
    yield f"## {name}\n\n{found.text}\n"
    yield config_table(found.config)
    for model, mapping in found.mappings.items():
        yield f"### {model}\n\n{mapping.text}\n"
        yield config_table(mapping.keys)


def config_table(config: Iterable[DescribedKey]) -> str:
    """The keys of a config as a table in Markdown."""
    rows: list[_Row] = []
    for key in config:
        default = "required" if key.required else f"`{json.dumps(key.default)}`"
        live = " May change while the graph runs." if key.live else ""
        rows.append((key.name, key.value, default, key.sentence + live))
    return _table(rows) if rows else "It has no keys.\n"


def _table(rows: Iterable[_Row]) -> str:
    lines = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    for name, *cells in rows:
        lines.append("| " + " | ".join([f"`{name}`", *(_cell(cell) for cell in cells)]) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
