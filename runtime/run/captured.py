"""What tasks say other than by `ctx.log`, in the run's log: Python's `logging`, `warnings`, and what
threads of a task died of. Each line has the name of the task whose code made it, if that is known.

Libraries written in C that hand their lines to `logging`, as FFmpeg does after `av.logging.set_level`,
are among them.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from flowrun.runtime.engine.whereabouts import Whereabouts
from flowrun.runtime.run.log_lines import TO_LOG_ONLY

__all__ = ["Captured"]


class Captured:
    """Captures while the context `capturing` is open, for one run; several may be open at once. A line
    belongs to the run whose task's code made it. One of which nobody knows belongs to the run that
    began first.

    whereabouts: knows whose code a stack is.
    log: the run's logger.
    """

    def __init__(self, whereabouts: Whereabouts, log: Any) -> None:
        self._whereabouts = whereabouts
        self._log = log
        self._handler = _Handler(self)

    def keep_on(self) -> None:
        """Capture again if somebody took the handler away, as `logging.config.dictConfig` does."""
        root = logging.getLogger()
        if self._handler not in root.handlers:
            root.addHandler(self._handler)

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Send lines to the run's logger."""
        self.keep_on()
        _hooks.add(self)
        try:
            yield
        finally:
            _hooks.remove(self)
            logging.getLogger().removeHandler(self._handler)

    def task_of(self, frame: FrameType | None) -> str | None:
        """The task, or "flowrun", whose code made a line; None if it belongs to another run."""
        task = self._whereabouts.task_of(frame)
        if task is not None:
            return task
        others = [it for it in _hooks.capturing if it is not self]
        is_others = any(it._whereabouts.task_of(frame) is not None for it in others)  # noqa: SLF001
        return "flowrun" if not is_others and _hooks.capturing[:1] in ([self], []) else None

    def log(self, level: str, text: str, **fields: Any) -> None:
        getattr(self._log, level)(text, **fields)

    def say(self, text: str, error: BaseException) -> None:
        """Log an error that nobody has caught, if it belongs to this run."""
        frame = None if error.__traceback__ is None else _last_frame(error)
        task = self.task_of(frame)
        if task is not None:
            self.log("error", text, task=task, raised=error)


class _Hooks:
    """Python's hooks, of which a process has one each, while a run is captured."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.capturing: list[Captured] = []
        """In the order in which they began."""

    def add(self, captured: Captured) -> None:
        with self._lock:
            if not self.capturing:
                self._before = threading.excepthook, sys.unraisablehook
                # No API says whether warnings are captured.
                self._warnings = logging._warnings_showwarning is not None  # type: ignore[attr-defined]  # noqa: SLF001
                if not self._warnings:
                    logging.captureWarnings(True)
                threading.excepthook = self._thread_died
                sys.unraisablehook = self._unraisable
            self.capturing = [*self.capturing, captured]

    def remove(self, captured: Captured) -> None:
        with self._lock:
            self.capturing = [it for it in self.capturing if it is not captured]
            if not self.capturing:
                threading.excepthook, sys.unraisablehook = self._before
                if not self._warnings:
                    logging.captureWarnings(False)

    def _thread_died(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is None or isinstance(args.exc_value, SystemExit):
            return
        name = "a thread" if args.thread is None else f"thread {args.thread.name!r}"
        self._say(f"{name} ended with an error", args.exc_value)

    def _unraisable(self, args: sys.UnraisableHookArgs) -> None:
        if args.exc_value is not None:
            self._say(
                f"{args.err_msg or 'ignored an error'} in {args.object!r:.80}", args.exc_value
            )

    def _say(self, text: str, error: BaseException) -> None:
        for captured in self.capturing:
            captured.say(text, error)


_hooks = _Hooks()


class _Handler(logging.Handler):
    def __init__(self, captured: Captured) -> None:
        super().__init__()
        self._captured = captured
        self._busy = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(self._busy, "is_so", False):
            return  # structlog was made to log to `logging`
        self._busy.is_so = True
        try:
            self._emit(record)
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001  # as every handler does; a task must not fail of its logging
            self.handleError(record)
        finally:
            self._busy.is_so = False

    def _emit(self, record: logging.LogRecord) -> None:
        task = self._captured.task_of(sys._getframe(2))  # noqa: SLF001
        if task is None:
            return
        fields: dict[str, Any] = {"task": task}
        if record.name not in ("root", "py.warnings"):
            fields["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            fields["raised"] = record.exc_info[1]
        others = [it for it in logging.getLogger().handlers if not isinstance(it, _Handler)]
        if others:  # they show it: the program has set up its own logging
            fields[TO_LOG_ONLY] = True
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001  # wrong arguments for its format
            text = f"{record.msg} {record.args!r}"
        self._captured.log(_method(record.levelno), text.strip(), **fields)


def _method(level: int) -> str:
    for at_least, method in (
        (logging.CRITICAL, "critical"),
        (logging.ERROR, "error"),
        (logging.WARNING, "warning"),
        (logging.INFO, "info"),
    ):
        if level >= at_least:
            return method
    return "debug"


def _last_frame(error: BaseException) -> Any:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return None if traceback is None else traceback.tb_frame
