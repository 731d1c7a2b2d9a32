"""structlog for a run: lines for people on the console, the same records as messages in the log."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from flowrun.runtime.errors import text_of
from flowrun.runtime.wording import mask_secrets

_HARMLESS = (bool, int, float, type(None))

__all__ = ["LineQueue", "LogTarget", "Stream", "configure_logs"]


class Stream(Protocol):
    """Where console lines go."""

    def write(self, text: str, /) -> Any: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


class LogTarget(Protocol):
    """What takes the records of a run; `LogWriter` is one."""

    def log_record(
        self, time_ns: int, level: str, message: str, name: str, fields: dict[str, Any]
    ) -> None: ...


def configure_logs(
    *,
    now_ns: Callable[[], int],
    target: LogTarget | None = None,
    secrets: frozenset[str] = frozenset(),
    stream: Stream | None = None,
) -> None:
    """Send every structlog record to `stream` (stderr), and to `target` if there is one.

    secrets: texts that are replaced by "***" wherever they occur in a record.
    """
    stream = _Stderr() if stream is None else stream
    colors = stream.isatty()

    def keep(_logger: Any, level: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
        fields = {k: _plain(v) for k, v in record.items() if k not in ("event", "level", "task")}
        if target is not None:
            task = str(record.get("task", "flowrun"))
            target.log_record(now_ns(), level, str(record.get("event", "")), task, fields)
        return record

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _masker(secrets),
            keep,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=28),
        ],
        logger_factory=structlog.PrintLoggerFactory(stream),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )


class _Stderr:
    """Whatever `sys.stderr` is when something is written."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


class LineQueue:
    """Console lines that wait for the thread that owns the terminal: a cycle that logs a line does
    not wait for the terminal to show it."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()

    def write(self, text: str, /) -> int:
        self._texts.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing: `drain` writes."""

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def drain(self) -> None:
        """Write what has come to stderr, whatever that is now: a live display may have replaced it."""
        texts = []
        while self._texts:
            texts.append(self._texts.popleft())
        if texts:
            sys.stderr.write("".join(texts))
            sys.stderr.flush()


def _masker(secrets: frozenset[str]) -> Any:
    def mask(_logger: Any, _method: str, record: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value if isinstance(value, _HARMLESS) else mask_secrets(text_of(value), secrets)
            for key, value in record.items()
        }

    return mask


def _plain(value: Any) -> Any:
    """A value that msgpack can hold."""
    return (
        value if isinstance(value, (bool, int, float, str, bytes)) or value is None else str(value)
    )
