"""structlog for a run: lines for people on the console, the same records as messages in the log."""

from __future__ import annotations

import math
import sys
import threading
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.engine.policy import TASK_FAILED
from flowrun.runtime.errors import text_of
from flowrun.runtime.places import explained
from flowrun.runtime.wording import escaped, mask_secrets, one_line

__all__ = ["TO_LOG_ONLY", "Folding", "LogTarget", "Stream", "configure_logs", "drop_logs"]

TO_LOG_ONLY = "_to_log_only"
"""A record with this key, true, goes into the log and not to the console."""
_REPEATED = "repeated"
_FOLD_AFTER = 10
"""Number of equal lines in `_FOLD_S` seconds that are shown; further ones are counted."""
_FOLD_S = 1.0
_FOLD_KEPT = 256
"""Number of different lines that are remembered."""
_TRACEBACKS_KEPT = 64
_ERRORS_EVERY_S = 10.0
_ERRORS_KEPT = 64
"""Number of different errors of a task that are remembered."""
_Record = MutableMapping[str, Any]
_SEVERAL_LINES = ("exception", "stack")
_HARMLESS = (bool, int, float, type(None))


class Stream(Protocol):
    """Where console lines go; in colours if it is a TTY."""

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
) -> Folding:
    """Send every structlog record to `stream` (stderr), and to `target` if there is one.

    A record with an exception as `raised` names the place in the user's code; the whole traceback goes
    to `target` alone. Lines that come again and again are counted; see `Folding`. Of the errors that a
    task outlives, `stream` gets a part; see `_FoldedErrors`.

    secrets: texts that are replaced by "***" wherever they occur in a record.
    """
    stream = _Stderr() if stream is None else stream
    folding = Folding()

    def keep(_logger: Any, level: str, record: _Record) -> Mapping[str, Any]:
        is_for_log_only = record.pop(TO_LOG_ONLY, False)
        left_out = ("event", "level", "task")
        fields = {k: _plain(v) for k, v in record.items() if k not in left_out}
        if target is not None:
            task = str(record.get("task", "flowrun"))
            target.log_record(now_ns(), level, str(record.get("event", "")), task, fields)
        if is_for_log_only:
            raise structlog.DropEvent
        record.pop(_TRACEBACK, None)
        return record

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _Places(),
            structlog.processors.format_exc_info,
            _masker(secrets),
            folding,
            keep,
            _FoldedErrors(),
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            _escape,
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=28),
        ],
        wrapper_class=_OneAtATime,
        logger_factory=structlog.PrintLoggerFactory(stream),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    return folding


def drop_logs() -> None:
    """Drop what tasks log from now on: they do what they did before, when it was shown and recorded."""
    configure_logs(now_ns=lambda: 0, stream=_Nowhere())


class _Nowhere:
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False


class _Lines(threading.local):
    """What a thread is logging.

    busy: whether it is at work on a line.
    waiting: the lines that it was given meanwhile.
    """

    def __init__(self) -> None:
        self.busy = False
        self.waiting: deque[Callable[[], Any]] = deque()


_lines = _Lines()


class _OneAtATime(structlog.make_filtering_bound_logger(0)):  # type: ignore[misc]  # made at run time
    """A logger whose thread ends a line before it begins the next one.

    A line may come in the middle of another: garbage is collected at any moment, and what is collected
    may log, such as a client's task that nobody awaits. The locks of that moment are held by the same
    thread, which would wait for itself, and every other thread for it.
    """

    def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> Any:
        log = super()._proxy_to_logger
        if _lines.busy:
            if fields.get("exc_info") is True:  # what is being handled now
                fields["exc_info"] = sys.exc_info()
            _lines.waiting.append(partial(log, method_name, event, **fields))
            return None
        _lines.busy = True
        try:
            done = log(method_name, event, **fields)
            while _lines.waiting:
                _lines.waiting.popleft()()
            return done
        finally:
            _lines.busy = False


_TRACEBACK = "traceback"


