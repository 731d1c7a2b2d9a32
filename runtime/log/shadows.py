"""What shadows said, next to what the tasks said whose shadows they are, about the same frames."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.events import Dropped, Failed, Replaced, unpack
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CONTROL_TOPIC, SHADOWS

__all__ = ["Both", "Compared", "Pairing", "agree", "answers_of", "compared", "shadows_of"]

_T = TypeVar("_T")

_MOST_WAITING = 1024
"""Frames of which one answer is known, at most."""


@dataclass(frozen=True, slots=True)
class Both:
    """Two answers about one frame.

    frame_cycle: the cycle in which the frame was taken.
    said: by the task. shadow_said: by its shadow.
    """

    frame_cycle: int
    said: str
    shadow_said: str

    @property
    def agree(self) -> bool:
        """Whether they are the same."""
        return agree(self.said, self.shadow_said)


def agree(one: str, other: str) -> bool:
    """Whether two answers are the same, but for upper case and white space."""
    return one.casefold().split() == other.casefold().split()


class Pairing(Generic[_T]):
    """Finds the answers about the same frames, of a task and its shadow, as they come."""

    def __init__(self) -> None:
        self._waiting: tuple[OrderedDict[int, _T], OrderedDict[int, _T]] = (
            OrderedDict(),
            OrderedDict(),
        )

    def add(self, frame_cycle: int, answer: _T, *, is_shadow: bool) -> tuple[_T, _T] | None:
        """An answer has come; that of the task and that of its shadow, once both have."""
        own, other = self._waiting[is_shadow], self._waiting[not is_shadow]
        there = other.pop(frame_cycle, None)
        if there is None:
            own[frame_cycle] = answer
            if len(own) > _MOST_WAITING:
                own.popitem(last=False)
            return None
        return (there, answer) if is_shadow else (answer, there)


def shadows_of(log: Log) -> dict[str, str]:
    """The shadows of a run: id -> that of its task."""
    try:
        found = json.loads(log.metadata.get(SHADOWS, "{}"))
    except ValueError:
        return {}
    items: Any = found.items() if isinstance(found, dict) else ()
    return {made: of for made, of in items if isinstance(of, str)}


def answers_of(log: Log, shadow: str, of: str) -> dict[str, bool]:
    """The topics of the answers of a task and its shadow, and whether it is the shadow's."""
    return {
        name: topic.metadata["task"] == shadow
        for name, topic in log.topics.items()
        if topic.metadata.get("task") in {shadow, of}
        and topic.schema_name == PromptResponseMsg.schema_name
    }


@dataclass(slots=True)
class Compared:
    """How often a shadow agreed with the task whose shadow it is.

    answered: number of frames about which the task has answered. compared: of these, those about which
        the shadow has, too. disagreed: those about which both said different things.
    left_out: of the others, how many the shadow has left out by cause, such as "replaced" by a newer one
        while it was busy, "hourly budget", or "failed".
    """

    shadow: str
    of: str
    answered: int = 0
    compared: int = 0
    disagreed: list[Both] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def unanswered(self) -> int:
        """Frames that the shadow had not come to when the run ended."""
        return max(0, self.answered - self.compared - sum(self.left_out.values()))


def compared(log: Log) -> list[Compared]:
    """What each shadow of a run said, next to its task."""
    found = {shadow: Compared(shadow, of) for shadow, of in shadows_of(log).items()}
    pairings = {shadow: Pairing[str]() for shadow in found}
    answers = {
        name: topic.metadata.get("task", "")
        for name, topic in log.topics.items()
        if topic.schema_name == PromptResponseMsg.schema_name
    }
    wanted = [*answers, *({CONTROL_TOPIC} & log.topics.keys())]
    for message in log.messages(wanted) if found else ():
        if message.topic == CONTROL_TOPIC:
            _note_left_out(found, message)
            continue
        task, fields = answers[message.topic], message.fields
        said, cycle = str(fields.get("response", "")), fields.get("frame_cycle", message.cycle)
        for it in found.values():
            if task not in (it.shadow, it.of):
                continue
            it.answered += task == it.of
            texts = pairings[it.shadow].add(cycle, said, is_shadow=task == it.shadow)
            if texts is not None:
                both = Both(cycle, *texts)
                it.compared += 1
                it.disagreed += [] if both.agree else [both]
    return list(found.values())


def _note_left_out(found: dict[str, Compared], message: LogMessage) -> None:
    try:
        event = unpack(message.fields)
    except ValueError:
        return
    it = found.get(event.task)
    if it is None:
        return
    match event:
        case Dropped():
            cause, count = event.cause, event.count
        case Replaced():
            cause, count = event.kind, 1
        case Failed():
            cause, count = "failed", 1
        case _:
            return
    it.left_out[cause] = it.left_out.get(cause, 0) + count
