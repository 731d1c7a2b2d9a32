"""Whether backends answer, for those who look at a run: what questions have shown, and servers that
are asked while somebody looks. Nothing of it has a part in what a task publishes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from flowrun.runtime.task import Health, HealthState
from flowrun.tasks.backends.servers_health import ServersHealth
from flowrun.tasks.models.question import ModelError

__all__ = ["BackendHealth", "Probe"]


class Probe(Protocol):
    """Asks a server whether it is there, without a question."""

    @property
    def every_s(self) -> float:
        """How long what is known of the server counts as new: it is not asked meanwhile."""

    def ask(self) -> None:
        """Ask it once; raises `ModelError` if it does not answer as it should. Takes seconds at most."""

    def cancel(self) -> None:
        """Let an `ask` raise soon; from any thread."""


@dataclass(slots=True)
class _Known:
    state: HealthState = "unused"
    since_s: float = 0.0
    seen_s: float = 0.0
    detail: str = ""
    by_question: bool = False
    """Whether a question has shown it: to be reachable does not disprove that."""


class BackendHealth:
    """What is known of each backend of a task. Its methods may be called from any thread.

    names: all backends that the task may have, in the order in which they are shown.
    order: gives those that it asks now.
    probes: of those that are servers which run without us.
    servers: of those that are farms, what is known of each server.
    now_s: a clock that only goes forward.
    """

    def __init__(
        self,
        names: Iterable[str],
        *,
        order: Callable[[], Sequence[str]],
        probes: Mapping[str, Probe],
        servers: Mapping[str, ServersHealth] = MappingProxyType({}),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._order = order
        self._probes = probes
        self._servers = servers
        self._now_s = now_s
        self._known = {name: _Known(since_s=now_s(), seen_s=now_s()) for name in names}
        self._lock = threading.Lock()
        self._asking: threading.Thread | None = None
        self._asked: Probe | None = None
        self._ended_s: float | None = None

    # -- what shows it ---------------------------------------------------------------------------

    def note_loading(self, name: str, detail: str = "") -> None:
        """It gets ready; `detail` says what it does. Without one it is no news that a backend that has
        failed is tried again."""
        if detail or self._known[name].state != "failing":
            self._note(name, "loading", detail)

    def note_ready(self, name: str) -> None:
        """It is loaded, or a server lists its models."""
        self._note(name, "ok")

    def note_answer(self, name: str) -> None:
        """It has answered a question."""
        self._note(name, "ok", by_question=True)

    def note_failure(self, name: str, text: str, *, by_question: bool) -> None:
        """It could not be reached or loaded, or has not answered a question."""
        self._note(name, "failing", text, by_question=by_question)

    def _note(
        self, name: str, state: HealthState, detail: str = "", *, by_question: bool = False
    ) -> None:
        with self._lock:
            known, now_s = self._known[name], self._now_s()
            if known.state != state:
                known.state, known.since_s = state, now_s
            known.seen_s, known.detail, known.by_question = now_s, detail, by_question

    # -- for those who look ----------------------------------------------------------------------

    def health(self) -> dict[str, Health]:
        """By name, how each is doing."""
        used = self._order()
        with self._lock:
            now_s = self._now_s() if self._ended_s is None else self._ended_s
            return {
                name: Health(
                    state=known.state,
                    for_s=round(max(0.0, now_s - known.since_s), 1),
                    seen_s=round(max(0.0, now_s - known.seen_s), 1),
                    detail=known.detail,
                    used=name in used,
                    servers=self._servers[name].health(at_s=self._ended_s)
                    if name in self._servers
                    else {},
                )
                for name, known in self._known.items()
            }

    def ask(self) -> None:
        """Somebody looks: ask servers of which nothing new is known, on a thread. One whose answers
        fail is left to its questions."""
        with self._lock:
            if self._asking is not None or self._ended_s is not None:
                return
            now_s = self._now_s()
            due = [
                name
                for name, probe in self._probes.items()
                if self._is_due(self._known[name], now_s, probe.every_s)
            ]
            if not due:
                return
            self._asking = threading.Thread(
                target=self._ask, args=(due,), name="flowrun-backend-health", daemon=True
            )
            self._asking.start()

    @staticmethod
    def _is_due(known: _Known, now_s: float, every_s: float) -> bool:
        if known.state == "unused":
            return True
        failed = known.state == "failing" and known.by_question
        return known.state != "loading" and not failed and now_s - known.seen_s >= every_s

    def _ask(self, names: list[str]) -> None:
        try:
            for name in names:
                before_s = self._known[name].seen_s
                text = self._answer_of(self._probes[name])
                if self._ended_s is not None:
                    break
                if self._known[name].seen_s != before_s:
                    continue  # a question has shown more meanwhile
                if text is None:
                    self.note_ready(name)
                else:
                    self.note_failure(name, text, by_question=False)
        finally:
            with self._lock:
                self._asking = None

    def _answer_of(self, probe: Probe) -> str | None:
        """What is wrong with a server; None if nothing is."""
        with self._lock:
            if self._ended_s is not None:
                return None
            self._asked = probe
        try:
            probe.ask()
        except ModelError as error:
            return str(error)
        finally:
            with self._lock:
                self._asked = None
        return None

    def close(self) -> None:
        """Ask no more, and keep what is known."""
        with self._lock:
            self._ended_s = self._now_s()
            asking, asked = self._asking, self._asked
            if asked is not None:
                asked.cancel()
        if asking is not None:
            asking.join(_CLOSE_S)


_CLOSE_S = 1.0
"""How long `close` waits for a server that is being asked."""
