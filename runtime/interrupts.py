"""Which KeyboardInterrupt comes from the user.

A signal raises `Interrupted` where flowrun handles it: in the command, and while a run or a replay calls
its tasks. Any other KeyboardInterrupt there was raised by the code of a task, or by a library that it
calls, and is an error like others. Where Python itself handles Ctrl-C, nobody can tell the two apart:
it is taken for the user's.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Handler", "Interrupted", "is_users", "telling_interrupts"]


class Interrupted(KeyboardInterrupt):
    """The user asks for the end, by a signal."""


class Handler:
    """Handles a signal as `handle` does; if that raises a KeyboardInterrupt, as `Interrupted`."""

    def __init__(self, handle: Callable[[int, Any], Any]) -> None:
        self._handle = handle

    def __call__(self, number: int, frame: Any) -> None:
        try:
            self._handle(number, frame)
        except Interrupted:
            raise
        except KeyboardInterrupt:
            raise Interrupted from None


def is_users(error: BaseException) -> bool:
    """Whether it is a KeyboardInterrupt that comes from the user. To be asked where it is caught."""
    if isinstance(error, Interrupted):
        return True
    return isinstance(error, KeyboardInterrupt) and _is_python_asked()


@contextmanager
def telling_interrupts() -> Iterator[None]:
    """Let Ctrl-C raise `Interrupted` while the context is open: for a caller that has not flowrun's
    handlers."""
    if not _is_python_asked():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    assert callable(before)
    handler = Handler(before)
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, before)


def _is_python_asked() -> bool:
    """Whether Ctrl-C raises here what is no `Interrupted`: a handler of Python, or of the program that
    uses flowrun."""
    handler = signal.getsignal(signal.SIGINT)
    is_other = callable(handler) and not isinstance(handler, Handler)
    return is_other and threading.current_thread() is threading.main_thread()
