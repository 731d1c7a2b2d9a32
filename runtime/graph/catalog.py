"""Which tasks and messages there are, each with a sentence: what `flowrun tasks` and `flowrun messages`
list.

It is read from the sources: importing the tasks of every package could load any library.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowrun.runtime.graph.find import TaskTypes, message_types

__all__ = ["Listed", "listed_messages", "listed_tasks"]


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
        Listed(name, f"{kind.__module__}.{kind.__qualname__}", _first_sentence(kind.__doc__ or ""))
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
