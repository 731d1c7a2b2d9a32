"""A backend and its fallbacks: the first healthy one answers.

One that fails is left alone for 1 s, doubled with each failure in a row up to 30 s, then asked
whether it is healthy, and tried again. Pauses follow the cycles' time, as all that decides about a
message must: a replay then asks the same backends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from flowrun.runtime.wording import mask_urls
from flowrun.tasks.backends.backend import Backend
from flowrun.tasks.backends.health import BackendHealth
from flowrun.tasks.models.question import Answer, ModelError, Question

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["Chain"]

T = TypeVar("T")

_FIRST_PAUSE_NS = 1_000_000_000
_LONGEST_PAUSE_NS = 30_000_000_000


@dataclass(slots=True)
class _Member:
    name: str
    backend: Backend
    is_loaded: bool = False
    failures: int = 0
    retry_ns: int = 0

    def note_failure(self, now_ns: int) -> None:
        pause_ns = min(_FIRST_PAUSE_NS << min(self.failures, 10), _LONGEST_PAUSE_NS)
        self.failures += 1
        self.retry_ns = now_ns + pause_ns

    def may_answer(self, now_ns: int) -> bool:
        if not self.failures:
            return True
        if now_ns < self.retry_ns:
            return False
        if self.is_loaded and not self.backend.healthy():
            self.note_failure(now_ns)
            return False
        return True


class Chain:
    """Asks backends by name, in an order that each call gives.

    make: the backend of a name, not yet loaded; called once a name, when it is first needed.
    log: gets a line for each failure and each recovery.
    health: gets what questions show of each.
    """

    def __init__(
        self, make: Callable[[str], Backend], log: FilteringBoundLogger, health: BackendHealth
    ) -> None:
        self._make = make
        self._log = log
        self._health = health
        self._members: dict[str, _Member] = {}
        self._cancelled = False
        self._thawed: dict[str, list[int]] = {}
        """The state of backends that have not been needed since: a replay may lack some of them."""

    def load(self, names: Sequence[str], *, now_ns: int) -> None:
        """Load the backends of `names`. Raises only if none of them can be loaded."""
        failed: dict[str, Exception] = {}
        for name in names:
            member = self._member(name)
            try:
                self._load(member)
            except Exception as error:  # noqa: BLE001  # a library may raise anything
                failed[name] = error
                self._note_failure(member, error, now_ns, next_=_after(name, names))
        if len(failed) == len(names):
            raise _all_failed(failed)

    def answer(
        self, question: Question, names: Sequence[str], *, now_ns: int
    ) -> tuple[str, Answer]:
        """The answer of the first of `names` that gives one, and its name. Raises when all failed:
        what the backend raised, if there is one only."""
        return self._first(lambda backend: backend.answer(question), names, now_ns)

    def answers(
        self, questions: Sequence[Question], names: Sequence[str], *, now_ns: int
    ) -> tuple[str, list[Answer]]:
        """The answers of the first of `names` that gives them all, and its name; otherwise as
        `answer`."""
        return self._first(lambda backend: backend.answers(questions), names, now_ns)

    def _first(
        self, ask: Callable[[Backend], T], names: Sequence[str], now_ns: int
    ) -> tuple[str, T]:
        failed: dict[str, Exception] = {}
        resting = []
        for name in names:
            member = self._member(name)
            if len(names) > 1 and not member.may_answer(now_ns):
                resting.append(member)
                continue
            answer = self._try(member, ask, now_ns, failed, names)
            if answer is not None:
                return member.name, answer
        for member in resting:  # nobody else is left
            answer = self._try(member, ask, now_ns, failed, names)
            if answer is not None:
                return member.name, answer
        raise _all_failed(failed)

    @property
    def where(self) -> str:
        """What the models of this process that are loaded compute on, for people."""
        loaded = [member for member in self._members.values() if member.is_loaded]
        return ", ".join(f"{it.backend.where} ({it.name})" for it in loaded if it.backend.where)

    def cancel(self) -> None:
        """Let a question that is being answered fail soon, as any later one does; from any thread."""
        self._cancelled = True
        for member in list(self._members.values()):
            member.backend.cancel()

    def close(self) -> None:
        """Close every backend that was made."""
        while self._members:
            _, member = self._members.popitem()
            try:
                member.backend.close()
            except Exception as error:  # noqa: BLE001  # the others must get their turn
                self._log.warning("backend not closed", backend=member.name, error=_text(error))

    def freeze(self) -> dict[str, list[int]]:
        """Who has failed, and until when it rests."""
        return {
            name: [member.failures, member.retry_ns]
            for name, member in sorted(self._members.items())
            if member.failures
        } | self._thawed

    def thaw(self, state: dict[str, Any]) -> None:
        """Take up what `freeze` gave."""
        for member in self._members.values():
            member.failures, member.retry_ns = state.get(member.name, (0, 0))
        self._thawed = {name: rest for name, rest in state.items() if name not in self._members}

    def _member(self, name: str) -> _Member:
        if name not in self._members:
            member = _Member(name, self._make(name))
            member.failures, member.retry_ns = self._thawed.pop(name, (0, 0))
            self._members[name] = member
        return self._members[name]

    def _load(self, member: _Member) -> None:
        if not member.is_loaded:
            self._health.note_loading(member.name)
            member.backend.load()
            member.is_loaded = True
            self._health.note_ready(member.name)

    def _try(
        self,
        member: _Member,
        ask: Callable[[Backend], T],
        now_ns: int,
        failed: dict[str, Exception],
        names: Sequence[str],
    ) -> T | None:
        try:
            if self._cancelled:
                raise ModelError("the question was withdrawn")
            self._load(member)
            answer = ask(member.backend)
        except Exception as error:
            if self._cancelled:
                raise
            failed[member.name] = error
            left = [name for name in _after(member.name, names) if name not in failed]
            self._note_failure(member, error, now_ns, next_=left)
            return None
        self._health.note_answer(member.name)
        if member.failures:
            self._log.info("backend answers again", backend=member.name)
            member.failures = 0
        return answer

    def _note_failure(
        self, member: _Member, error: Exception, now_ns: int, *, next_: Sequence[str]
    ) -> None:
        member.note_failure(now_ns)
        self._health.note_failure(member.name, _text(error), by_question=member.is_loaded)
        if next_:
            self._log.warning(
                "backend failed", backend=member.name, error=_text(error), next=next_[0]
            )


def _after(name: str, names: Sequence[str]) -> Sequence[str]:
    return names[list(names).index(name) + 1 :]


def _all_failed(failed: dict[str, Exception]) -> Exception:
    """What to raise: the only failure as it is, or one text of all."""
    if len(failed) == 1:
        return next(iter(failed.values()))
    texts = [f"{name}: {_text(error)}" for name, error in failed.items()]
    return ModelError("no backend answers; " + "; ".join(texts))


def _text(error: Exception) -> str:
    text = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
    return mask_urls(text)
