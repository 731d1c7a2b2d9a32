"""Names a task whose call takes longer than its `deadline_ms`, while it hangs.

A thread looks at the run a few times within the shortest deadline. What the thread of the cycles is in,
it reads from that thread's stack, so that a cycle pays nothing for being watched. A call that holds the
interpreter (C code that never lets other threads run) stops this thread too.

A task that is late is logged once a minute at most, with the line of code that it is in, and again when
it goes on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FrameType

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.engine.background import BackgroundWorker
from flowrun.runtime.engine.cycle import Cycle
from flowrun.runtime.engine.instances import Instance
from flowrun.runtime.engine.keyframes import freeze_task
from flowrun.runtime.engine.policy import reconfigure
from flowrun.runtime.places import place_in

__all__ = ["Late", "Watchdog"]

_LOOKS_PER_DEADLINE = 4
_LONGEST_PAUSE_S = 1.0
_LOGGED_EVERY_S = 60.0

_Call = tuple[str, int]
"""A task's call: what it does, and a number that no other call of the task has."""


@dataclass(frozen=True, slots=True)
class Late:
    """A call that takes longer than it may.

    phase: what the task does: "process", "configure" or "freeze".
    since_s: when it was seen first, in `monotonic_s`; it began up to a quarter of the deadline before.
    """

    phase: str
    since_s: float


@dataclass(slots=True)
class _Seen:
    call: _Call
    since_s: float
    is_logged: bool = False


class Watchdog:
    """Watches the tasks of a live run.

    cycle: the run's, whose thread calls `start`.
    workers: those of its background tasks, by id.
    """

    def __init__(
        self,
        cycle: Cycle,
        instances: Mapping[str, Instance],
        workers: Mapping[str, BackgroundWorker],
    ) -> None:
        self.late: Mapping[str, Late] = {}
        """The tasks that hang now, by id. Replaced, never changed."""
        self._cycle = cycle
        self._instances = instances
        self._workers = workers
        self._deadlines_s = {
            id_: made.bound.spec.deadline_ms / 1000
            for id_, made in instances.items()
            if made.bound.spec.deadline_ms
        }
        self._codes = cycle.codes
        self._cycles_thread = 0
        self._seen: dict[str, _Seen] = {}
        self._logged_s: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="flowrun-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch, on the thread that runs the cycles."""
        self._cycles_thread = threading.get_ident()
        if self._deadlines_s:
            self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.late = {}

    def _work(self) -> None:
        shortest_s = min(self._deadlines_s.values())
        pause_s = min(shortest_s / _LOOKS_PER_DEADLINE, _LONGEST_PAUSE_S)
        while not self._ended.wait(pause_s):
            self.look(monotonic_s())

    def look(self, now_s: float) -> None:
        """See what each task does at `now_s`."""
        frames = sys._current_frames()  # noqa: SLF001  # the documented way, in spite of its name
        calls = dict(self._calls(frames))
        late: dict[str, Late] = {}
        for id_ in [*self._seen]:
            if self._seen[id_].call != calls.get(id_, (None, None))[0]:
                self._note_end(id_, self._seen.pop(id_), now_s)
        for id_, (call, frame) in calls.items():
            seen = self._seen.setdefault(id_, _Seen(call, now_s))
            if now_s - seen.since_s < self._deadlines_s[id_]:
                continue
            late[id_] = Late(call[0], seen.since_s)
            if now_s - self._logged_s.get(id_, -_LOGGED_EVERY_S) >= _LOGGED_EVERY_S:
                self._logged_s[id_] = now_s
                seen.is_logged = True
                place = place_in(frame)
                self._instances[id_].ctx.log.warning(
                    f"still in {call[0]}, beyond its deadline",
                    since_s=round(now_s - seen.since_s, 1),
                    deadline_ms=self._instances[id_].bound.spec.deadline_ms,
                    **({} if place is None else {"at": str(place)}),
                )
        self.late = late

    def _note_end(self, task_id: str, seen: _Seen, now_s: float) -> None:
        if seen.is_logged:
            took_s = round(now_s - seen.since_s, 1)
            self._instances[task_id].ctx.log.info(f"{seen.call[0]} has ended", after_s=took_s)

    def _calls(
        self, frames: Mapping[int, FrameType]
    ) -> Iterator[tuple[str, tuple[_Call, FrameType]]]:
        """What each task that has a deadline does, with the stack that does it."""
        for id_, worker in self._workers.items():
            job, frame = worker.jobs.running, frames.get(worker.thread_id or 0)
            if job is not None and frame is not None and id_ in self._deadlines_s:
                yield id_, (("process", job.cycle), frame)
        frame = frames.get(self._cycles_thread)
        found = None if frame is None else self._of_cycle(frame)
        if found is not None and frame is not None and found[0] in self._deadlines_s:
            yield found[0], (found[1], frame)

    def _of_cycle(self, frame: FrameType | None) -> tuple[str, _Call] | None:
        """Which task the thread of the cycles is in, from the top of its stack."""
        begun_at = self._cycle.start_ns
        while frame is not None:
            code = frame.f_code
            if code in _MADE:
                made: Instance = frame.f_locals["made"]
                return made.id, (_MADE[code], begun_at)
            if code in self._codes:
                at = frame.f_locals.get("at")
                if at is None or at >= len(self._cycle.plan.steps):
                    return None
                return self._cycle.plan.steps[at].task.id, ("process", begun_at)
            frame = frame.f_back
        return None


def _code_of(function: Callable[..., object]) -> CodeType:
    return function.__code__


_MADE = {_code_of(reconfigure): "configure", _code_of(freeze_task): "freeze"}
"""Functions that call one task, a local `made`."""
