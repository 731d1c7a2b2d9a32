"""Where in the user's own code an exception was raised: the file, the line, what is written there."""

from __future__ import annotations

import inspect
import linecache
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

from flowrun.runtime.errors import TaskDefinitionError, WrongReturnError, text_of

__all__ = [
    "Place",
    "explained",
    "is_users",
    "place_in",
    "place_of",
    "place_of_code",
    "shown_path",
]

_INSTALLED = ("site-packages", "dist-packages")
_CAUSES = 3
"""Number of causes, and of exceptions of a group, that are shown."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of code.

    file: its path, from the working directory if it is below that.
    function: the name of the function; "" at the top of a module.
    source: what is written there; "" if the file cannot be read.
    """

    file: str
    line: int
    function: str
    source: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        if self.function:
            where += f", in {self.function}"
        return f"{where}: {self.source}" if self.source else where


def place_of(error: BaseException) -> Place | None:
    """The deepest line of the user's own code in the traceback of `error`. Where a package that was
    installed offers the task, the deepest line of that package. None if only flowrun and Python are
    in it."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        source = (error.text or "").strip()
        return Place(shown_path(error.filename), error.lineno or 1, "", source)
    if isinstance(error, WrongReturnError):
        return place_of_code(error.function)
    if isinstance(error, TaskDefinitionError) and error.of is not None:
        return place_of_code(error.of)
    return _deepest(list(_frames(error)))


def place_in(frame: FrameType) -> Place | None:
    """The line of the user's own code that a task is in; see `place_of`.

    frame: the innermost of the stack; what called the engine is not looked at.
    """
    frames = []
    inner: FrameType | None = frame
    while inner is not None and not _is_engine(inner):
        frames.append((inner, inner.f_lineno))
        inner = inner.f_back
    return _deepest(frames[::-1])


def place_of_code(function: object) -> Place | None:
    """Where a function or a class of the user's is defined: its line with `def` or `class`; None of
    one whose source is not there, and of flowrun's own."""
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(function))  # type: ignore[arg-type]
        file = inspect.getsourcefile(inspect.unwrap(function))  # type: ignore[arg-type]
    except (OSError, TypeError, ValueError):
        return None
    if file is None or not _is_own(file) or str(function.__module__).startswith("flowrun."):
        return None
    starts = ("def ", "async def ", "class ")
    at = next((k for k, line in enumerate(lines) if line.strip().startswith(starts)), 0)
    return Place(shown_path(file), first + at, "", lines[at].strip())


def _is_engine(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("flowrun.runtime.engine.")


def _deepest(frames: list[tuple[FrameType, int]]) -> Place | None:
    own = [it for it in frames if is_users(it[0])]
    if not own:
        frames = [it for it in frames if _is_of_package(it[0])]
        own = [it for it in frames if _package(it[0]) == _package(frames[0][0])]
    if not own or _package(own[0][0]) == "flowrun":
        return None
    frame, line = own[-1]
    code = frame.f_code
    source = linecache.getline(code.co_filename, line, frame.f_globals).strip()
    function = "" if code.co_name == "<module>" else code.co_name
    return Place(shown_path(code.co_filename), line, function, source)


def explained(error: BaseException) -> list[str]:
    """What a person reads below the text of `error`: its place, then what it came from, each with its
    own place."""
    place = place_of(error)
    lines = [] if place is None else [f"at {place}"]
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions[:_CAUSES]:
            lines.append(f"one of {len(error.exceptions)}: {_brief(inner)}")
            lines += [f"  {line}" for line in explained(inner)]
    seen = {id(error)}
    cause = error
    for _ in range(_CAUSES):
        by = cause.__cause__
        what = "caused by"
        if by is None and not cause.__suppress_context__:
            by, what = cause.__context__, "raised while handling"
        if by is None or id(by) in seen:
            break
        seen.add(id(by))
        place = place_of(by)
        lines.append(f"{what} {_brief(by)}" + ("" if place is None else f", at {place}"))
        cause = by
    return lines


def is_users(frame: FrameType) -> bool:
    """Whether the code of `frame` is neither flowrun's, nor Python's, nor of an installed package."""
    name = frame.f_globals.get("__name__")
    return bool(name) and not str(name).startswith("flowrun.") and _is_own(frame.f_code.co_filename)


def _brief(error: BaseException) -> str:
    text = text_of(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _is_of_package(frame: FrameType) -> bool:
    """Whether a package that offers tasks has it; flowrun is one."""
    name = str(frame.f_globals.get("__name__") or "")
    is_runtime = name.startswith(("flowrun.runtime", "flowrun.msgs"))
    is_task = name.startswith("flowrun.tasks")
    return is_task or (_is_installed(frame.f_code.co_filename) and not is_runtime)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__") or "").partition(".")[0]


@cache
def _is_own(file: str) -> bool:
    if file.startswith("<") or _is_installed(file):
        return False
    python = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return not any(file.startswith(folder + os.sep) for folder in python)


@cache
def _is_installed(file: str) -> bool:
    parts = Path(file).parts
    return any(name in parts for name in _INSTALLED)


def shown_path(file: str) -> str:
    """The path of a file, from the working directory if it is below that."""
    try:
        near = os.path.relpath(file)
    except (OSError, ValueError):  # the working directory is gone
        return file
    return file if near.startswith(os.pardir) else near
