"""Where a program calls flowrun: the file, or the cell of a notebook, the line, and the argument."""

from __future__ import annotations

import ast
import linecache
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from flowrun.runtime.errors import Location
from flowrun.runtime.places import shown_path

__all__ = ["Caller", "caller", "is_file"]


@dataclass(frozen=True, slots=True)
class Caller:
    """A call in a user's code.

    file: as the code says it: a path, or what a notebook calls a cell.
    module: the name of the calling module.
    span: first and last line of the call, and the columns in bytes; None where Python does not know.
    line: the line of the call where `span` is None.
    """

    file: str
    module: str
    line: int
    span: tuple[int, int, int, int] | None

    @property
    def folder(self) -> Path:
        """That of the file; the current folder for a call that is in none, such as in a notebook."""
        path = Path(self.file)
        return path.absolute().parent if is_file(self.file) else Path()

    def place(self, *arguments: str | int) -> Location:
        """The place of the argument of that name or number; of the call itself if it has none such.
        Of several, the first that is there."""
        known = {} if self.span is None else _arguments(self.file, self.span)
        line, column = next(
            (known[it] for it in arguments if it in known), known.get("", (self.line, 1))
        )
        return Location(_named(self.file), line, column)


def caller() -> Caller:
    """The innermost call of flowrun by code that is not flowrun's."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    assert frame is not None
    while _is_flowruns(frame) and frame.f_back is not None:
        frame = frame.f_back
    code = frame.f_code
    line, end, start_column, end_column = list(code.co_positions())[frame.f_lasti // 2]
    span = None
    if not (line is None or end is None or start_column is None or end_column is None):
        span = line, end, start_column, end_column
    module = str(frame.f_globals.get("__name__"))
    return Caller(code.co_filename, module, frame.f_lineno, span)


def is_file(name: str) -> bool:
    """Whether the code of that file name is in a file, and not in a notebook or typed in."""
    return not name.startswith("<") and _cell(name) is None and Path(name).is_file()


def _is_flowruns(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__"))
    return name == "flowrun" or name.startswith(("flowrun.runtime.", "contextlib"))


def _named(file: str) -> str:
    return _cell(file) or (shown_path(file) if is_file(file) else file)


def _cell(file: str) -> str | None:
    """What IPython calls the cell whose code has that file name, such as `In[3]`."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    name_of: Any = getattr(getattr(shell, "compile", None), "format_code_name", None)
    found = None if name_of is None else name_of(file)
    return None if found is None else found[1]


def _arguments(file: str, span: tuple[int, int, int, int]) -> dict[str | int, tuple[int, int]]:
    """Line and column of each argument of the call at `span`, by name or number; under "" those of
    the call. Only the latter if the source is not there."""
    first, last, start, end = span
    lines = [it.encode() for it in linecache.getlines(file)[first - 1 : last]]
    if len(lines) != last - first + 1:
        return {"": (first, start + 1)}
    lines[-1] = lines[-1][:end]
    before, lines[0] = lines[0][:start], lines[0][start:]
    return _arguments_in(b"".join(lines), first, before)


@cache
def _arguments_in(call: bytes, line: int, before: bytes) -> dict[str | int, tuple[int, int]]:
    """call: its source. line: that of its first character. before: what precedes it there."""
    found: dict[str | int, tuple[int, int]] = {"": (line, len(before.decode(errors="replace")) + 1)}
    try:
        made = ast.parse(b"(" + call + b")", mode="eval").body
    except (SyntaxError, ValueError):
        return found  # the file has changed since it was loaded
    if not isinstance(made, ast.Call):
        return found
    named = {it.arg: it for it in made.keywords if it.arg is not None}
    lines = call.split(b"\n")
    places: list[tuple[str | int, ast.expr | ast.keyword]] = [*enumerate(made.args), *named.items()]
    for name, node in places:
        row, column = node.lineno - 1, node.col_offset
        text = before + lines[0] if row == 0 else lines[row]
        at = column - 1 + len(before) if row == 0 else column
        found[name] = line + row, len(text[:at].decode(errors="replace")) + 1
    return found
