"""A progress bar on the terminal for long work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]

_EVERY_S = 0.1


@contextmanager
def progress(what: str, total: float) -> Iterator[Callable[[float], None] | None]:
    """Show a bar on stderr. Yields a function to call with how much of `total` is done, as often as
    you like; or None if stderr is not a terminal."""
    if not sys.stderr.isatty() or total <= 0:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        shown = 0.0

        def show(done: float) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= _EVERY_S:
                shown = now
                bar.update(task, completed=done)

        yield show
