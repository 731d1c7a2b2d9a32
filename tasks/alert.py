"""`Alert`: says so when an answer or a detector's objects are what somebody waits for."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat

from flowrun.msgs.alert import AlertMsg
from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig

__all__ = ["Alert"]

_NS_PER_S = 1_000_000_000
_Word = Annotated[str, Field(min_length=1)]
_Words: TypeAlias = _Word | Annotated[tuple[_Word, ...], Field(min_length=1)] | None


class Alert(Task):
    """Raise an alert when an answer has a word, or when objects of a class are found.

    `contains` looks at answers, `labels` at detections; give the one that is connected, or both. An
    alert is an `AlertMsg` about the frame in which it was seen, and a warning in the log. Times are
    those of the frames, so a replay raises the same alerts.
    """

    class Config(TaskConfig):
        contains: Live[_Words] = None
        """A word or words, of which one must be in the answer: whole words, whatever their case."""
        labels: Live[_Words] = None
        """A class or classes, of which one object must be found."""
        threshold: Live[Annotated[float, Field(ge=0, le=1)]] = 0.0
        """Objects with a score below this do not count; those of a model that gives no scores do."""
        for_s: Live[NonNegativeFloat] = 0.0
        """How long it must be so, in all answers or detections meanwhile, before there is an alert."""
        cooldown_s: Live[NonNegativeFloat] = 60.0
        """How long after an alert the next one may come at the earliest, while it goes on and when it
        comes again."""
        severity: Literal["info", "warning", "critical"] = "warning"
        """How grave it is; the page and the log show it."""
        text: str | None = None
        """What the alert says; null: the answer, or what was found."""

    example_config = MappingProxyType({"contains": "person"})

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._since_ns: dict[str, int] = {}
        """By input, since when it has been so."""
        self._alerted_ns: int | None = None
        self._warned_of: set[str] = set()

    @classmethod
    def check(cls, config: TaskConfig, _graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        if config.contains is None and config.labels is None:
            text = "nothing to look for: give contains (words of answers) or labels (of objects)"
            yield "contains", text

    def process(
        self,
        ctx: Context,
        answer: Input[PromptResponseMsg] | None,
        detections: Input[DetectionsMsg] | None,
        alert: Output[AlertMsg],
    ) -> None:
        config, text = self.config, None
        for name, message, wanted in (
            ("answer", answer, config.contains),
            ("detections", detections, config.labels),
        ):
            if message is None:
                continue
            if wanted is None:
                self._warn(ctx, name)
                continue
            words = (wanted,) if isinstance(wanted, str) else wanted
            found = (
                _said(message, words)
                if isinstance(message, PromptResponseMsg)
                else _seen(message, words, config.threshold)
            )
            if not self._is_due(name, message.tov_ns, is_so=found is not None) or text is not None:
                continue
            text = config.text or found
            assert text is not None
            alert.text, alert.severity = text, config.severity
            alert.frame_id, alert.frame_cycle = message.frame_id, message.frame_cycle
            alert.publish(tov_ns=message.tov_ns)
            line = f"alert: {text}"
            ctx.log.warning(line, severity=config.severity)

    def _is_due(self, name: str, now_ns: int, *, is_so: bool) -> bool:
        if not is_so:
            self._since_ns.pop(name, None)
            return False
        since_ns = min(self._since_ns.setdefault(name, now_ns), now_ns)  # a source may begin again
        self._since_ns[name] = since_ns
        if now_ns - since_ns < self.config.for_s * _NS_PER_S:
            return False
        last_ns = self._alerted_ns
        if last_ns is not None and 0 <= now_ns - last_ns < self.config.cooldown_s * _NS_PER_S:
            return False
        self._alerted_ns = now_ns
        return True

    def _warn(self, ctx: Context, name: str) -> None:
        if name not in self._warned_of:
            self._warned_of.add(name)
            key = "contains" if name == "answer" else "labels"
            ctx.log.warning("nothing is looked for in an input", input=name, set=key)

    def freeze(self) -> Any:
        return {"since_ns": self._since_ns, "alerted_ns": self._alerted_ns}

    def thaw(self, state: Any) -> None:
        self._since_ns, self._alerted_ns = dict(state["since_ns"]), state["alerted_ns"]


def _said(answer: PromptResponseMsg, words: tuple[str, ...]) -> str | None:
    """The answer, if one of the words is in it."""
    options = "|".join(re.escape(word) for word in words)
    found = re.search(rf"(?<!\w)(?:{options})(?!\w)", answer.response, re.IGNORECASE)
    return None if found is None else answer.response


def _seen(detections: DetectionsMsg, labels: tuple[str, ...], threshold: float) -> str | None:
    """What was found of the classes, such as "2 person, 1 car"."""
    found = Counter(
        label
        for label, score in zip(detections.labels, detections.scores.tolist(), strict=True)
        if label in labels and (math.isnan(score) or score >= threshold)
    )
    return ", ".join(f"{number} {label}" for label, number in found.items()) or None
