"""What happened when: a lane of counts for each kind of event and each task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.events import Dropped, Failed, Injected, Replaced, Set
from flowrun.runtime.log.message import Topic
from flowrun.runtime.log.slab.format import KEYFRAME_TOPIC, STEPS_TOPIC
from flowrun.runtime.recorded.controls import Controls
from flowrun.runtime.recorded.places import Places, Times, TopicPlaces

__all__ = ["ALERTS", "ANSWERS", "LANES", "joined", "kind_of", "lanes", "named"]

ANSWERS, ALERTS = "PromptResponseMsg", "AlertMsg"
"""Names of the messages that have lanes."""

LANES = (
    "answers",
    "disagreements",
    "alerts",
    "errors",
    "settings",
    "injected",
    "drops",
    "keyframes",
)
"""The kinds of lanes, in the order in which they are shown. "disagreements" are those of shadows with
their tasks, when both had answered; "settings" are the live values that were set, such as a prompt;
"injected" messages that somebody published from outside; "drops" what sources left out, and inputs
that a background task did not see."""

_OF_MESSAGES = {ANSWERS: "answers", ALERTS: "alerts"}
_OF_EVENTS = {
    Failed.kind: "errors",
    Set.kind: "settings",
    Injected.kind: "injected",
    Dropped.kind: "drops",
    Replaced.kind: "drops",
}


def kind_of(topic: Topic) -> str | None:
    """The kind of lane in which the messages of a topic are; None of others."""
    return _OF_MESSAGES.get(topic.schema_name)


def named(topics: Iterable[Topic], schema_name: str | None = None) -> dict[str, Topic]:
    """Topics by their tasks; by task and port where a task has several of them.

    schema_name: only those of this message; None for all.
    """
    found: dict[str, list[Topic]] = {}
    for topic in topics:
        if schema_name in {None, topic.schema_name}:
            found.setdefault(topic.metadata.get("task", topic.name), []).append(topic)
    return {
        task if len(of_task) == 1 else f"{task}.{topic.metadata.get('port', '')}": topic
        for task, of_task in found.items()
        for topic in of_task
    }


def lanes(
    topics: dict[str, Topic],
    places: Places,
    controls: Controls,
    disagreements: Iterable[tuple[str, Times]],
    *,
    from_ns: int,
    to_ns: int,
    bins: int,
) -> dict[str, Any]:
    """The counts of all lanes, by the parts of a span of time.

    disagreements: by shadow, when it disagreed. from_ns, to_ns: the first and the last nanosecond of
    the span. bins: number of its parts.

    `cycles` are the first cycle of each part, of which the last is that after the span; `frames` the
    number of cycles in each part: 0 where nothing came, or nothing was recorded.
    """
    span = to_ns + 1 - from_ns  # in whole numbers: a float does not hold nanoseconds since 1970
    edges = np.array([from_ns + span * at // bins for at in range(bins + 1)], np.uint64)
    steps = places.of(STEPS_TOPIC)
    firsts = np.searchsorted(steps.times, edges, side="left")
    counted: dict[tuple[str, str], Any] = {}
    for kind, task, times, counts in _events(topics, places, controls, disagreements):
        at = np.searchsorted(times, edges, side="left")
        total = at if counts is None else np.concatenate([[0], np.cumsum(counts)])[at]
        key = kind, task
        counted[key] = counted.get(key, 0) + np.diff(total)
    return {
        "cycles": _cycles(steps, firsts),
        "frames": np.diff(firsts).tolist(),
        "lanes": _ordered(counted),
    }


def joined(parts: list[tuple[dict[str, Any], int]]) -> dict[str, Any]:
    """The lanes of several logs, one after the other in time, as one.

    parts: of each, what `lanes` gave for the same span, and its last cycle.
    """
    chosen, _ = parts[-1]
    cycles, keys = np.array(chosen["cycles"]), np.array(chosen.get("keys", ()))
    counts: dict[tuple[str, str], Any] = {}
    for found, last in reversed(parts):
        own = np.array(found["cycles"])
        cycles = np.where(own <= last, own, cycles)
        if len(keys):
            keys = np.where(own[:-1] <= last, found["keys"], keys)
    for found, _ in parts:
        for lane in found["lanes"]:
            key = lane["kind"], lane["task"]
            counts[key] = counts.get(key, 0) + np.array(lane["counts"])
    return {
        "cycles": cycles.tolist(),
        "frames": np.sum([found["frames"] for found, _ in parts], axis=0).tolist(),
        "lanes": _ordered(counts),
        **({"keys": keys.tolist()} if len(keys) else {}),
    }


def _ordered(counts: dict[tuple[str, str], Any]) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "task": task, "counts": counts[kind, task].tolist()}
        for kind, task in sorted(counts, key=lambda key: LANES.index(key[0]))
    ]


def _cycles(steps: TopicPlaces, indexes: NDArray[np.int64]) -> list[int]:
    """The cycles of these step tables; that after the last one, where there are no more."""
    last = len(steps) - 1
    found = steps.cycles(np.minimum(indexes, last)) + (indexes > last)
    return cast("list[int]", np.maximum.accumulate(found).tolist())


def _events(
    topics: dict[str, Topic],
    places: Places,
    controls: Controls,
    disagreements: Iterable[tuple[str, Times]],
) -> Iterator[tuple[str, str, Times, Any]]:
    """Kind of lane, task, and the times of what is in it; what each counts, or None for 1."""
    for schema_name, kind in _OF_MESSAGES.items():
        for name, topic in named(topics.values(), schema_name).items():
            yield kind, name, places.of(topic.name).times, None
    for shadow, times in disagreements:
        if len(times):
            yield "disagreements", shadow, times, None
    for (kind, task), happened in controls.by.items():
        if kind in _OF_EVENTS:
            yield _OF_EVENTS[kind], task, happened.at_ns, happened.counts
    yield "keyframes", "", places.of(KEYFRAME_TOPIC).times, None
