"""Names a task whose call takes longer than its `deadline_ms`, while it hangs.

A thread looks at the run a few times within the shortest deadline. What the thread of the cycles is in,
it reads from that thread's stack, so that a cycle pays nothing for being watched. A call that holds the
interpreter (C code that never lets other threads run) stops this thread too.

A task that is late is logged once a minute at most, with the line of code that it is in, and again when
it goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType

from flowrun.runtime.clock import monotonic_s
from flowrun.runtime.engine.background import BackgroundWorker
from flowrun.runtime.engine.instances import Instance
from flowrun.runtime.engine.parallel import Crew
from flowrun.runtime.engine.whereabouts import Call, Whereabouts, stacks, undisturbed
from flowrun.runtime.places import place_in

__all__ = ["Late", "Watchdog"]

_LOOKS_PER_DEADLINE = 4
_LONGEST_PAUSE_S = 1.0
_LOGGED_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Late:
    """A call that takes longer than it may.

    method: see `Call`.
    since_s: when it was seen first, in `monotonic_s`; it began up to a quarter of the deadline before.
    """

    method: str
    since_s: float


@dataclass(slots=True)
class _Seen:
    call: Call
    since_s: float
    is_logged: bool = False


class Watchdog:
    """Watches the tasks of a live run.

    whereabouts: tells what the threads of the run do.
    workers: those of its background tasks, by id.
    crew: the other threads that run steps of its cycles.
    """

    def __init__(
        self,
        whereabouts: Whereabouts,
        instances: Mapping[str, Instance],
        workers: Mapping[str, BackgroundWorker],
        crew: Crew | None = None,
    ) -> None:
        self.late: Mapping[str, Late] = {}
        """The tasks that hang now, by id. Replaced, never changed."""
        self._whereabouts = whereabouts
        self._instances = instances
        self._workers = workers
        self._crew = crew
        self._deadlines_s = {
            id_: made.bound.spec.deadline_ms / 1000
            for id_, made in instances.items()
            if made.bound.spec.deadline_ms
        }
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
        with undisturbed():
            calls = {call.task: (call, frame) for call, frame in self._calls()}
        late: dict[str, Late] = {}
        for id_ in [*self._seen]:
            if self._seen[id_].call != calls.get(id_, (None, None))[0]:
                self._note_end(id_, self._seen.pop(id_), now_s)
        for id_, (call, frame) in calls.items():
            seen = self._seen.setdefault(id_, _Seen(call, now_s))
            if now_s - seen.since_s < self._deadlines_s[id_]:
                continue
            late[id_] = Late(call.method, seen.since_s)
            if now_s - self._logged_s.get(id_, -_LOGGED_EVERY_S) >= _LOGGED_EVERY_S:
                self._logged_s[id_] = now_s
                seen.is_logged = True
                with undisturbed():
                    place = place_in(frame)
                self._instances[id_].ctx.log.warning(
                    f"still in {call.method}, beyond its deadline",
                    since_s=round(now_s - seen.since_s, 1),
                    deadline_ms=self._instances[id_].bound.spec.deadline_ms,
                    **({} if place is None else {"at": str(place)}),
                )
        self.late = late

    def _note_end(self, task_id: str, seen: _Seen, now_s: float) -> None:
        if seen.is_logged:
            took_s = round(now_s - seen.since_s, 1)
            self._instances[task_id].ctx.log.info(f"{seen.call.method} has ended", after_s=took_s)

    def _calls(self) -> Iterator[tuple[Call, FrameType]]:
        """What each task that has a deadline does, with the stack that does it."""
        threads = [self._cycles_thread, *(it.thread_id for it in self._workers.values())]
        threads += [] if self._crew is None else [it.ident for it in self._crew.threads]
        frames = {thread: frame for thread, frame in stacks().items() if thread in threads}
        for thread in threads:
            frame = frames.get(thread or 0)
            call = self._whereabouts.call_in(frame)
            if call is not None and frame is not None and call.task in self._deadlines_s:
                yield call, frame
