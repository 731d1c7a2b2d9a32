"""Where everything comes from that the tasks of a graph do not make themselves: the world, or a log.

A cycle asks its outside, and nothing else, for the time, for what happened since the last cycle, and for
the messages of tasks that do not run. So a live run and a replay differ in their outside only:

| what                       | live (`LiveOutside`)            | recorded (`replay.recorded`)       |
|----------------------------|---------------------------------|------------------------------------|
| the cycle's time           | the clock                       | the log's                          |
| live values, completions   | set by people, done by workers  | the log's control records          |
| messages of a source       | made by the source              | the log's                          |
| background tasks           | a worker thread                 | run at once, given as recorded     |
"""

from __future__ import annotations

import operator
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from flowrun.msgs.message import Message
from flowrun.runtime.clock import Clock
from flowrun.runtime.engine.background import BackgroundTask
from flowrun.runtime.engine.instances import Instance
from flowrun.runtime.engine.record import StepCall
from flowrun.runtime.events import Completion, Dropped, EndOfSource, Event, Set
from flowrun.runtime.graph.plan import Step
from flowrun.runtime.task import CycleTime

__all__ = ["LiveOutside", "Outside"]


class Outside(Protocol):
    """What a cycle asks; see the module."""

    @property
    def background(self) -> Mapping[str, BackgroundTask]:
        """The background tasks that run, by id."""
        ...

    def begin(self, time: CycleTime, start_ns: int) -> Sequence[Event]:
        """Set the time of the cycle that begins, and give what came from outside since the last one, in
        the order in which it is to be applied.

        start_ns: the reading of `ticks_ns` with which the cycle began.
        """
        ...

    def after_sources(self) -> Sequence[Event]:
        """What the sources said of themselves while they ran in this cycle."""
        ...

    def bind(self, step: Step, messages: Sequence[Message]) -> StepCall | None:
        """How a step is called whose task does not run; None if it does."""
        ...


class LiveOutside:
    """The world: a clock, sources that finish and drop, people who set live values, workers.

    clock: gives the cycles' times.
    workers: of the background tasks, by id; added before the first cycle.
    """

    def __init__(self, clock: Clock) -> None:
        self.background: dict[str, BackgroundTask] = {}
        self.woken = threading.Event()
        """Set when something has come."""
        self.due: dict[str, int] = {}
        """By source, when it wants to be called again, in nanoseconds since 1970 UTC."""
        self.left_out: Counter[str] = Counter()
        """By source, how many pictures, or whatever it makes, it has said it left out."""
        self._at = clock.at
        self._controls: deque[Event] = deque()
        self._noted: deque[Event] = deque()

    def begin(self, time: CycleTime, start_ns: int) -> Sequence[Event]:
        time.now_ns = self._at(start_ns)
        if not (self._controls or self._noted or self.background):
            return ()
        events = _drained(self._controls)
        for task_id, task in self.background.items():
            if task.jobs.has_done:
                job = task.jobs.take()
                if job is not None:
                    events.append(Completion(task_id, job.cycle, job.restarts))
        return events + _drained(self._noted)

    def after_sources(self) -> Sequence[Event]:
        return _drained(self._noted) if self._noted else ()

    def bind(self, step: Step, messages: Sequence[Message]) -> StepCall | None:  # noqa: ARG002
        return None

    # -- from sources and people, on any thread --------------------------------------------------

    def set(self, task_id: str, values: dict[str, Any]) -> None:
        """Live values that the next cycle takes."""
        self._controls.append(Set(task_id, values))
        self.woken.set()

    def finish(self, made: Instance) -> None:
        """A source has no more; it is not called again."""
        if made.gate.present:
            made.gate.present = False
            self.due.pop(made.id, None)
            self._noted.append(EndOfSource(made.id))
            self.woken.set()

    def dropped(self, task_id: str, count: int) -> None:
        """A source has left out some of what it makes; `TypeError` if `count` is no whole number."""
        count = operator.index(count)
        self.left_out[task_id] += count
        self._noted.append(Dropped(task_id, count))

    def wake_at(self, task_id: str, time_ns: int) -> None:
        """A source wants to be called at `time_ns`."""
        self.due[task_id] = time_ns


def _drained(events: deque[Event]) -> list[Event]:
    taken = []
    while events:
        taken.append(events.popleft())
    return taken
