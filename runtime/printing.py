"""What the commands print: lines and tables, of which no part is a command to the terminal.

A file name, an answer of a model, a line of a received log may hold anything; `print_text` and
`print_table` escape it. Only what is written to a file, or as data into a pipe, is as it is.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from flowrun.runtime.wording import escaped, one_line

__all__ = [
    "Escaping",
    "Writable",
    "print_if_read",
    "print_json",
    "print_table",
    "print_text",
    "size",
]


def print_text(
    text: object = "", *, end: str = "\n", file: TextIO | None = None, flush: bool = False
) -> None:
    """As `print`, with control characters escaped; JSON stays the same JSON.

    Nothing else prints, so that nothing is printed as it is.
    """
    stream = sys.stdout if file is None else file
    if stream is not None and not stream.closed:
        print(escaped(str(text)), end=end, file=stream, flush=flush)
        return
    # A task has closed it, or taken it away; the descriptor under it lives on.
    with contextlib.suppress(OSError), open(1, "w", encoding="utf-8", closefd=False) as under:
        print(escaped(str(text)), end=end, file=under)


def print_if_read(text: str) -> None:
    """Print a line now, if anybody reads it; the command goes on in any case."""
    with contextlib.suppress(OSError, ValueError):
        print_text(text, flush=True)


def print_json(value: Any) -> None:
    """Print `value` as JSON, as people and programs read it."""
    print_text(json.dumps(value, indent=2, ensure_ascii=False))


class Writable(Protocol):
    """Where text goes."""

    def write(self, text: str, /) -> object: ...


class Escaping:
    """A stream for data that are printed, and not written to a file: escapes them on their way to a
    terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._escapes = stream.isatty()

    def write(self, text: str) -> int:
        self._stream.write(escaped(text) if self._escapes else text)
        return len(text)


def print_table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print `rows` below the column `names`; without a heading if all names are empty."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*names, box=None, show_header=any(names), pad_edge=False)
    for row in rows:
        table.add_row(*(Text(one_line(cell), overflow="fold") for cell in row))
    if sys.stdout.isatty():
        Console().print(table)
        return
    # In a pipe nothing is folded or padded: lines stay whole for grep.
    console = Console(width=4096)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def size(count: int) -> str:
    """A number of bytes as people read it: `3.6 MB`."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{count} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
