"""Writes docs/reference from the code: all tasks, messages and commands, the HTTP and the Python API.

`make docs` runs it, then builds the site. What it writes is not checked in.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from python_api import python_api

from flowrun.runtime import cli
from flowrun.runtime.clock import LiveClock
from flowrun.runtime.graph.catalog import listed_messages
from flowrun.runtime.graph.described import (
    DescribedMessage,
    DescribedTask,
    describe_message,
    describe_task,
)
from flowrun.runtime.graph.find import task_types
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.graph.reference import config_table
from flowrun.runtime.run.live import Run
from flowrun.runtime.serve.app import create_app as create_serve_app
from flowrun.runtime.serve.graphs import Graphs
from flowrun.runtime.serve.pipelines import Pipelines
from flowrun.runtime.server.app import create_app

ROOT = Path(__file__).parents[1]
NOWHERE = Path("/nonexistent")
"""A folder without Python files: nothing but what is installed is described."""


def pages() -> dict[str, str]:
    """Path below docs/reference -> Markdown, of all pages."""
    tasks = [describe_task(name, folder=NOWHERE) for name in sorted(task_types())]
    messages = [describe_message(it.name, folder=NOWHERE) for it in listed_messages(NOWHERE)]
    return {
        "tasks.md": _index("Tasks", "What a graph is made of", "tasks", tasks),
        "messages.md": _index("Messages", "What flows between tasks", "messages", messages),
        **{f"tasks/{it.name}.md": _task(it) for it in tasks},
        **{f"messages/{it.name}.md": _message(it, tasks) for it in messages},
        "commands.md": _commands(),
        "http-api.md": _api(),
        "python.md": python_api(),
    }


def _index(
    title: str, text: str, folder: str, items: Iterable[DescribedTask | DescribedMessage]
) -> str:
    rows = [(f"[{it.name}]({folder}/{it.name}.md)", it.text.partition("\n\n")[0]) for it in items]
    return (
        f"# {title}\n\n{text}. `flowrun {folder}` lists them too, with those of your own files, and "
        f"`flowrun {folder} NAME` says all of one.\n\n{_table(('name', 'what it is'), rows)}"
    )


def _task(task: DescribedTask) -> str:
    rows = []
    for port in task.ports:
        is_optional = port.direction == "input" and not port.required
        rows.append(
            (
                f"`{port.name}`",
                port.direction + (", optional" if is_optional else ""),
                _linked(port.message),
            )
        )
    parts = [f"# {task.name}", _prose(task.text), f"`{task.path}`"]
    if rows:
        parts += ["## Ports", _table(("port", "", "message"), rows)]
    if task.more_ports:
        parts.append("There are more ports for each name in its `inputs`.")
    parts += ["## Config", config_table(task.config)]
    for name, mapping in task.mappings.items():
        if mapping.keys:
            parts += [f"### {name}", mapping.text, config_table(mapping.keys)]
    parts += ["## Example", f"```yaml\n{task.example}```"]
    return "\n\n".join(it for it in parts if it) + "\n"


def _message(message: DescribedMessage, tasks: Iterable[DescribedTask]) -> str:
    rows = [
        (
            f"`{field.name}`",
            f"{field.type} {field.shape}".strip(),
            f"`{json.dumps(field.default)}`",
            field.sentence
            + (" A measurement: a replay does not compare it." if field.measured else ""),
        )
        for field in message.fields
    ]
    by: dict[str, list[str]] = {"output": [], "input": []}
    for task in tasks:
        for direction, found in by.items():
            if any(it.direction == direction and it.message == message.name for it in task.ports):
                found.append(f"[{task.name}](../tasks/{task.name}.md)")
    parts = [f"# {message.name}", _prose(message.text), f"`{message.path}`"]
    parts += ["## Fields", _table(("field", "type", "default", "what it is"), rows)]
    for direction, verb in (("output", "Published"), ("input", "Read")):
        if by[direction]:
            parts.append(f"{verb} by {', '.join(by[direction])}.")
    parts.append(f"In the log: `{message.schema}`, {message.encoding}.")
    example = json.dumps(message.example, ensure_ascii=False)
    parts += ["## Example", f"```console\n$ flowrun publish TASK.PORT '{example}'\n```"]
    return "\n\n".join(parts) + "\n"


def _linked(message: str) -> str:
    if " " in message:
        return message
    return f"[{message}](../messages/{message}.md)" if "." not in message else f"`{message}`"


def _prose(text: str) -> str:
    """The text of a class as Markdown: what is set in as code, after `::`, is code there too."""
    return re.sub(r"::$", ":", inspect.cleandoc(text), flags=re.MULTILINE)


def _table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(_cell(it) for it in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# -- commands ---------------------------------------------------------------------------------------


def _commands() -> str:
    parts = ["# Commands", "`flowrun GRAPH.yaml` is `flowrun run GRAPH.yaml`."]
    for verb, help_text in cli._VERBS.items():  # noqa: SLF001
        parser, _ = cli._parser(verb)  # noqa: SLF001
        [inner] = [it for name, it in _inner(parser) if name == verb]
        parts += [f"## flowrun {verb}", help_text[:1].upper() + help_text[1:] + "."]
        parts += _options(inner)
        for name, action in _inner(inner):
            parts += [f"### flowrun {verb} {name}", *_options(action)]
    return "\n\n".join(it for it in parts if it) + "\n"


def _inner(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            yield from action.choices.items()


def _options(parser: argparse.ArgumentParser) -> list[str]:
    usage = parser.format_usage().removeprefix("usage: ")
    rows = []
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):  # noqa: SLF001
            continue
        if action.help == argparse.SUPPRESS:
            continue
        value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
        value = value if isinstance(value, str) else " ".join(value)
        takes = action.nargs != 0 and action.option_strings
        names = action.option_strings or [value or action.dest]
        shown = ", ".join(
            f"`{it}{f' {value or action.dest.upper()}' if takes else ''}`" for it in names
        )
        rows.append((shown, (action.help or "") % {"prog": parser.prog, "default": action.default}))
    description = parser.description or ""
    epilog = parser.epilog or ""
    table = _table(("argument", "what it does"), rows) if rows else ""
    return [_escaped(description), f"```text\n{usage.rstrip()}\n```", table, _escaped(epilog)]


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


# -- the API ----------------------------------------------------------------------------------------


def _api() -> str:
    plan = load_plan(ROOT / "graphs" / "inference.yaml", env=os.environ, ready=False)
    run = Run(plan, clock=LiveClock(), directory=None)
    with (
        tempfile.TemporaryDirectory() as folder,
        Pipelines.open(
            Graphs(ROOT / "graphs"), log_dir=Path(folder), token=None, say=lambda _: None
        ) as pipelines,
    ):
        serve = create_serve_app(pipelines, token=None, host="127.0.0.1", connections=64)
    parts = [
        "# HTTP API",
        "Made from what a server says of itself: `/openapi.json`, to try out at its `/docs`. "
        '[What is there for what](../http-api.md) is a page of its own. Errors are `{"error": text}`.',
    ]
    for title, app in (("A run", create_app(run)), ("Many runs: flowrun serve", serve)):
        parts.append(f"## {title}")
        for path, methods in app.openapi()["paths"].items():
            for method, operation in methods.items():
                parts += _operation(method.upper(), path, operation)
    return "\n\n".join(it for it in parts if it) + "\n"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> list[str]:
    parameters = [
        (f"`{it['name']}`", it["in"], it.get("description", ""))
        for it in operation.get("parameters", ())
    ]
    responses: Mapping[str, Any] = operation.get("responses", {})
    replies = [(status, it.get("description", "")) for status, it in responses.items()]
    body = operation.get("requestBody", {}).get("content", {})
    return [
        f"### {method} {path}",
        operation.get("description") or operation.get("summary", ""),
        _table(("parameter", "in", "what it is"), parameters) if parameters else "",
        f"Body: {', '.join(f'`{kind}`' for kind in body)}." if body else "",
        _table(("status", "what it means"), replies),
    ]


def main() -> None:
    """Write all pages, in place of those that were there."""
    folder = Path(__file__).parent / "reference"
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    for name, text in pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"wrote {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
