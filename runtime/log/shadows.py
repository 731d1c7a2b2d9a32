"""What shadows said, next to what the tasks said whose shadows they are, about the same frames."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import SHADOWS

__all__ = ["Both", "Pairing", "agree", "pairs_of", "shadows_of"]

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


class Pairing:
    """Finds the answers about the same frames, of a task and its shadow, as they come."""

    def __init__(self) -> None:
        self._waiting: tuple[OrderedDict[int, str], OrderedDict[int, str]] = (
            OrderedDict(),
            OrderedDict(),
        )

    def add(self, frame_cycle: int, said: str, *, is_shadow: bool) -> Both | None:
        """An answer has come; both, if the other one has."""
        own, other = self._waiting[is_shadow], self._waiting[not is_shadow]
        there = other.pop(frame_cycle, None)
        if there is None:
            own[frame_cycle] = said
            if len(own) > _MOST_WAITING:
                own.popitem(last=False)
            return None
        return Both(frame_cycle, there, said) if is_shadow else Both(frame_cycle, said, there)


def shadows_of(log: Log) -> dict[str, str]:
    """The shadows of a run: id -> that of its task."""
    try:
        found = json.loads(log.metadata.get(SHADOWS, "{}"))
    except ValueError:
        return {}
    items: Any = found.items() if isinstance(found, dict) else ()
    return {made: of for made, of in items if isinstance(of, str)}


def pairs_of(log: Log, shadow: str, of: str) -> Iterator[Both]:
    """What a task and its shadow said about the same frames, as the later of both came."""
    topics = {
        name: topic.metadata["task"] == shadow
        for name, topic in log.topics.items()
        if topic.metadata.get("task") in {shadow, of}
        and topic.schema_name == PromptResponseMsg.schema_name
    }
    pairing = Pairing()
    for message in log.messages(topics) if topics else ():
        fields = message.fields
        said, cycle = str(fields.get("response", "")), fields.get("frame_cycle", message.cycle)
        both = pairing.add(cycle, said, is_shadow=topics[message.topic])
        if both is not None:
            yield both
