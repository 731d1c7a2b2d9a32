"""One instance per key and process, however many tasks ask for it: several cameras, one model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

__all__ = ["Asked", "Shared", "SharedModel"]

T = TypeVar("T")


@dataclass(slots=True)
class _Entry(Generic[T]):
    making: threading.Lock = field(default_factory=threading.Lock)
    value: T | None = None
    users: int = 0


class Shared(Generic[T]):
    """Things that are expensive to make.

    end: called when the last user has released one.
    """

    def __init__(self, end: Callable[[T], None] = lambda _: None) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._entries: dict[Hashable, _Entry[T]] = {}

    def acquire(self, key: Hashable, make: Callable[[], T]) -> T:
        """The one thing of `key`: the first caller makes it, others wait. `release` gives it back.
        What `make` raises is raised here, and the next caller tries again."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
        try:
            with entry.making:
                if entry.value is None:
                    entry.value = make()
                return entry.value
        except BaseException:
            self.release(key)
            raise

    def release(self, key: Hashable) -> None:
        """The caller no longer uses the thing of `key`."""
        with self._lock:
            entry = self._entries[key]
            entry.users -= 1
            if entry.users:
                return
            del self._entries[key]
        if entry.value is not None:
            self._end(entry.value)


class Asked(Protocol):
    """A question to a model."""

    @property
    def joins(self) -> Hashable:
        """Questions with the same may be answered together; one with None is answered alone."""


M = TypeVar("M")
Q = TypeVar("Q", bound=Asked)
A = TypeVar("A")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Q, A]):
    question: Q
    max_batch: int
    answers: Sequence[A] = ()
    """The one answer, once it has come."""
    error: Exception | None = None


class SharedModel(Generic[M, Q, A]):
    """A loaded model that several threads ask. Those who wait while it answers are answered
    together, as many as each of them allows.

    answers: the model's answers to several questions, in their order.
    """

    def __init__(self, model: M, answers: Callable[[Sequence[Q]], Sequence[A]]) -> None:
        self.model = model
        self._answers = answers
        self._busy = threading.Lock()
        self._waiting: list[_Waiting[Q, A]] = []

    def answer(self, question: Q, *, max_batch: int) -> A:
        """The answer to `question`, which is computed with at most `max_batch` - 1 others.

        If a batch fails, each of its questions is asked alone, so that only those who are at fault
        get an error.
        """
        mine = _Waiting[Q, A](question, max_batch)
        self._waiting.append(mine)  # atomic, as is taking away
        while True:
            with self._busy:  # its holder answers for those who wait
                if mine.error is not None:
                    raise mine.error
                if mine.answers:
                    return mine.answers[0]
                some = self._batch(mine)
                try:
                    self._answer_some(some)
                finally:  # Ctrl-C leaves the others their turn
                    for item in some:
                        if item is mine or item.answers or item.error is not None:
                            self._waiting.remove(item)

    def together(self, questions: Sequence[Q]) -> list[A]:
        """The answers to several questions of one task, in their order. Those that may be joined are
        computed together, and with no others: the same questions give the same answers."""
        groups: dict[Hashable, list[int]] = {}
        for number, question in enumerate(questions):
            key = question.joins
            groups.setdefault((number,) if key is None else (None, key), []).append(number)
        found: dict[int, A] = {}
        with self._busy:
            for numbers in groups.values():
                answers = self._answers([questions[number] for number in numbers])
                found |= zip(numbers, answers, strict=True)
        return [found[number] for number in range(len(questions))]

    def _batch(self, first: _Waiting[Q, A]) -> list[_Waiting[Q, A]]:
        """`first`, and others who wait and may be joined with it and with each other."""
        some, most = [first], first.max_batch
        joins = first.question.joins
        for item in list(self._waiting) if joins is not None else ():
            if item is first or item.question.joins != joins:
                continue
            if len(some) < min(most, item.max_batch):
                some.append(item)
                most = min(most, item.max_batch)
        return some

    def _answer_some(self, some: list[_Waiting[Q, A]]) -> None:
        try:
            answers = self._answers([item.question for item in some])
        except Exception as error:  # noqa: BLE001  # raised by who asked
            if len(some) == 1:
                some[0].error = error
                return
            for item in some:
                self._answer_some([item])
            return
        for item, answer in zip(some, answers, strict=True):
            item.answers = (answer,)
