"""What the tasks of a graph do not make themselves comes from the outside: the world, or a log.

A cycle asks its outside, and nothing else, for the time, for what happened since the last cycle, and for
the messages of tasks that do not run. A live run and a replay differ only in their outside:

| what                       | live (`LiveOutside`)            | recorded (`replay.recorded`)       |
|----------------------------|---------------------------------|------------------------------------|
| the cycle's time           | the clock                       | the log's                          |
| live values, completions   | set by people, done by workers  | the log's control records          |
| messages from outside      | published by people             | the log's control records          |
| messages of a source       | made by the source              | the log's                          |
| background tasks           | a worker thread                 | run at once, given as recorded     |
"""

from __future__ import annotations

import operator
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from flowrun.msgs.image import UnseenPacket
from flowrun.msgs.message import Message
from flowrun.runtime.clock import Clock, ManualClock
from flowrun.runtime.context import (
    ActorFunctions,
    CycleTime,
    ShownState,
    SourceFunctions,
    shown_state,
)
from flowrun.runtime.engine.background import BackgroundTask
from flowrun.runtime.engine.instances import Instance
from flowrun.runtime.engine.pairing import Arrivals
from flowrun.runtime.engine.policy import restart_task
from flowrun.runtime.engine.record import Gate, StepCall
from flowrun.runtime.engine.restarts import Restarts
from flowrun.runtime.events import (
    Assigned,
    Completion,
    Dropped,
    EndOfSource,
    Event,
    Injected,
    Met,
    Packets,
    Set,
    SourceState,
    Switched,
)
from flowrun.runtime.graph.plan import Step
from flowrun.runtime.task import Playback, State
from flowrun.runtime.wakeup import Wakeup

__all__ = ["Due", "LiveOutside", "Outside"]

_T = TypeVar("_T")

_AT_ONCE_S = 0.02
"""Seconds that a cycle waits for the restart of a source that it begins."""
_MOST_WAITING = 256
_MOST_WAITING_BYTES = 64 << 20
"""Of messages that people have published and no cycle has taken."""
_RUNNING: tuple[State, str] = ("running", "")
"""What a source is taken to have said that has said nothing."""
_REFRESH_NS = 100_000_000
"""Interval at which the clock is asked whether the machine was suspended."""


class Outside(Protocol):
    """What a cycle asks; see the module."""

    @property
    def background(self) -> Mapping[str, BackgroundTask]:
        """The background tasks that run, by id."""
        ...

    @property
    def reported(self) -> Sized:
        """Empty if `after_sources` has nothing to say."""
        ...

    def begin(self, time: CycleTime, start_ns: int) -> Sequence[Event]:
        """Set the time of the cycle that begins; returns what came from outside since the last one,
        in the order in which to apply it.

        start_ns: the reading of `ticks_ns` with which the cycle began.
        """
        ...

    def after_sources(self, runs: bool) -> Sequence[Event]:  # noqa: FBT001  # compiled calls
        """What the sources have reported, when they have had their turn in the cycle.

        runs: whether something has come, so that there is a cycle in any case. If not, what is no
            reason for one is left for the next.
        """
        ...

    def bind(self, step: Step, messages: Sequence[Message]) -> StepCall | None:
        """How to call a step whose task does not run; None if the task runs."""
        ...

    def gate(self, task_id: str) -> Gate:
        """The gate of a source that runs: open while it may have more."""
        ...

    def restart(self, made: Instance) -> bool:
        """Restart a task that is down; False if that is under way, to be asked again.

        Passes on what the task raises.
        """
        ...


@dataclass(slots=True)
class SourceGate:
    """The gate of a source's step: open while the source may have more and is not paused."""

    present: bool = True


