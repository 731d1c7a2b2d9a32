"""Which of several servers is asked: the one with the fewest questions, of those that answer.

All tasks of this process that ask the same address count together, so that cameras share a farm evenly.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from flowrun.tasks.backends.backoff import Backoff
from flowrun.tasks.backends.chat import ServerError
from flowrun.tasks.backends.client import ServerClient

__all__ = ["Farm", "Member", "Standing"]


class Standing(IntEnum):
    """How willingly a server is asked."""

    ANSWERS = 0
    """It has answered, or nothing else is known."""
    MAY_ANSWER = 1
    """It has failed, and its rest is over; or it has failed to answer something else."""
    RESTS = 2
    """It has failed just now: asked only where all others have failed too."""
    WANTS_REST = 3
    """It has asked to be left alone."""


@dataclass(slots=True)
class _Load:
    """What a server has to do for this process."""

    outstanding: int = 0
    turn: int = 0
    """When it was asked last, counted in questions."""


_LOADS: dict[str, _Load] = {}
_LOCK = threading.Lock()
_TURNS = itertools.count(1)


@dataclass(slots=True, eq=False)
class Member:
    """A server of a farm.

    is_back: whether it has listed its models since it failed, and may be asked again like any other.
    """

    client: ServerClient
    backoff: Backoff
    is_back: bool = False
    load: _Load = field(init=False)

    def __post_init__(self) -> None:
        with _LOCK:
            self.load = _LOADS.setdefault(self.client.url, _Load())

    def standing(self, asked: Any) -> Standing:
        """asked: the question's words."""
        backoff = self.backoff
        if backoff.error is None or self.is_back:
            return Standing.ANSWERS
        if not backoff.rests or not backoff.is_about(asked):
            return Standing.MAY_ANSWER
        return Standing.WANTS_REST if backoff.is_wanted else Standing.RESTS

    def note_answer(self) -> bool:
        """It has answered; whether that is news."""
        was_failing = self.backoff.error is not None
        self.backoff.note_success()
        self.is_back = False
        return was_failing

    def note_failure(self, error: ServerError, asked: Any) -> bool:
        """It has failed to answer `asked`; whether that is news. Of questions that fail together only
        the first one counts: its rest is not the longer for them."""
        was_failing, rests = self.backoff.error is not None, self.backoff.rests
        if not rests or self.is_back or not self.backoff.is_about(asked):
            self.backoff.note_failure(error, asked)
        self.is_back = False
        return not was_failing


class Farm:
    """Gives each question to a server, and counts how many each has."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    @property
    def is_one(self) -> bool:
        return len(self.members) == 1

    def take(self, asked: Any, tried: Collection[Member]) -> Member | None:
        """The server to ask next, which has one question more from now on; None if none is left.

        Of those not among `tried`, the first by its standing, then by the number of its questions, then
        by when it was asked last. One that rests is asked only after others have failed.
        """
        with _LOCK:
            ranks = [
                (standing, member.load.outstanding, member.load.turn, number)
                for number, member in enumerate(self.members)
                if member not in tried
                and (standing := member.standing(asked)) <= self._last_resort(tried)
            ]
            if not ranks:
                return None
            member = self.members[min(ranks)[-1]]
            member.load.outstanding += 1
            member.load.turn = next(_TURNS)
            return member

    @staticmethod
    def _last_resort(tried: Collection[Member]) -> Standing:
        return Standing.RESTS if tried else Standing.MAY_ANSWER

    @staticmethod
    def give_back(member: Member) -> None:
        """Its question is answered, or has failed."""
        with _LOCK:
            member.load.outstanding -= 1

    def returning(self) -> list[Member]:
        """Those that have failed and whose rest is over: worth to be asked for their models."""
        return [
            it
            for it in self.members
            if it.backoff.error is not None and not it.is_back and not it.backoff.rests
        ]

    def errors(self) -> Iterable[ServerError]:
        """The last failures of those that do not answer."""
        return (it.backoff.error for it in self.members if it.backoff.error is not None)
