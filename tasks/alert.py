"""`Alert`: says so when what models answered, found or counted is what somebody waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, NonNegativeFloat, field_validator

from flowrun.msgs.alert import AlertMsg
from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.message import Message
from flowrun.msgs.regions import LinesMsg, ZonesMsg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.find import dotted
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.runtime.wording import listed
from flowrun.tasks.conditions.condition import Condition
from flowrun.tasks.conditions.language import INPUTS, ConditionError, Seen
from flowrun.tasks.conditions.template import Template
from flowrun.tasks.rules import Called, Found, FoundOut, Rule, Said, When, is_function

__all__ = ["Alert"]

_NS_PER_S = 1_000_000_000
_Word = Annotated[str, Field(min_length=1)]
_Words: TypeAlias = _Word | Annotated[tuple[_Word, ...], Field(min_length=1)] | None


class Clip(TaskConfig):
    """What is kept of an alert: a film, what was said meanwhile, and a description."""

    before_s: NonNegativeFloat = 5.0
    """Seconds of the film before the alert's frame; it begins with the key frame at or before that."""
    after_s: NonNegativeFloat = 5.0
    """Seconds of the film after it."""


class Alert(Task):
    """Raise an alert when a condition holds: a word in an answer, objects of a class, who is in a zone.

    `contains` looks at answers and `labels` at detections. `when` looks at all of it: an expression
    such as `count('person') > 2 and hour >= 22`, or a Python function, `my_module:f`;
    docs/alerts.md describes both. Of each input the newest message counts; where a condition reads
    several, nothing is raised before each has come. What comes at `message`, of any class, counts in
    its own cycle alone.

    An alert is an `AlertMsg` about the frame in which it was seen, and a warning in the log. With
    `clip`, the run keeps a folder of each, `clips/<cycle>-<task>` in the run's own: the film, copied
    from the recorded packets, the messages of its time, a picture, and an e-mail to send. Times are
    those of the frames, so a replay raises the same alerts; it keeps no clips.
    """

    class Config(TaskConfig):
        when: Live[str | None] = None
        """An expression, or a function as module:name. A function cannot be set while the graph runs."""
        contains: Live[_Words] = None
        """A word or words, of which one must be in the answer: whole words, whatever their case."""
        labels: Live[_Words] = None
        """A class or classes, of which one object must be found."""
        threshold: Live[Annotated[float, Field(ge=0, le=1)]] = 0.0
        """Objects with a score below this do not count for `labels`; those of a model that gives no
        scores do."""
        hold_s: Live[NonNegativeFloat] = 0.0
        """How long it must be so, in all messages meanwhile, before there is an alert."""
        cooldown_s: Live[NonNegativeFloat] = 60.0
        """How long after an alert the next one may come at the earliest, while it goes on and when it
        comes again."""
        severity: Literal["info", "warning", "critical"] = "warning"
        """How grave it is; the page and the log show it."""
        text: str | None = None
        """What the alert says; an expression in braces is its value: "{count('person')} at the door".
        null: the answer, what was found, or what the condition read."""
        clip: Clip | None = None
        """Keep a film of each alert: {before_s, after_s}; null: none."""
        timezone: str = "UTC"
        """Whose `hour`, `minute` and `weekday` a condition reads, such as Europe/Berlin."""

        @field_validator("when")
        @classmethod
        def _is_expression(cls, when: str | None) -> str | None:
            if when is not None and not is_function(when):
                Condition(when)
            return when

        @field_validator("text")
        @classmethod
        def _is_template(cls, text: str | None) -> str | None:
            if text is not None:
                Template(text)
            return text

        @field_validator("timezone")
        @classmethod
        def _is_known(cls, name: str) -> str:
            _zone(name)
            return name

    example_config = MappingProxyType({"contains": "person"})

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._rules: list[Rule] = []
        self._template: Template | None = None
        self._zone: tzinfo = UTC
        self._held: dict[str, Message] = {}
        """By input, the newest message, where a rule reads several."""
        self._since_ns: dict[str, int] = {}
        """By rule, since when it has been so."""
        self._alerted_ns: int | None = None
        self._warned_of: set[str] = set()

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        if config.when is None and config.contains is None and config.labels is None:
            yield (
                "contains",
                (
                    "nothing to look for: give contains (words of answers), labels (of objects) or "
                    "when (a condition)"
                ),
            )
        if config.when is not None and is_function(config.when):
            try:
                Called(config.when.strip(), graph_dir)
            except UsageError as error:
                yield "when", str(error)

    @classmethod
    def check_inputs(
        cls, config: TaskConfig, inputs: Mapping[str, type[Message]]
    ) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        read: dict[str, frozenset[str]] = {
            "contains": frozenset({"answer"} if config.contains is not None else ()),
            "labels": frozenset({"detections"} if config.labels is not None else ()),
        }
        if config.when is not None and not is_function(config.when):
            condition = Condition(config.when)
            read["when"] = condition.inputs
            yield from (("when", text) for text in condition.problems_with(inputs))
        if config.text is not None:
            read["text"] = Template(config.text).inputs
        for key, names in read.items():
            lacking = [name for name in INPUTS if name in names and name not in inputs]
            if lacking:
                kinds = listed(f"{name} ({INPUTS[name].__name__})" for name in lacking)
                yield key, f"it reads {kinds}, and nothing is connected there"

    @classmethod
    def code(cls, config: TaskConfig) -> Iterator[str]:
        assert isinstance(config, cls.Config)
        if config.when is not None and is_function(config.when):
            yield dotted(config.when.strip()).rpartition(".")[0]

    def start(self, ctx: Context) -> None:
        self._make_rules(ctx)

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        when = self.config.when
        if "when" in changed and when is not None and is_function(when):
            raise UsageError(
                "when: a function is named in the graph file, not while the graph runs"
            )
        self._make_rules(ctx)

    def _make_rules(self, ctx: Context) -> None:
        config = self.config
        self._zone = _zone(config.timezone)
        self._template = None if config.text is None else Template(config.text)
        self._rules = []
        if config.contains is not None:
            self._rules.append(Said(_as_words(config.contains)))
        if config.labels is not None:
            self._rules.append(Found(_as_words(config.labels), config.threshold))
        if config.when is not None:
            when = config.when.strip()
            self._rules.append(Called(when, ctx.graph_dir) if is_function(when) else When(when))

    def process(
        self,
        ctx: Context,
        answer: Input[PromptResponseMsg] | None,
        detections: Input[DetectionsMsg] | None,
        zones: Input[ZonesMsg] | None,
        lines: Input[LinesMsg] | None,
        message: Input[Message] | None,
        alert: Output[AlertMsg],
    ) -> None:
        given = (answer, detections, zones, lines, message)
        came = {name: it for name, it in zip(INPUTS, given, strict=True) if it is not None}
        self._warn_of_unread(ctx, came)
        raised = False
        for rule in self._rules:
            about = next((came[name] for name in rule.inputs if name in came), None)
            if about is None:
                continue
            seen = Seen(self._known(came, rule), about.tov_ns, self._zone)
            found = rule.read(seen)
            if not self._is_due(rule.name, about.tov_ns, is_so=found is not None) or raised:
                continue
            assert found is not None
            raised = True
            self._raise(ctx, alert, rule, about, found, seen)
        self._hold(came)

    def _known(self, came: Mapping[str, Message], rule: Rule) -> dict[str, Message]:
        """What the rule, and the text of the alert, may read."""
        names = set(rule.inputs) | (self._template.inputs if self._template is not None else set())
        known = {**self._held, **came}
        return {name: known[name] for name in names if name in known}

    def _hold(self, came: Mapping[str, Message]) -> None:
        """Keep what a rule that reads several inputs may read when another one comes."""
        several = [set(it.inputs) for it in self._rules if len(it.inputs) > 1]
        wanted = set().union(*several, self._template.inputs if self._template is not None else ())
        for name in (wanted - {"message"}) & came.keys():
            self._held[name] = came[name].copy()

    def _raise(
        self,
        ctx: Context,
        alert: AlertMsg,
        rule: Rule,
        about: Message,
        found: FoundOut,
        seen: Seen,
    ) -> None:
        config, text = self.config, found.text
        template = self._template
        if template is not None and template.inputs <= seen.messages.keys():
            text = template.fill(seen)
        alert.text, alert.severity, alert.rule = text, config.severity, rule.text
        alert.values = found.values
        alert.frame_id = getattr(about, "frame_id", -1)
        alert.frame_cycle = getattr(about, "frame_cycle", ctx.cycle)
        alert.since_ns = self._since_ns[rule.name]
        if config.clip is not None:
            alert.clip_from_ns = max(0, about.tov_ns - round(config.clip.before_s * _NS_PER_S))
            alert.clip_to_ns = about.tov_ns + round(config.clip.after_s * _NS_PER_S)
        alert.publish(tov_ns=about.tov_ns)
        line = f"alert: {text}"
        ctx.log.warning(line, severity=config.severity)

    def _is_due(self, name: str, now_ns: int, *, is_so: bool) -> bool:
        if not is_so:
            self._since_ns.pop(name, None)
            return False
        since_ns = min(self._since_ns.setdefault(name, now_ns), now_ns)  # a source may begin again
        self._since_ns[name] = since_ns
        if now_ns - since_ns < self.config.hold_s * _NS_PER_S:
            return False
        last_ns = self._alerted_ns
        if last_ns is not None and 0 <= now_ns - last_ns < self.config.cooldown_s * _NS_PER_S:
            return False
        self._alerted_ns = now_ns
        return True

    def _warn_of_unread(self, ctx: Context, came: Mapping[str, Message]) -> None:
        read = {name for rule in self._rules for name in rule.inputs}
        if self._template is not None:
            read |= self._template.inputs
        for name in came.keys() - read - self._warned_of:
            self._warned_of.add(name)
            ctx.log.warning(
                "nothing is looked for in an input", input=name, set=_KEYS.get(name, "when")
            )

    def freeze(self) -> Any:
        held = {
            name: [it.tov_ns, {field: getattr(it, field) for field in it.defaults}]
            for name, it in self._held.items()
        }
        return {"since_ns": self._since_ns, "alerted_ns": self._alerted_ns, "held": held}

    def thaw(self, state: Any) -> None:
        self._since_ns, self._alerted_ns = dict(state["since_ns"]), state["alerted_ns"]
        self._held = {}
        for name, (tov_ns, fields) in state["held"].items():
            made = INPUTS[name](**fields)
            made.publish(tov_ns=tov_ns)
            self._held[name] = made


_KEYS = {"answer": "contains", "detections": "labels"}


def _as_words(words: str | tuple[str, ...]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else words


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConditionError(
            f"unknown time zone {name!r}; write one such as Europe/Berlin or America/New_York "
            "(a machine without a database of them needs: pip install tzdata)"
        ) from None
