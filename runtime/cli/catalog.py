"""`flowrun tasks` and `flowrun messages`: what there is to build graphs of."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.catalog import Listed, listed_messages, listed_tasks
from flowrun.runtime.graph.described import (
    DescribedKey,
    DescribedMessage,
    DescribedTask,
    describe_message,
    describe_task,
)
from flowrun.runtime.graph.find import task_types
from flowrun.runtime.printing import print_json, print_table, print_text
from flowrun.runtime.wording import nearest

__all__ = ["add_parser", "run"]

_OF_CONFIG = ("key", "value", "default", "meaning")
_MEASURED = " A measurement, which a replay does not compare."


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for verb, what, example in (
        ("tasks", "task type", "VideoCapture, or my_module.MyTask of a file"),
        ("messages", "message type", "DetectionsMsg, or my_module.MyMsg of a file"),
    ):
        parser = verbs.add_parser(
            verb,
            description=f"List the {what}s that there are: of flowrun, of installed packages, and of "
            "the Python files of a folder. With a name, print all that is to know of one, and an "
            "example.",
        )
        parser.add_argument("name", nargs="?", help=f"a {what}: {example} there")
        parser.add_argument(
            "--path", type=Path, default=Path(), metavar="DIR",
            help="the folder of the Python files, as of a graph (the current one)",
        )  # fmt: skip
        parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    if not args.path.is_dir():
        raise UsageError(f"--path {args.path}: no such folder")
    if args.name is None:
        found = (
            listed_tasks(task_types(), args.path)
            if args.verb == "tasks"
            else listed_messages(args.path)
        )
        _print_list(found, as_json=args.json)
        return 0
    described = _describe(args)
    if args.json:
        print_json(dataclasses.asdict(described))
    elif isinstance(described, DescribedTask):
        _print_task(described)
    else:
        _print_message(described)
    return 0


def _describe(args: argparse.Namespace) -> DescribedTask | DescribedMessage:
    try:
        if args.verb == "tasks":
            return describe_task(args.name, folder=args.path)
        return describe_message(args.name, folder=args.path)
    except UsageError as error:
        own = [it.name for it in _of_folder(args) if it.name.rpartition(".")[2] == args.name]
        if own:
            raise UsageError(f"{error}; the folder has {own[0]!r}") from None
        if "." in args.name:
            hint = nearest(args.name, [it.name for it in _of_folder(args)])
            raise UsageError(f"{error}{'' if 'did you mean' in str(error) else hint}") from None
        raise


def _of_folder(args: argparse.Namespace) -> list[Listed]:
    return listed_tasks({}, args.path) if args.verb == "tasks" else listed_messages(args.path)


def _print_list(found: list[Listed], *, as_json: bool) -> None:
    if as_json:
        print_json([dataclasses.asdict(it) for it in found])
    else:
        print_table(("name", "what it is"), [(it.name, it.sentence) for it in found])


def _print_task(task: DescribedTask) -> None:
    _print_head(task.name, task.path, task.text)
    rows = [
        (
            port.name,
            port.direction if port.required or port.direction == "output" else "input, optional",
            port.message,
        )
        for port in task.ports
    ]
    if rows:
        _print_part("ports", ("port", "", "message"), rows)
    if task.more_ports:
        print_text("\nmore ports for each name in its `inputs`")
    if task.config:
        _print_part("config", _OF_CONFIG, _rows(task.config))
    for name, mapping in task.mappings.items():
        if mapping.keys:
            _print_part(f"{name}: {mapping.text}", _OF_CONFIG, _rows(mapping.keys))
    print_text(f"\nexample\n\n{_indented(task.example)}")


def _rows(keys: tuple[DescribedKey, ...]) -> list[tuple[str, ...]]:
    return [
        (
            key.name,
            f"{key.value}, {key.unit}" if key.unit else key.value,
            "required" if key.required else json.dumps(key.default, ensure_ascii=False),
            key.sentence + (" May change while the graph runs." if key.live else ""),
        )
        for key in keys
    ]


def _print_message(message: DescribedMessage) -> None:
    _print_head(message.name, message.path, message.text)
    rows = [
        (
            field.name,
            f"{field.type} {field.shape}".rstrip(),
            json.dumps(field.default, ensure_ascii=False),
            field.sentence + (_MEASURED if field.measured else ""),
        )
        for field in message.fields
    ]
    _print_part("fields", ("field", "type", "default", "meaning"), rows)
    print_text(f"\nin the log: {message.schema} ({message.encoding})")
    example = json.dumps(message.example, ensure_ascii=False)
    print_text(f"\nexample\n\n    flowrun publish TASK.PORT '{example}'")


def _print_head(name: str, path: str, text: str) -> None:
    print_text(f"{name}  ({path})\n\n{text}")


def _print_part(title: str, names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    print_text(f"\n{title}\n")
    print_table(names, rows)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())
