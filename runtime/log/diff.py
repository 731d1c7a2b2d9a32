"""Two runs of a graph -> the first message in which they differ.

Compared are the messages of the tasks and what came from outside (`/flowrun/control`), cycle by
cycle. Never compared: log lines, step tables, records that repeat earlier ones, and fields that the
schema calls measurements. Nor, without `times`, what names a run of another partition.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flowrun.msgs.difference import differing_field
from flowrun.runtime.errors import LogError
from flowrun.runtime.events import RESTATED
from flowrun.runtime.log.message import LogMessage, Topic
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CONTROL_TOPIC, KEYFRAME_TOPIC, LOG_TOPIC, STEPS_TOPIC

__all__ = ["LogComparison", "LogDifference", "compare_logs"]

_MEASURED = "A measurement of the run"
"""How the description of a measured field begins in the schema of a message class."""

_OF_ONE_RUN = {"OriginMsg": frozenset({"run", "time_ns", "crc", "gap_run"})}
"""By schema, the fields that name a run or hold its times: those of two live runs always differ."""

_Cycle = tuple[int, int, dict[str, list[LogMessage]]]
"""Number, time, and the compared messages by topic."""


@dataclass(frozen=True, slots=True)
class LogDifference:
    """A message in which two logs differ.

    field: which field of it, "time_ns", "tov_ns", or "" for the message as a whole.
    first, second: both values, as text.
    """

    cycle: int
    topic: Topic
    field: str
    first: str
    second: str

    def text(self, *, first: str = "first", second: str = "second") -> str:
        """Where, and both values, under these names of the logs."""
        of = self.topic.metadata
        where = f"topic {self.topic.name}"
        if "task" in of and "port" in of:
            where = f"task {of['task']!r}, port {of['port']!r}"
        what = f", field {self.field!r}" if self.field else ""
        return f"cycle {self.cycle}, {where}{what}:\n  {first}: {self.first}\n  {second}: {self.second}"


@dataclass(frozen=True, slots=True)
class LogComparison:
    """identical: how many messages were the same, up to the difference; None: no difference."""

    identical: int
    difference: LogDifference | None


def compare_logs(
    first: Log,
    second: Log,
    *,
    times: bool = False,
    progress: Callable[[int], None] | None = None,
) -> LogComparison:
    """Compare up to the first difference.

    times: compare the cycles' times and the messages' times of validity too. Two live runs never
        have the same; a run of recorded times, as tests have, does.
    progress: called with the time of each cycle that has been compared.
    """
    topics = {**second.topics, **first.topics}
    measured = {
        name: _measured(topic)
        | (frozenset() if times else _OF_ONE_RUN.get(topic.schema_name, frozenset()))
        for name, topic in topics.items()
    }
    same = 0
    for one, other in _paired(first, second):
        cycle, time_ns, messages = one
        if progress is not None:
            progress(time_ns)
        _, other_time_ns, others = other
        for topic in [*messages, *(name for name in others if name not in messages)]:
            mine, theirs = messages.get(topic, []), others.get(topic, [])
            for place in range(max(len(mine), len(theirs))):
                pair = (
                    mine[place] if place < len(mine) else None,
                    theirs[place] if place < len(theirs) else None,
                )
                found = None
                if times and time_ns != other_time_ns and None not in pair:
                    found = "time_ns", str(time_ns), str(other_time_ns)
                found = found or _difference(*pair, measured[topic], times=times)
                if found is not None:
                    return LogComparison(same, LogDifference(cycle, topics[topic], *found))
                same += 1
    return LogComparison(same, None)


def _paired(first: Log, second: Log) -> Iterator[tuple[_Cycle, _Cycle]]:
    """Both logs' cycles of the same number; one that is missing has no messages."""
    ones, others = _cycles(first), _cycles(second)
    one, other = next(ones, None), next(others, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[0] < other[0]):
            assert one is not None
            yield one, (*one[:2], {})
            one = next(ones, None)
        elif one is None or other[0] < one[0]:
            yield (*other[:2], {}), other
            other = next(others, None)
        else:
            yield one, other
            one, other = next(ones, None), next(others, None)


def _cycles(log: Log) -> Iterator[_Cycle]:
    current: _Cycle | None = None
    for message in log.messages(
        [name for name in log.topics if name not in (STEPS_TOPIC, KEYFRAME_TOPIC, LOG_TOPIC)]
    ):
        if _repeats(message):
            continue
        if current is None or current[0] != message.cycle:
            if current is not None:
                yield current
            current = (message.cycle, message.time_ns, {})
        current[2].setdefault(message.topic, []).append(message)
    if current is not None:
        yield current


def _repeats(message: LogMessage) -> bool:
    """Whether a message is a record that repeats what an earlier one said."""
    if message.topic != CONTROL_TOPIC:
        return False
    with contextlib.suppress(LogError):
        return message.fields.get("kind") in RESTATED
    return False


def _difference(
    first: LogMessage | None, second: LogMessage | None, measured: frozenset[str], *, times: bool
) -> tuple[str, str, str] | None:
    if first is None or second is None:
        return "", _presence(first), _presence(second)
    if times and first.tov_ns != second.tov_ns:
        return "tov_ns", str(first.tov_ns), str(second.tov_ns)
    if first.payload == second.payload:
        return None
    try:
        before, now = first.fields, second.fields
    except LogError:
        return "", f"{len(first.payload)} bytes", f"{len(second.payload)} other bytes"
    # Where only the bytes differ nothing does: a picture's hold its time, which is no field of it.
    found = differing_field(
        {name: value for name, value in before.items() if name not in measured},
        {name: value for name, value in now.items() if name not in measured},
    )
    return None if found is None else (found.name, found.before, found.now)


def _presence(message: LogMessage | None) -> str:
    return "no message" if message is None else f"a message of {len(message.payload)} bytes"


def _measured(topic: Topic) -> frozenset[str]:
    """The fields of the topic's messages that its schema calls measurements."""
    if topic.schema_encoding != "jsonschema":
        return frozenset()
    try:
        properties = json.loads(topic.schema)["properties"]
        return frozenset(
            field
            for field, described in properties.items()
            if str(described.get("description", "")).startswith(_MEASURED)
        )
    except (ValueError, KeyError, AttributeError, TypeError):
        return frozenset()  # another writer's schema
