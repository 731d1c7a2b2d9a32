"""The page of docs/reference about the Python API, from the docstrings of what users call."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import flowrun
from flowrun.runtime import task as tasks
from flowrun.runtime import testing
from flowrun.runtime.api.running import LiveRun
from flowrun.runtime.run.live import RunResult

_SECTIONS: dict[str, list[Any]] = {
    "Graphs and runs": [
        flowrun.Graph,
        LiveRun,
        RunResult,
        flowrun.run,
        flowrun.running,
        flowrun.pipeline,
        flowrun.Pipeline,
        flowrun.Result,
    ],
    "Tasks": [flowrun.task, flowrun.Task, flowrun.Context],
    "Tests": [
        testing.run_task,
        testing.Published,
        testing.source_of,
        testing.collector_of,
        testing.assert_replays,
    ],
    "Messages": [flowrun.Message],
    "Recorded runs": [flowrun.Log, flowrun.Replay],
}
_FOR_USERS = {flowrun.Message: {"check_fields", "copy", "fill", "publish", "present", "tov_ns"}}
"""Of a class most of which is for the runtime: what is not."""
_FOR_THE_RUNTIME = {
    flowrun.Context: {"freeze_rng", "thaw_rng", "keep_packets", "logs_packets"},
    flowrun.Task: {"picture_codecs", "several", "several_configs", "code"},
    LiveRun: {"check_is_here", "raise_error", "fail", "note", "end_at_exit", "leave_fork"},
}
_WIDTH = 90
_FIELD = re.compile(r"(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): (?P<text>.*)")


def python_api() -> str:
    """The page, in Markdown."""
    parts = [
        "# Python API",
        "`import flowrun` has all that is here but the tests, which are in `flowrun.runtime.testing`. "
        "[Graphs in Python](../python.md) and [Writing tasks](../tasks.md) show how it is used.",
    ]
    for title, items in _SECTIONS.items():
        parts.append(f"## {title}")
        if title == "Tasks":
            _, _, text = (inspect.getdoc(tasks) or "").partition("\n\n")
            parts.append(_markdown(text))
        for item in items:
            parts += _class(item) if inspect.isclass(item) else _function(item, item.__name__, 3)
    return "\n\n".join(it for it in parts if it) + "\n"


def _class(item: type) -> Iterator[str]:
    yield f"### {item.__name__}"
    yield _markdown(inspect.getdoc(item) or "")
    wanted = _FOR_USERS.get(item, vars(item).keys() - _FOR_THE_RUNTIME.get(item, ()))
    texts = _texts_below(item)
    for name, member in vars(item).items():
        if name.startswith("_") or name not in wanted:
            continue
        shown = f"{item.__name__}.{name}"
        if name in texts:
            yield f"#### {shown}"
            yield _markdown(texts[name])
        elif isinstance(member, property) and member.__doc__:
            yield f"#### {shown}"
            yield _markdown(inspect.cleandoc(member.__doc__))
        elif isinstance(member, (classmethod, staticmethod)):
            yield from _function(member.__func__, shown, 4)
        elif inspect.isfunction(member):
            yield from _function(member, shown, 4)


def _function(function: Callable[..., object], name: str, level: int) -> Iterator[str]:
    text = inspect.getdoc(function)
    if not text:
        return
    yield f"{'#' * level} {name}"
    yield f"```python\n{_signature(function, name.rpartition('.')[2])}\n```"
    yield _markdown(text)


def _signature(function: Callable[..., object], name: str) -> str:
    signature = inspect.signature(function)
    shown = [it for it in signature.parameters.values() if it.name not in ("self", "cls")]
    parts = []
    for at, it in enumerate(shown):
        if it.kind is it.KEYWORD_ONLY and "*" not in "".join(parts):
            parts.append("*")
        stars = {it.VAR_POSITIONAL: "*", it.VAR_KEYWORD: "**"}.get(it.kind, "")
        default = "" if it.default is it.empty else f" = {it.default!r}"
        parts.append(f"{stars}{it.name}{_annotation(': ', it.annotation)}{default}")
        if it.kind is it.POSITIONAL_ONLY and all(
            later.kind is not it.POSITIONAL_ONLY for later in shown[at + 1 :]
        ):
            parts.append("/")
    returns = _annotation(" -> ", signature.return_annotation)
    text = f"{name}({', '.join(parts)}){returns}"
    if len(text) <= _WIDTH:
        return text
    lines = "".join(f"    {it},\n" for it in parts)
    return f"{name}(\n{lines}){returns}"


def _annotation(before: str, annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    return before + (
        annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    )


def _texts_below(item: type) -> dict[str, str]:
    """The texts below the attributes in the source of a class."""
    [declared] = ast.parse(textwrap.dedent(inspect.getsource(item))).body
    assert isinstance(declared, ast.ClassDef)
    texts = {}
    for found, after in zip(declared.body, declared.body[1:], strict=False):
        target = (
            found.targets[0] if isinstance(found, ast.Assign) else getattr(found, "target", None)
        )
        match target, after:
            case ast.Name(id=name), ast.Expr(value=ast.Constant(value=str() as text)):
                texts[name] = inspect.cleandoc(text)
    return texts


def _markdown(text: str) -> str:
    """A docstring, with its lists of names as lists and its code as code."""
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    return "\n\n".join(_paragraph(it) for it in re.split(r"\n\n(?! )", text))


def _paragraph(text: str) -> str:
    if _is_code(text):
        return f"```python\n{text}\n```"
    if not _FIELD.match(text):
        return text
    lines = []
    for line in text.splitlines():
        found = _FIELD.fullmatch(line)
        if found:
            names = ", ".join(f"`{it}`" for it in found["names"].split(", "))
            lines.append(f"- {names}: {found['text']}")
        else:
            lines.append(f"  {line.strip()}" if line.startswith("    ") else f"\n{line}")
    return "\n".join(lines)


def _is_code(text: str) -> bool:
    try:
        return bool(ast.parse(text).body) and "(" in text
    except SyntaxError:
        return False