@dataclass(slots=True)
class Source:
    """What is known of a source.

    gate: of its step, as it is bound now.
    has_ended: whether it has said that nothing more comes.
    asked: what was last asked of it; cycles follow from the next one on.
    playback: what cycles do.
    said: its state and code, as it last said; None if it has said nothing.
    """

    gate: SourceGate
    has_ended: bool = False
    asked: Playback = "running"
    playback: Playback = "running"
    said: tuple[State, str] | None = None
    paused_ns: int = 0
    """For how long it was paused, before `paused_at_ns`."""
    paused_at_ns: int | None = None


class Due:
    """When each source wants to be called again, in nanoseconds since 1970 UTC. For any thread."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._lock = threading.Lock()

    def set(self, task_id: str, time_ns: int) -> None:
        """Call the source again at `time_ns`, in place of the time that it gave before."""
        time_ns = operator.index(time_ns)
        with self._lock:
            self._times[task_id] = time_ns

    def not_before(self, task_id: str, time_ns: int) -> None:
        """Call the source again at `time_ns`, or later if it said so."""
        with self._lock:
            self._times[task_id] = max(time_ns, self._times.get(task_id, time_ns))

    def is_later(self, task_id: str, now_ns: int) -> bool:
        """Whether the source gave a time, and that is after `now_ns`."""
        with self._lock:
            return self._times.get(task_id, now_ns) > now_ns

    def first(self) -> int | None:
        """When the first of all sources is due; None if none has given a time."""
        with self._lock:
            return min(self._times.values(), default=None)

    def forget(self, task_id: str) -> None:
        """Forget the time that a source gave."""
        with self._lock:
            self._times.pop(task_id, None)

    def take_until(self, now_ns: int) -> dict[str, int]:
        """The times that have come, by source; they are forgotten."""
        with self._lock:
            come = {id_: time_ns for id_, time_ns in self._times.items() if time_ns <= now_ns}
            for task_id in come:
                del self._times[task_id]
            return come


class LiveOutside:
    """The world: a clock, sources that finish and drop, people who set live values, workers.

    clock: gives the cycles' times.
    sources: ids of the tasks that are sources.
    packets: ids of those whose compressed packets the log wants.
    actors: ids of the tasks that act outside the run, or leave out inputs.
    leaves: ids of tasks that are never called, and publish nothing.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        sources: Iterable[str],
        packets: Collection[str],
        actors: Iterable[str] = (),
        leaves: Collection[str] = (),
    ) -> None:
        self._leaves = leaves
        self.background: dict[str, BackgroundTask] = {}
        """The workers of background tasks, by id; added before the first cycle."""
        self.sources = {task_id: Source(SourceGate()) for task_id in sources}
        """The sources, by id."""
        self.woken = Wakeup()
        """Set when something has come."""
        self.live: dict[str, Arrivals] = {}
        """When the sources that are live have something."""
        self.due = Due()
        """When each source wants to be called again."""
        self.left_out: dict[str, Counter[str]] = {
            task_id: Counter() for task_id in (*self.sources, *actors)
        }
        """Number of pictures, or whatever it makes, reads or sends, that each source, and each of the
        `actors`, has left out, by cause."""
        at_once_s = None if isinstance(clock, ManualClock) else _AT_ONCE_S
        self.restarts = Restarts(self.woken.set, at_once_s=at_once_s)
        """The restarts of sources."""
        self._clock = clock
        self._packets = packets
        self._at = clock.at
        self._refresh_at = 0
        self._has_begun = False
        self._controls: deque[Event] = deque()
        self._waiting: list[int] = []
        """The sizes of the messages among them."""
        self.reported: deque[EndOfSource | Packets | SourceState | tuple[str, str]] = deque()
        """What sources have said that is in no cycle yet; a task and a cause are the key of what
        `_newly_left_out` has of them."""
        self._newly_left_out: Counter[tuple[str, str]] = Counter()
        """What `left_out` has gained since it was last in a cycle, by task and cause."""
        self._lock = threading.Lock()

    def begin(self, time: CycleTime, start_ns: int) -> Sequence[Event]:
        if start_ns > self._refresh_at:
            self._at, self._refresh_at = self._clock.refreshed_at(), start_ns + _REFRESH_NS
            self._has_begun = True
        time.now_ns = self._at(start_ns)
        if not (self._controls or self.reported or self.background):
            return ()
        events = self._take_controls()
        injected = {event.task for event in events if type(event) is Injected}
        for event in events:
            if type(event) is Switched:
                self._switch(event, time.now_ns)
        for task_id, task in self.background.items():
            if task.jobs.has_done and task_id not in injected:
                job = task.jobs.take()
                if job is not None:
                    events.append(Completion(task_id, job.cycle, job.restarts))
        events += self.after_sources(bool(events))
        return events

    def after_sources(self, runs: bool) -> Sequence[Event]:  # noqa: FBT001
        said = _drained(self.reported)
        if not runs and all(isinstance(it, tuple) for it in said):
            self.reported.extendleft(reversed(said))
            return ()
        return [
            Dropped(it[0], self._take_left_out(it), it[1]) if isinstance(it, tuple) else it
            for it in said
        ]

    def _take_controls(self) -> list[Event]:
        """What people have asked for, up to the second message for one port: that is for the next
        cycle."""
        events: list[Event] = []
        ports = set()
        for _ in range(len(self._controls)):
            event = self._controls[0]
            if type(event) is Injected:
                port = event.task, event.port
                if port in ports:
                    break
                ports.add(port)
                with self._lock:
                    del self._waiting[0]
            events.append(self._controls.popleft())
        return events

    def bind(self, step: Step, messages: Sequence[Message]) -> StepCall | None:  # noqa: ARG002
        return (SourceGate(present=False), _nothing) if step.task.id in self._leaves else None

    def gate(self, task_id: str) -> Gate:
        return self.sources[task_id].gate

    def restart(self, made: Instance) -> bool:
        if made.bound.is_source:
            return self.restarts.restart(made)
        restart_task(made)
        return True

    @property
    def states(self) -> dict[str, tuple[ShownState, str]]:
        """The state and the code of each source."""
        shown: dict[str, tuple[ShownState, str]] = {}
        for task_id, it in self.sources.items():
            if it.said is None and not (self._has_begun or it.has_ended):
                shown[task_id] = "starting", ""
            else:
                said = it.said or _RUNNING
                shown[task_id] = shown_state(said, asked=it.asked, has_ended=it.has_ended)
        return shown

    def close(self) -> None:
        """The sources have been stopped: cycles call them no more."""
        with self._lock:
            for source in self.sources.values():
                source.has_ended = True
                source.gate.present = False

    def take_packets(self) -> list[Packets]:
        """The packets that are in no cycle yet; what else was reported stays."""
        said = _drained(self.reported)
        self.reported.extendleft(it for it in reversed(said) if not isinstance(it, Packets))
        return [it for it in said if isinstance(it, Packets)]

    def note_failure(self, task_id: str) -> None:
        """The task has ended the run with an error."""
        source = self.sources.get(task_id)
        if source is not None:
            _, code = source.said or _RUNNING
            source.said = "error", code

    def source(self, task_id: str) -> SourceFunctions:
        """What the context of a source calls."""
        return SourceFunctions(
            clock_ns=self._clock.now_ns,
            wake=partial(self._wake, task_id),
            wake_at=partial(self.due.set, task_id),
            finish=partial(self._finish, task_id),
            keep_packets=partial(self._keep_packets, task_id),
            dropped=partial(self.leave_out, task_id),
            report=partial(self._report, task_id),
            live=partial(self._note_live, task_id),
            playback=lambda: self.sources[task_id].playback,
            paused_ns=partial(self._paused_ns, task_id),
            logs_packets=task_id in self._packets,
        )

    def actor(self, task_id: str, end_run: Callable[[str], None]) -> ActorFunctions:
        """What the context of a task that acts outside calls.

        end_run: asks the run to end.
        """
        return ActorFunctions(
            dropped=partial(self.leave_out, task_id),
            follows_live=lambda: bool(self.live),
            end_run=end_run,
        )

    # -- from sources and people, on any thread --------------------------------------------------

    def set(self, task_id: str, values: dict[str, Any]) -> None:
        """Set live values at the next cycle."""
        self._controls.append(Set(task_id, values))
        self.woken.set()

    def inject(self, event: Injected) -> bool:
        """Show a message on a port at the next cycle; False while so much waits that it would pile up,
        as where a task holds the cycle up."""
        with self._lock:
            if (
                len(self._waiting) >= _MOST_WAITING
                or sum(self._waiting) + len(event.data) > _MOST_WAITING_BYTES
            ):
                return False
            self._waiting.append(len(event.data))
            self._controls.append(event)
        self.woken.set()
        return True

    def note_link(self, event: Assigned | Met) -> None:
        """Keep with the next cycle what has become of a link to another process."""
        self._controls.append(event)
        self.woken.set()

    def switch(self, task_id: str, playback: Playback) -> bool:
        """Pause, mute or resume a source at the next cycle; False if that was asked last."""
        source = self.sources[task_id]
        with self._lock:
            if source.asked == playback:
                return False
            source.asked = playback
            self._controls.append(Switched(task_id, playback))
        self.woken.set()
        return True

    def _switch(self, event: Switched, now_ns: int) -> None:
        source = self.sources[event.task]
        if source.paused_at_ns is not None:
            source.paused_ns += max(0, now_ns - source.paused_at_ns)
        source.paused_at_ns = now_ns if event.playback == "paused" else None
        with self._lock:
            before, source.playback = source.playback, cast("Playback", event.playback)
            source.gate.present = False
            if "muted" in (before, source.playback):
                # The cycle binds its steps again, and the one that runs has the old gate.
                source.gate = SourceGate()
            source.gate.present = not source.has_ended and source.playback != "paused"

    def _paused_ns(self, task_id: str) -> int:
        return self.sources[task_id].paused_ns

    def _note_live(self, task_id: str) -> None:
        with self._lock:
            self.live = {**self.live, task_id: self.live.get(task_id, Arrivals())}

    def _wake(self, task_id: str) -> None:
        arrivals = self.live.get(task_id)
        if arrivals is not None:
            arrivals.note(self._clock.now_ns())
        self.woken.set()

    def _finish(self, task_id: str) -> None:
        source = self.sources[task_id]
        with self._lock:
            if source.has_ended:
                return
            source.has_ended = True
            source.gate.present = False
        self.due.forget(task_id)
        self.reported.append(EndOfSource(task_id))
        self.woken.set()

    def _keep_packets(self, task_id: str, packets: tuple[UnseenPacket, ...]) -> None:
        if packets:
            self.reported.append(Packets(task_id, packets))
            self.woken.set()

    def leave_out(self, task_id: str, count: int, cause: str) -> None:
        """The task has left out `count` of what it makes or reads."""
        count, key = operator.index(count), (task_id, cause)
        with self._lock:
            self.left_out[task_id][cause] += count
            is_first = key not in self._newly_left_out
            self._newly_left_out[key] += count
        if is_first:
            self.reported.append(key)

    def _report(self, task_id: str, state: State, code: str) -> None:
        with self._lock:
            source = self.sources[task_id]
            is_news = (state, code) != (source.said or _RUNNING)
            source.said = state, code
            if not is_news:
                return
            self.reported.append(SourceState(task_id, state, code))
        self.woken.set()

    def _take_left_out(self, key: tuple[str, str]) -> int:
        with self._lock:
            return self._newly_left_out.pop(key)


def _nothing() -> None:
    """The call of a task that is never called."""


def _drained(events: deque[_T]) -> list[_T]:
    """What is there now: others may add more all the time."""
    return [events.popleft() for _ in range(len(events))]
