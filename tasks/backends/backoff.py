"""How long a server that failed is left alone."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flowrun.tasks.backends.chat import ServerError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Backoff", "retry_after_s"]

_FIRST_RETRY_S = 0.1
_FIRST_REST_S = 1.0
_LONGEST_REST_S = 30.0
_LONGEST_ASKED_S = 300.0
"""A server that asks for more, by mistake or for a day, is asked again after this."""


class Backoff:
    """Pauses that grow with each failure in a row, or last as long as the server asks for.

    rng: the task's random numbers, so that the clients of one server do not return all at once.
    now_s: a clock that only goes forward.
    """

    def __init__(
        self, rng: np.random.Generator, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._rng = rng
        self._now_s = now_s
        self._failures = 0
        self._error: ServerError | None = None
        self._asked: Any = None
        self._until_s = 0.0

    def retry_s(self, number: int, error: ServerError) -> float:
        """The pause before the retry of that number, from 0, of one question."""
        return max(self._varied(_FIRST_RETRY_S * 2**number), self._wanted(error))

    def note_failure(self, error: ServerError, asked: Any) -> None:
        """The server has failed to answer: it rests.

        asked: the question's words. Others are asked at once: they may be what mends it.
        """
        rest_s = self._varied(min(_FIRST_REST_S * 2 ** min(self._failures, 10), _LONGEST_REST_S))
        self._failures += 1
        rest_s = max(rest_s, self._wanted(error))
        self._asked = asked
        self._until_s = self._now_s() + rest_s
        self._error = ServerError(
            f"{error}; it is left alone for {rest_s:.1f} s",
            status=error.status,
            retry_after_s=error.retry_after_s,
        )

    def note_success(self) -> None:
        """The server has answered."""
        self._failures = 0
        self._error = None

    def note_health(self) -> None:
        """The server is ready: it rests no longer, unless it asked to."""
        if not self.is_wanted:
            self._until_s = 0.0

    @property
    def rests(self) -> bool:
        """Whether the server is left alone now."""
        return self._error is not None and self._now_s() < self._until_s

    @property
    def is_wanted(self) -> bool:
        """Whether the server is left alone now because it asked for that."""
        return self.rests and self._error is not None and self._error.retry_after_s is not None

    def check(self, asked: Any) -> None:
        """Raise the last failure while the server rests, unless something else is asked."""
        if asked != self._asked:
            self.note_success()
        if self.rests:
            assert self._error is not None
            raise self._error

    @property
    def error(self) -> ServerError | None:
        """The last failure; None once it has answered since."""
        return self._error

    def is_about(self, asked: Any) -> bool:
        """Whether the last failure was to answer just this."""
        return self._error is not None and bool(asked == self._asked)

    def _wanted(self, error: ServerError) -> float:
        asked_s = error.retry_after_s
        return (
            0.0 if asked_s is None else min(asked_s, _LONGEST_ASKED_S) * self._rng.uniform(1, 1.1)
        )

    def _varied(self, pause_s: float) -> float:
        return pause_s * float(self._rng.uniform(0.75, 1.25))


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """How long a response asks to wait, in seconds or until a date; None if it does not.

    now_s: seconds since 1970, for a response that does not say its own time.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text):
        return float(text)
    until = _date(text)
    if until is None:
        return None
    sent = _date(headers.get("date", ""))
    return max(0.0, until.timestamp() - (now_s if sent is None else sent.timestamp()))


def _date(text: str) -> datetime | None:
    try:
        return email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