class _Places:
    """Says of the exception `raised` where the user's code raised it, and keeps each traceback once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, None] = OrderedDict()

    def __call__(
        self, _logger: Any, _method: str, record: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        raised = record.pop("raised", None)
        if not isinstance(raised, BaseException):
            return record
        places = explained(raised)
        if places:
            record["at"] = "; ".join(line.strip() for line in places).removeprefix("at ")
        text = "".join(traceback.format_exception(raised))
        if text not in self._kept:
            self._kept[text] = None
            record[_TRACEBACK] = text
            while len(self._kept) > _TRACEBACKS_KEPT:
                self._kept.popitem(last=False)
        return record


class _Stderr:
    """Whatever `sys.stderr` is when something is written."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


class Folding:
    """Lets the first lines of many that are equal through, and says of the others how many they were:
    a task that fails in every cycle of a fast graph would fill the log with one sentence."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: OrderedDict[Any, _Folded] = OrderedDict()

    def __call__(
        self, _logger: Any, method: str, record: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        now = monotonic_s()
        key = method, *record.items()  # after the masker: texts and numbers
        with self._lock:
            line = self._lines.get(key)
            if line is None or now - line.since_s > _FOLD_S:
                repeated = 0 if line is None else line.folded
                self._lines[key] = _Folded(now)
                self._lines.move_to_end(key)
                if len(self._lines) > _FOLD_KEPT:
                    self._forget_oldest()
                return {**record, _REPEATED: repeated} if repeated else record
            line.shown += 1
            if line.shown <= _FOLD_AFTER:
                return record
            line.folded += 1
            raise structlog.DropEvent

    def flush(self, log: Any) -> None:
        """Log, to `log`, what was folded and has not been mentioned yet."""
        none: OrderedDict[Any, _Folded] = OrderedDict()
        with self._lock:  # nothing is made within: what is collected then may log
            lines, self._lines = self._lines, none
        for (method, *record), line in lines.items():
            if line.folded:
                getattr(log, method)(**{**dict(record), _REPEATED: line.folded})

    def _forget_oldest(self) -> None:
        key = next((key for key, line in self._lines.items() if not line.folded), None)
        self._lines.pop(next(iter(self._lines)) if key is None else key)


class _FoldedErrors:
    """Shows each error that a task outlives once, and another one of that task 10 s later at the
    earliest: the console has the number of them in its status, and the log has all."""

    def __init__(self) -> None:
        self._shown: dict[Any, tuple[float, OrderedDict[str, None]]] = {}

    def __call__(
        self, _logger: Any, _method: str, record: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if record.get("event") != TASK_FAILED:
            return record
        now, task, text = monotonic_s(), record.get("task"), str(record.get("error"))
        shown_s, texts = self._shown.get(task, (-math.inf, OrderedDict[str, None]()))
        if text in texts or now - shown_s < _ERRORS_EVERY_S:
            raise structlog.DropEvent
        texts[text] = None
        if len(texts) > _ERRORS_KEPT:
            texts.popitem(last=False)
        self._shown[task] = now, texts
        return record


@dataclass(slots=True)
class _Folded:
    since_s: float
    shown: int = 1
    folded: int = 0


def _masker(secrets: frozenset[str]) -> Any:
    def mask(
        _logger: Any, _method: str, record: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {
            key: value if isinstance(value, _HARMLESS) else mask_secrets(text_of(value), secrets)
            for key, value in record.items()
        }

    return mask


def _escape(
    _logger: Any, _method: str, record: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Nothing in a line is a command to the terminal; a traceback has lines of its own."""
    shown: dict[str, Any] = {}
    for key, value in record.items():
        if key in _SEVERAL_LINES:
            value = escaped(str(value))  # noqa: PLW2901
        elif not isinstance(value, _HARMLESS):
            value = _Shown(one_line(str(value)))  # noqa: PLW2901
        shown[one_line(key)] = value
    return shown


class _Shown(str):
    """A text whose quoted form escapes nothing: it is escaped already."""

    __slots__ = ()

    def __repr__(self) -> str:
        quote = '"' if "'" in self and '"' not in self else "'"
        return f"{quote}{self}{quote}"


def _plain(value: Any) -> Any:
    """A value that msgpack can hold."""
    return (
        value if isinstance(value, (bool, int, float, str, bytes)) or value is None else str(value)
    )
