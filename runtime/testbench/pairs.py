"""What was recorded, and what is made in its place now: pairs of messages, and their pictures."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message

if TYPE_CHECKING:  # who reads answers that are known needs no graph
    from flowrun.runtime.graph.plan import Plan
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.replay.compare import Difference, Recorded

__all__ = ["Pair", "PictureAt", "fields_of", "pictures_before", "plain", "with_pictures"]

_MOST_NUMBERS = 4096
"""Numbers of an array that are kept; of a larger one its type and shape."""


@dataclass(frozen=True, slots=True)
class PictureAt:
    """Where a log has the picture that a message is about.

    topic: of pictures, such as "/cam0/image". cycle: the one in which the picture was published.
    """

    topic: str
    cycle: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A message of a recorded run, and what a replay made in its place.

    run: the run, as the job names it.
    variant: the job's.
    cycle: the cycle of the message. time_ns: its time, in nanoseconds since 1970 UTC.
    task, port: the output; "" for the port of an error.
    kind: the name of the message's class, such as "PromptResponseMsg"; "error" for errors, after which
        the run went on.
    recorded: the fields of the recorded message, as `plain` gives them, without measurements such as
        `latency_ms` and pixels; None where the log holds none. now: those of the message that was made
        instead; None where none was.
    difference: how they differ; None where they do not, and where the log has no such topic.
    picture: the picture that the message is about; None where none is known.
    shown: JPEG files, by "recorded" and "replayed", of a message that is a picture and differs.
    tov_ns: time of validity of the message.
    """

    run: Path
    variant: str
    cycle: int
    time_ns: int
    task: str
    port: str
    kind: str
    recorded: dict[str, Any] | None
    now: dict[str, Any] | None
    difference: Difference | None
    picture: PictureAt | None = None
    shown: Mapping[str, bytes] = field(default_factory=dict)
    tov_ns: int = 0


def fields_of(recorded: Recorded, made: Message) -> dict[str, Any]:
    """The fields of a recorded message, decoded as the class of `made`."""
    try:
        return made.decode_fields(recorded.payload)
    except ValueError:
        return {"bytes": f"{len(recorded.payload)} bytes that are not a {type(made).__name__}"}


def plain(
    fields: Mapping[str, Any] | None, *, but: Iterable[str] = (), most: int = _MOST_NUMBERS
) -> dict[str, Any] | None:
    """Fields as JSON and msgpack hold them; arrays of up to `most` numbers as lists, larger ones by type
    and shape.

    but: names that are left out.
    """
    if fields is None:
        return None
    left_out = frozenset(but)
    return {
        name: value if value is None or isinstance(value, (str, int)) else _plain(value, most)
        for name, value in fields.items()
        if name not in left_out
    }


def _plain(value: Any, most: int) -> Any:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, np.ndarray):
        if value.size <= most and value.dtype.kind in "biuf":
            return _plain(value.tolist(), most)
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, (bytes, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_plain(item, most) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item, most) for name, item in value.items()}
    return value


def pictures_before(plan: Plan) -> dict[tuple[str, str], list[str]]:
    """For each output, as task and port, the topics of the pictures that reach it, the likeliest first:
    that of the input after which a port is named, as "left" for "left_answer", then over the fewest
    connections."""
    reaching: dict[str, dict[str, int]] = {}
    found: dict[tuple[str, str], list[str]] = {}
    for step in plan.steps:
        task = step.task.id
        near: dict[str, int] = {}
        by_input: dict[str, dict[str, int]] = {}
        for argument in step.arguments:
            if not argument.port.is_input or argument.slot is None:
                continue
            slot = plan.slots[argument.slot]
            is_picture = issubclass(slot.message_type, ImageRgb8Msg)
            own = {slot.topic: 0} if is_picture else reaching.get(slot.task_id, {})
            by_input[argument.port.name] = own
            for topic, distance in own.items():
                near[topic] = min(distance + 1, near.get(topic, distance + 1))
        reaching[task] = near
        ordered = sorted(near, key=lambda topic: near[topic])
        for slot in plan.slots:
            if slot.task_id != task:
                continue
            first = max(
                (name for name in by_input if slot.port.startswith(f"{name}_")), key=len, default=""
            )
            named = sorted(by_input.get(first, {}), key=lambda topic: near[topic])
            found[task, slot.port] = list(dict.fromkeys([*named, *ordered]))
    return found


def with_pictures(
    pairs: Sequence[Pair], log: Log, topics: Mapping[tuple[str, str], list[str]]
) -> list[Pair]:
    """`pairs` with the picture that each is about: the one with the message's time of validity, at or
    before its cycle.

    topics: what `pictures_before` gives.
    """
    there = {name for name, topic in log.topics.items() if topic.is_picture}
    wanted = {name for pair in pairs for name in topics.get((pair.task, pair.port), ())} & there
    if not wanted:
        return list(pairs)
    at: dict[tuple[str, int], list[int]] = {}
    last = max(pair.cycle for pair in pairs)
    for record in log.cycles(end=last + 1):
        for topic, tov_ns, _ in record.entries:
            if topic in wanted:
                at.setdefault((topic, tov_ns), []).append(record.cycle)
    return [replace(pair, picture=_picture(pair, topics, at)) for pair in pairs]


def _picture(
    pair: Pair,
    topics: Mapping[tuple[str, str], list[str]],
    at: Mapping[tuple[str, int], list[int]],
) -> PictureAt | None:
    for topic in topics.get((pair.task, pair.port), ()):
        cycles = at.get((topic, pair.tov_ns), ())
        before = bisect_right(cycles, pair.cycle)
        if before:
            return PictureAt(topic, cycles[before - 1])
    return None
