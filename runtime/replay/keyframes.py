"""Where in a log a replay can begin."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgpack

from flowrun.runtime.engine.keyframes import first_error, unpack_keyframe
from flowrun.runtime.errors import LogError, ReplayError
from flowrun.runtime.log.reader import CycleRecord, Log
from flowrun.runtime.log.slab.format import KEYFRAME_INTERVAL, KEYFRAME_TOPIC, STEPS_TOPIC

__all__ = ["Keyframe", "RecordedKeyframes", "has_run"]

Keyframe = tuple[int, dict[str, dict[str, Any]]]
"""A cycle, and by task what it remembered in front of it; see `keyframe`."""


def has_run(cycle: CycleRecord) -> bool:
    """Whether it is a cycle: log lines behind the last one stand in one without a step table."""
    return any(topic == STEPS_TOPIC for topic, _, _ in cycle.entries)


class RecordedKeyframes:
    """The keyframes of a log, of the tasks that are not `fed`.

    note: told of keyframes at which no replay can begin.
    """

    def __init__(self, log: Log, *, fed: Collection[str], note: Callable[[str], None]) -> None:
        self._log = log
        self._fed = fed
        self._note = note
        interval = log.metadata.get(KEYFRAME_INTERVAL, "0")
        self._interval = int(interval) if interval.isdigit() else 0
        first = next((record.cycle for record in log.cycles() if has_run(record)), None)
        if first is None:
            raise ReplayError(f"{log.path}: the log holds no cycle")
        self.first_cycle: int = first
        """The first cycle of the log."""

    def __iter__(self) -> Iterator[int]:
        """The cycles of those at which a replay can begin. Walks over the whole log."""
        if KEYFRAME_TOPIC in self._log.topics:
            for message in self._log.messages(KEYFRAME_TOPIC):
                if self._read(message.cycle, message.payload) is not None:
                    yield message.cycle

    def first(self) -> Keyframe | None:
        """The first one of the log."""
        for cycle in self:
            return self.before(cycle)
        return None

    def before(self, cycle: int) -> Keyframe | None:
        """The last one at or in front of `cycle`. In the log's first cycle, and in those whose
        number is a multiple of the interval, is where they are."""
        if not self._interval:
            return None
        last = cycle - cycle % self._interval
        for candidate in [*range(last, self.first_cycle, -self._interval), self.first_cycle]:
            try:
                entries = self._log[candidate].entries if candidate <= cycle else []
            except LogError:
                continue
            for topic, _, payload in entries:
                if topic == KEYFRAME_TOPIC:
                    tasks = self._read(candidate, payload)
                    if tasks is not None:
                        return candidate, tasks
        return None

    def _read(self, cycle: int, payload: memoryview) -> dict[str, dict[str, Any]] | None:
        try:
            tasks = unpack_keyframe(payload)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            self._note(f"the keyframe of cycle {cycle} cannot be read: {error}")
            return None
        tasks = {id_: frozen for id_, frozen in tasks.items() if id_ not in self._fed}
        failed = first_error(tasks)
        if failed is not None:
            self._note(
                f"no replay can begin at the keyframe of cycle {cycle}: freeze of task "
                f"{failed[0]!r} failed: {failed[1]}"
            )
            return None
        return tasks
