"""How each server of a farm is doing, for those who look at the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flowrun.runtime.task import HealthState, ServerHealth

__all__ = ["ServersHealth"]


@dataclass(slots=True)
class _Known:
    since_s: float
    seen_s: float
    state: HealthState = "unused"
    detail: str = ""
    outstanding: int = 0
    answers: int = 0
    failures: int = 0


class ServersHealth:
    """What is known of each server, by its address without secrets. Its methods may be called from any
    thread.

    names: the addresses.
    now_s: a clock that only goes forward.
    """

    def __init__(
        self, names: Iterable[str], *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._now_s = now_s
        self._known = {name: _Known(now_s(), now_s()) for name in names}
        self._lock = threading.Lock()

    def note_asked(self, name: str) -> None:
        """It got a question."""
        with self._lock:
            self._known[name].outstanding += 1

    def note_done(self, name: str) -> None:
        """The question is answered, or has failed."""
        with self._lock:
            self._known[name].outstanding -= 1

    def note_ready(self, name: str) -> None:
        """It lists its models."""
        self._note(name, "ok")

    def note_answer(self, name: str) -> None:
        """It has answered a question."""
        self._note(name, "ok", answers=1)

    def note_failure(self, name: str, text: str, *, by_question: bool = False) -> None:
        """It could not be reached, or has not answered a question."""
        self._note(name, "failing", text, failures=int(by_question))

    def _note(
        self,
        name: str,
        state: HealthState,
        detail: str = "",
        *,
        answers: int = 0,
        failures: int = 0,
    ) -> None:
        with self._lock:
            known, now_s = self._known[name], self._now_s()
            if known.state != state:
                known.state, known.since_s = state, now_s
            known.seen_s, known.detail = now_s, detail
            known.answers += answers
            known.failures += failures

    def health(self, *, at_s: float | None = None) -> dict[str, ServerHealth]:
        """By address, how each is doing.

        at_s: the moment for which it is said; now, if not given.
        """
        with self._lock:
            now_s = self._now_s() if at_s is None else at_s
            return {
                name: ServerHealth(
                    state=known.state,
                    for_s=round(max(0.0, now_s - known.since_s), 1),
                    seen_s=round(max(0.0, now_s - known.seen_s), 1),
                    detail=known.detail,
                    outstanding=known.outstanding,
                    answers=known.answers,
                    failures=known.failures,
                )
                for name, known in self._known.items()
            }
