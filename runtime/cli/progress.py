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
    you like; or None if stderr is not a terminal.

    The bar begins with the first call: a signal that comes while the context is entered would let this
    generator end late, and the bar would then wipe the line that says why the command ended."""
    if not sys.stderr.isatty() or total <= 0:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=total)
    shown = 0.0

    def show(done: float) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= _EVERY_S:
            shown = now
            bar.start()  # does nothing from the second time on
            bar.update(task, completed=done)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
