"""What a condition may read: inputs, functions and names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeAlias

from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.message import Message
from flowrun.msgs.regions import LinesMsg, ZonesMsg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.wording import listed, nearest

__all__ = ["COMPUTING", "INPUTS", "NAMES", "READS", "ConditionError", "Messages", "Seen", "said"]

INPUTS: Mapping[str, type[Message]] = {
    "answer": PromptResponseMsg,
    "detections": DetectionsMsg,
    "zones": ZonesMsg,
    "lines": LinesMsg,
    "message": Message,
}
"""What a condition may read: the inputs of `Alert`, and the messages that they take."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Messages: TypeAlias = Mapping[str, Message]


class ConditionError(ValueError):
    """A condition is wrong, or what it computes fails: what, where in it, and what instead."""


@dataclass(slots=True)
class Seen:
    """What a condition reads: the functions and names of its language.

    messages: by input, the newest message, of those in which one has come.
    at_ns: the time that `hour` and its like are of.
    zone: the time zone of these.
    """

    messages: Messages
    at_ns: int = 0
    zone: tzinfo = UTC

    def names(self) -> dict[str, Any]:
        """The names of the language, with their values."""
        at = datetime.fromtimestamp(self.at_ns // 1_000_000_000, UTC).astimezone(self.zone)
        return {"hour": at.hour, "minute": at.minute, "weekday": _DAYS[at.weekday()]}

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions of the language."""
        return {**{name: getattr(self, name) for name in READS}, **COMPUTING}

    def messages_of(self, inputs: Sequence[str]) -> dict[str, Message]:
        """Of these inputs, the messages that have come."""
        return {name: self.messages[name] for name in inputs if name in self.messages}

    # -- answers ---------------------------------------------------------------------------------

    def said(self, word: str, *words: str) -> bool:
        """Whether one of the words is in the answer: whole words, whatever their case."""
        return said(self._text("said"), _texts("said", (word, *words)))

    def number(self) -> float:
        """The first number in the answer; no number, which is neither more nor less than any, where it
        has none."""
        found = _NUMBER.search(self._text("number"))
        return math.nan if found is None else float(found[0])

    # -- objects ---------------------------------------------------------------------------------

    def count(self, *labels: str, score: float = 0.0) -> int:
        """How many objects were found: of these classes, or of all."""
        return sum(1 for _ in self._scores("count", labels, score))

    def best(self, *labels: str) -> float:
        """The highest score of these classes, or of all; 0 if none is found."""
        return max(self._scores("best", labels, 0.0), default=0.0)

    # -- zones and lines -------------------------------------------------------------------------

    def inside(self, zone: str, *labels: str) -> int:
        """How many objects are in the zone: of these classes, or of all."""
        zones, at = self._region("inside", "zones", zone)
        if at is None:
            return 0
        if not labels:
            return int(zones.counts[at])
        return sum(zones.labels[at].get(label, 0) for label in _texts("inside", labels))

    def stay_s(self, zone: str) -> float:
        """How long the track that has been in the zone for longest has, in seconds; 0 without one."""
        zones, at = self._region("stay_s", "zones", zone)
        return 0.0 if at is None else max(zones.inside_s[at], default=0.0)

    def entered(self, zone: str) -> int:
        """How many tracks have come into the zone since the last message."""
        zones, at = self._region("entered", "zones", zone)
        return 0 if at is None else len(zones.entered[at])

    def left(self, zone: str) -> int:
        """How many tracks have gone from the zone since the last message."""
        zones, at = self._region("left", "zones", zone)
        return 0 if at is None else len(zones.left[at])

    def crossed(self, line: str, direction: str | None = None) -> int:
        """How many tracks have crossed the line since the last message: "in", "out", or both."""
        if direction not in {None, "in", "out"}:
            raise ConditionError(f"crossed: a direction is 'in' or 'out'; got {direction!r}")
        lines, at = self._region("crossed", "lines", line)
        if at is None:
            return 0
        both = {"in": len(lines.went_in[at]), "out": len(lines.went_out[at])}
        return sum(both.values()) if direction is None else both[direction]

    # -- what they read --------------------------------------------------------------------------

    def _text(self, function: str) -> str:
        return str(self._message("answer", function).response)

    def _message(self, name: str, _function: str) -> Any:
        return self.messages[name]

    def _scores(self, function: str, labels: Sequence[str], least: float) -> Iterator[float]:
        """The scores of the objects of `labels` that have at least the score; 1 of those without."""
        wanted = _texts(function, labels)
        if isinstance(least, bool) or not isinstance(least, (int, float)):
            raise ConditionError(f"{function}: score is a number; got {least!r}")
        found = self._message("detections", function)
        for label, given in zip(found.labels, found.scores.tolist(), strict=True):
            score = 1.0 if math.isnan(given) else given
            if (not wanted or label in wanted) and score >= least:
                yield score

    def _region(self, function: str, name: str, region: str) -> tuple[Any, int | None]:
        """The message, and which of its entries is about the zone or the line of that name."""
        _texts(function, (region,))
        message = self._message(name, function)
        names = list(message.names)
        if region in names:
            return message, names.index(region)
        if names:  # the check of a condition has none
            kind = name[:-1]
            raise ConditionError(
                f"{function}: unknown {kind} {region!r}; {name}: {listed(names)}"
                f"{nearest(region, names)}"
            )
        return message, None


READS = {
    "said": "answer", "number": "answer",
    "count": "detections", "best": "detections",
    "inside": "zones", "stay_s": "zones", "entered": "zones", "left": "zones",
    "crossed": "lines",
}  # fmt: skip
"""By function, the input that it reads."""
COMPUTING: dict[str, Callable[..., Any]] = {
    "abs": abs, "all": all, "any": any, "len": len, "max": max, "min": min, "round": round, "sum": sum,
    "lower": lambda text: str(text).lower(),
}  # fmt: skip
NAMES = ("hour", "minute", "weekday")


def said(text: str, words: Sequence[str]) -> bool:
    """Whether one of the words is in the text: whole words, whatever their case."""
    options = "|".join(re.escape(word) for word in words)
    return re.search(rf"(?<!\w)(?:{options})(?!\w)", text, re.IGNORECASE) is not None


def _texts(function: str, values: Sequence[Any]) -> Sequence[str]:
    for value in values:
        if not isinstance(value, str) or not value:
            raise ConditionError(f"{function} takes texts, such as {function}('x'); got {value!r}")
    return values
