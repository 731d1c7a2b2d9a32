"""Which task's pictures take most of a run's log, and how it would take less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from flowrun.runtime.graph.plan import Plan

__all__ = ["LargePictures", "large_pictures"]

_LARGE_BYTES = 256 << 20
"""What a topic must have taken before it is worth a word."""
_LARGE_MB_PER_S = 10.0
_LARGE_SHARE = 0.5
_MB = 1_000_000


class LargePictures(NamedTuple):
    """A task whose pictures are most of the log.

    mb_per_s: what they take, in millions of bytes a second.
    hint: how they would take less.
    """

    task: str
    mb_per_s: float
    hint: str


def large_pictures(
    plan: Plan, picture_bytes: Mapping[str, int], log_bytes: int, duration_s: float
) -> LargePictures | None:
    """The task whose pictures take more than half of the log, and much of the disk each second; None if
    there is none. A camera's own packets do not count.

    picture_bytes: by topic, what pictures that are stored without packets have taken so far.
    log_bytes: what the log has taken in `duration_s`, in all.
    """
    if not picture_bytes or duration_s <= 0:
        return None
    topic, taken = max(picture_bytes.items(), key=lambda it: it[1])
    mb_per_s = taken / _MB / duration_s
    if taken < max(_LARGE_BYTES, _LARGE_SHARE * log_bytes) or mb_per_s < _LARGE_MB_PER_S:
        return None
    slot = next(it for it in plan.slots if it.topic == topic)
    made_again = {
        step.task.id
        for step in plan.steps[plan.source_count :]
        if not step.task.task_class.is_external(step.task.config)
    }
    hints = []
    if slot.task_id in made_again:
        hints.append("`logging: {payload: none}` leaves them out, and a replay makes them again")
    if slot.codec in ("raw", "packets"):  # packets that there are not
        hints.append("`logging: {codec: zstd}` makes drawn ones smaller, and `ffv1` filmed ones")
    if not hints:
        hints.append("a smaller picture, or fewer a second, takes less")
    return LargePictures(slot.task_id, mb_per_s, "; ".join(hints))
