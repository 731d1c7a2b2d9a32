"""What a run's cycles have brought, for those who watch: events, videos, and counts.

It looks at each cycle after its commit, on the cycle's thread, and only while somebody serves the run.
What it keeps is bounded, and nobody who reads it is waited for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from flowrun.msgs.alert import AlertMsg
from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.regions import LinesMsg, ZonesMsg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.broadcast import Series
from flowrun.runtime.events import (
    Dropped,
    EndOfSource,
    Event,
    Failed,
    Injected,
    Replaced,
    Restarted,
    Set,
    SourceState,
    Switched,
)
from flowrun.runtime.live_video import LiveVideo

if TYPE_CHECKING:
    from flowrun.runtime.engine.cycle import Cycle
    from flowrun.runtime.graph.plan import Slot

__all__ = ["Alerted", "Counted", "Detected", "Happened", "Line", "Observed", "Replies"]

_MOST_EVENTS = 1024
_MOST_LINES = 1024
_DURATIONS = 64
"""Powers of two, in nanoseconds."""


class Happened(NamedTuple):
    """Something that happened in a cycle.

    event: without the bytes of an `Injected`, which others would keep from being freed.
    errors: of an error, the task's errors so far.
    size: of an `Injected`, the number of its bytes.
    """

    cycle: int
    event: Event
    errors: int = 0
    size: int = 0


class Detected(NamedTuple):
    """What a task has found in a picture.

    port: where it says so; a task that looks at several cameras has a port for each.
    """

    task: str
    message: DetectionsMsg
    port: str = ""


class Alerted(NamedTuple):
    """An alert that a task has raised."""

    task: str
    message: AlertMsg


class Counted(NamedTuple):
    """What a task has counted in zones of a picture, or on lines across it."""

    task: str
    message: ZonesMsg | LinesMsg


class Line(NamedTuple):
    """A line of the run's log."""

    time_ns: int
    level: str
    task: str
    text: str
    fields: dict[str, Any]


class Replies:
    """The answers of one model so far.

    count: how many.
    tokens: how many tokens they have.
    latency_ms: how long they took in all.
    durations: how many took less than 2^n microseconds and no less than 2^(n - 1), by n.
    """

    __slots__ = ("count", "durations", "latency_ms", "tokens")

    def __init__(self) -> None:
        self.count = self.tokens = 0
        self.latency_ms = 0.0
        self.durations = [0] * _DURATIONS

    def note(self, message: PromptResponseMsg) -> None:
        self.count += 1
        self.tokens += message.tokens
        self.latency_ms += message.latency_ms
        if 0 <= message.latency_ms < math.inf:  # a replay of an older run may have NaN
            self.durations[min(int(message.latency_ms * 1e3).bit_length(), _DURATIONS - 1)] += 1


class Observed:
    """What the cycles of a plan have brought since somebody began to look.

    slots: of the plan.
    keeps_log: whether the run keeps a log; there are no packets without.

    videos: by id, the cameras whose packets the log keeps.
    happened: events of the last cycles.
    detected: the last detections.
    alerts: the last alerts.
    detecting: the tasks that find objects.
    counted: the last counts of zones and lines.
    lines: the last lines of the log.
    errors: number of errors by task.
    restarts: number of restarts by task.
    replies: by task, of those that answer.
    durations: how many cycles took less than 2^n nanoseconds and no less than 2^(n - 1), by n.
    spent_ns: how long all of them took.
    """

    def __init__(self, slots: Sequence[Slot], *, keeps_log: bool) -> None:
        self.videos: Mapping[str, LiveVideo] = {
            slot.task_id: LiveVideo()
            for slot in slots
            if keeps_log and slot.logged and slot.payload and slot.codec == "packets"
        }
        self.happened: Series[Happened] = Series(_MOST_EVENTS)
        self.detected: Series[Detected] = Series(_MOST_EVENTS)
        self.alerts: Series[Alerted] = Series(_MOST_EVENTS)
        self.counted: Series[Counted] = Series(_MOST_EVENTS)
        self.lines: Series[Line] = Series(_MOST_LINES)
        self.errors: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self.durations = [0] * _DURATIONS
        self.spent_ns = 0
        answers = [slot for slot in slots if issubclass(slot.message_type, PromptResponseMsg)]
        self.replies: Mapping[str, Replies] = {slot.task_id: Replies() for slot in answers}
        self._answers = [(slot.index, self.replies[slot.task_id]) for slot in answers]
        self._videos = [
            (slot.index, self.videos[slot.task_id])
            for slot in slots
            if slot.task_id in self.videos and issubclass(slot.message_type, ImageRgb8Msg)
        ]
        self.detecting = [
            slot.task_id for slot in slots if issubclass(slot.message_type, DetectionsMsg)
        ]
        self._detections = [
            (slot.index, slot.task_id, slot.port)
            for slot in slots
            if issubclass(slot.message_type, DetectionsMsg)
        ]
        self._alerting = [
            (slot.index, slot.task_id) for slot in slots if issubclass(slot.message_type, AlertMsg)
        ]
        self._counts = [
            (slot.index, slot.task_id)
            for slot in slots
            if issubclass(slot.message_type, (ZonesMsg, LinesMsg))
        ]

    def look(self, cycle: Cycle) -> None:
        """A cycle has been committed."""
        spent_ns = cycle.ends_ns[-1] - cycle.start_ns if cycle.ends_ns else 0
        self.durations[spent_ns.bit_length()] += 1
        self.spent_ns += spent_ns
        number, messages = cycle.time.cycle, cycle.messages
        if cycle.events:
            self.note(number, cycle.events)
        for index, video in self._videos:
            message = messages[index]
            if message.present:
                video.offer(number, message)  # type: ignore[arg-type]
        for index, replies in self._answers:
            message = messages[index]
            if message.present:
                replies.note(message.view())  # type: ignore[arg-type]
        for index, task, port in self._detections:
            message = messages[index]
            if message.present:
                self.detected.offer(Detected(task, message.view().copy(), port))  # type: ignore[arg-type]
        for index, task in self._alerting:
            message = messages[index]
            if message.present:
                self.alerts.offer(Alerted(task, message.view().copy()))  # type: ignore[arg-type]
        for index, task in self._counts:
            message = messages[index]
            if message.present:
                self.counted.offer(Counted(task, message.view().copy()))  # type: ignore[arg-type]

    def note(self, cycle: int, events: Iterable[Event]) -> None:
        """Something has happened in a cycle."""
        for event in events:
            match event:
                case Failed():
                    self.errors[event.task] += 1
                    self.happened.offer(Happened(cycle, event, self.errors[event.task]))
                case Restarted():
                    self.restarts[event.task] += 1
                    self.happened.offer(Happened(cycle, event))
                case Injected():
                    seen = Happened(cycle, replace(event, data=b""), size=len(event.data))
                    self.happened.offer(seen)
                case Dropped() | EndOfSource() | Replaced() | Set() | SourceState() | Switched():
                    self.happened.offer(Happened(cycle, event))

    def note_line(
        self, time_ns: int, level: str, message: str, name: str, fields: dict[str, Any]
    ) -> None:
        """A line has been logged."""
        self.lines.offer(Line(time_ns, level, name, message, fields))

    def close(self) -> None:
        """The run has ended."""
        for series in (self.happened, self.detected, self.alerts, self.counted, self.lines):
            series.close()
        for video in self.videos.values():
            video.close()
