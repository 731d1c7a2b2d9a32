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
from typing import Any

import structlog

from flowrun.runtime.engine.whereabouts import Whereabouts
from flowrun.runtime.run.log_lines import TO_LOG_ONLY

__all__ = ["Captured"]


class Captured:
    """Captures while the context `capturing` is open.

    whereabouts: knows whose code a stack is.
    """

    def __init__(self, whereabouts: Whereabouts) -> None:
        self._whereabouts = whereabouts
        self._handler = _Handler(whereabouts)

    def keep_on(self) -> None:
        """Capture again if somebody took the handler away, as `logging.config.dictConfig` does."""
        root = logging.getLogger()
        if self._handler not in root.handlers:
            root.addHandler(self._handler)

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Send lines to structlog, as it is configured then."""
        hooks = threading.excepthook, sys.unraisablehook
        captures_warnings = logging._warnings_showwarning is not None  # type: ignore[attr-defined]  # noqa: SLF001
        self.keep_on()
        if not captures_warnings:
            logging.captureWarnings(True)
        threading.excepthook = self._thread_died
        sys.unraisablehook = self._unraisable
        try:
            yield
        finally:
            threading.excepthook, sys.unraisablehook = hooks
            if not captures_warnings:
                logging.captureWarnings(False)
            logging.getLogger().removeHandler(self._handler)

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
        frame = None if error.__traceback__ is None else _last_frame(error)
        task = self._whereabouts.task_of(frame) or "flowrun"
        structlog.get_logger().error(text, task=task, raised=error)


class _Handler(logging.Handler):
    def __init__(self, whereabouts: Whereabouts) -> None:
        super().__init__()
        self._whereabouts = whereabouts
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
        task = self._whereabouts.task_of(sys._getframe(2)) or "flowrun"  # noqa: SLF001
        fields: dict[str, Any] = {"task": task}
        if record.name not in ("root", "py.warnings"):
            fields["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            fields["raised"] = record.exc_info[1]
        others = [it for it in logging.getLogger().handlers if it is not self]
        if others:  # they show it: the program has set up its own logging
            fields[TO_LOG_ONLY] = True
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001  # wrong arguments for its format
            text = f"{record.msg} {record.args!r}"
        log = structlog.get_logger()
        getattr(log, _method(record.levelno))(text.strip(), **fields)


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
