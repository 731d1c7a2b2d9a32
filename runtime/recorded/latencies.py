"""How long steps and answers took, and how often cycles came, over a span of time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgpack
import numpy as np

from flowrun.runtime.log.message import Topic
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import STEP_TASKS, STEPS_TOPIC
from flowrun.runtime.recorded.lanes import ANSWERS, named
from flowrun.runtime.recorded.places import Place, Places

__all__ = ["latencies", "latency_ms", "steps_ms"]

_LOOKED_AT = 8
"""Of the messages of a part, this number is read: the page plots a run of any length at once."""


def latencies(log: Log, places: Places, *, from_ns: int, to_ns: int, bins: int) -> dict[str, Any]:
    """By the parts of a span of time: `at_ns`, where each begins; `rate_hz`, of cycles; by task
    `steps_ms`, the median of how long its steps took, and `answers_ms`, of its answers. None where there
    is nothing.

    from_ns, to_ns: the first and the last nanosecond of the span. bins: number of its parts. What is
    read of a part is a sample of it, and was not checked.
    """
    span = max(1, to_ns + 1 - from_ns)
    edges = [from_ns + span * at // bins for at in range(bins + 1)]
    steps = places.of(STEPS_TOPIC)
    at = np.searchsorted(steps.times, np.array(edges, np.uint64), side="left")
    tasks = log.metadata.get(STEP_TASKS, "").split()
    taken = [
        [steps_ms(_payload(places, steps.place(it)), tasks) for it in _sample(*ends)]
        for ends in pairwise(at.tolist())
    ]
    found = {
        task: [_median([step[task] for step in of_part if task in step]) for of_part in taken]
        for task in tasks
    }
    answers = {
        name: _answers(places, topic, edges)
        for name, topic in named(log.topics.values(), ANSWERS).items()
    }
    lengths = [max(1, end - begin) / 1e9 for begin, end in pairwise(edges)]
    return {
        "at_ns": edges[:-1],
        "rate_hz": [
            round(count / length, 2)
            for count, length in zip(np.diff(at).tolist(), lengths, strict=True)
        ],
        "steps_ms": {task: it for task, it in found.items() if any(ms is not None for ms in it)},
        "answers_ms": {
            task: it for task, it in answers.items() if any(ms is not None for ms in it)
        },
    }


def steps_ms(payload: memoryview, tasks: list[str]) -> dict[str, float]:
    """How long the step of each task took, of the payload of a step table; empty where it is none."""
    try:
        ticks = msgpack.unpackb(payload)["ticks_ns"]
        took = np.diff(np.frombuffer(ticks, "<u8").astype(np.int64)) / 1e6
    except (KeyError, ValueError, TypeError, msgpack.UnpackException):
        return {}
    return dict(zip(tasks, took.round(3).tolist(), strict=False))


def _answers(places: Places, topic: Topic, edges: list[int]) -> list[float | None]:
    found = places.of(topic.name)
    at = np.searchsorted(found.times, np.array(edges, np.uint64), side="left").tolist()
    return [
        _median(
            [
                ms
                for it in _sample(begin, end)
                if (ms := latency_ms(_payload(places, found.place(it)))) is not None
            ]
        )
        for begin, end in pairwise(at)
    ]


def latency_ms(payload: memoryview) -> float | None:
    """How long an answer took, of its payload; None where that is none."""
    try:
        ms = msgpack.unpackb(payload)["latency_ms"]
    except (KeyError, ValueError, TypeError, msgpack.UnpackException):
        return None
    return float(ms) if isinstance(ms, (int, float)) and np.isfinite(ms) else None


def _payload(places: Places, place: Place) -> memoryview:
    return places.payload_at(place) if places.cycle_at(place) >= 0 else memoryview(b"")


def _sample(begin: int, end: int) -> list[int]:
    """At most `_LOOKED_AT` numbers from `begin` on and less than `end`, evenly."""
    count = end - begin
    if count <= _LOOKED_AT:
        return list(range(begin, end))
    return [begin + count * it // _LOOKED_AT for it in range(_LOOKED_AT)]


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 3) if values else None
