"""Tables on the terminal, or as plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["print_table", "size"]


def print_table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print `rows` below the column `names`; without a heading if all names are empty."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*names, box=None, show_header=any(names), pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
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
