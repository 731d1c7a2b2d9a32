"""A part of a run as a file that replays, and the test that does so."""

from __future__ import annotations

import re
from typing import Any

from flowrun.runtime.errors import LogError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CODEC, KEYFRAME_TOPIC, STEPS_TOPIC
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.recorded.frames import message_of
from flowrun.runtime.recorded.places import Places

__all__ = ["begin_of_clip", "pytest_lines"]


def begin_of_clip(log: Log, places: Places, cycle: int) -> int:
    """The cycle with which a clip must begin so that a replay of it can show `cycle`.

    Before `cycle` there must be a keyframe, which says what the tasks remembered, and before that the
    inputs of the jobs that were in flight there, and the key frames of their pictures and of those that
    come next. The first cycle of the log where it has no such keyframe.
    """
    keyframes = places.of(KEYFRAME_TOPIC)
    steps = places.of(STEPS_TOPIC)
    first = steps.near(0)
    number = keyframes.before(cycle)
    if not number:
        return first
    begin = keyframes.cycle(number - 1)
    try:
        tasks = message_of(log, KEYFRAME_TOPIC, begin).fields.get("tasks", {})
    except LogError:
        return first
    needed = {begin, *_inputs_in_flight(tasks)}
    packets = [name for name, topic in log.topics.items() if topic.metadata.get(CODEC) == "packets"]
    keys = [_key_of(log, places, topic, at) for topic in packets for at in needed]
    return max(first, min([*needed, *keys]))


def _inputs_in_flight(tasks: dict[str, Any]) -> list[int]:
    """The cycles of the inputs of all jobs that a keyframe holds."""
    return [
        job[0]
        for frozen in tasks.values()
        if isinstance(frozen, dict)
        for job in frozen.get("jobs", [])
    ]


def _key_of(log: Log, places: Places, topic: str, cycle: int) -> int:
    """The cycle of the key frame that the first picture at or after `cycle` needs; `cycle` where
    there is none, or it needs none."""
    found = places.of(topic)
    number = found.before(cycle - 1)
    if number == len(found):
        return cycle
    try:
        own = StoredPicture.parse(message_of(log, topic, found.cycle(number)).payload).own
    except (LogError, ValueError):
        return cycle
    key: int = own.get("key", cycle)
    return min(cycle, key)


def pytest_lines(file_name: str, run_id: str, first: int, last: int) -> str:
    """The two lines of pytest that replay a clip and compare what `first` to `last` made.

    file_name: of the clip, next to the test.
    """
    name = re.sub(r"\W+", "_", run_id).strip("_").lower()
    return (
        f"def test_{name}_cycles_{first}_to_{last}(assert_replays):\n"
        f"    assert_replays({file_name!r}, start={first}, to={last})\n"
    )
