"""The picture that a message is about: of those upstream of its task, the one of its time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from typing import TYPE_CHECKING

from flowrun.msgs.image import ImageRgb8Msg

if TYPE_CHECKING:
    from flowrun.runtime.graph.plan import Plan
    from flowrun.runtime.log.reader import Log

__all__ = ["PictureTimes", "nearest_pictures", "pictures_before"]


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


def nearest_pictures(plan: Plan) -> dict[str, str]:
    """For each task, the topic of the pictures that reach it over the fewest connections."""
    found: dict[str, str] = {}
    distance: dict[str, int] = {}
    for step in plan.steps:
        best: tuple[int, str] | None = None
        for argument in step.arguments:
            if not argument.port.is_input or argument.slot is None:
                continue
            slot = plan.slots[argument.slot]
            if issubclass(slot.message_type, ImageRgb8Msg):
                candidate = (0, slot.topic)
            elif slot.task_id in found:
                candidate = (distance[slot.task_id] + 1, found[slot.task_id])
            else:
                continue
            best = candidate if best is None else min(best, candidate)
        if best is not None:
            distance[step.task.id], found[step.task.id] = best
    return found


class PictureTimes:
    """In which cycles of a log there are pictures of which time.

    topics: of pictures; the others are passed over. start, end: the cycles that are looked at.
    """

    def __init__(
        self, log: Log, topics: Collection[str], *, start: int | None = None, end: int
    ) -> None:
        self._cycles: dict[tuple[str, int], list[int]] = {}
        for record in log.cycles(start, end):
            for topic, tov_ns, _ in record.entries:
                if topic in topics:
                    self._cycles.setdefault((topic, tov_ns), []).append(record.cycle)

    def last(self, topic: str, tov_ns: int, cycle: int) -> int | None:
        """The cycle of the last picture of that time at or before `cycle`; None without one."""
        cycles = self._cycles.get((topic, tov_ns), [])
        place = bisect_right(cycles, cycle)
        return cycles[place - 1] if place else None
