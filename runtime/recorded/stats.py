"""Figures of a whole run from its log: how long its tasks took, how late its sinks were, how much it
wrote. One pass over the log, in memory that does not grow with it.

Percentiles are those of buckets that are 1 % wide; numbers, sums, least and greatest values are exact.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.events import Completion, Dropped, Failed, Replaced, unpack
from flowrun.runtime.log.message import Topic
from flowrun.runtime.log.reader import Log, LoggedCycle
from flowrun.runtime.log.slab.format import (
    CONTROL_TOPIC,
    KEYFRAME_TOPIC,
    LOG_TOPIC,
    PEAK_MEMORY,
    STEP_TASKS,
    STEPS_TOPIC,
)
from flowrun.runtime.recorded.graph import graph_of

__all__ = ["PathStats", "PortStats", "RunStats", "StepStats", "Times", "run_stats"]

_WIDTH = math.log(1.01)
_BUCKETS = math.ceil(math.log(2**63) / _WIDTH) + 1
_LONGEST_NS = 2**62
_ROWS = 4096
"""Cycles whose step tables are looked at together."""
_KEPT_STARTS = 200_000
"""How many cycles back a background task may have got what its result is of."""
_MOST_PATHS = 64
_OWN = frozenset((STEPS_TOPIC, CONTROL_TOPIC, LOG_TOPIC, KEYFRAME_TOPIC))


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, in milliseconds; None if it never happened."""

    count: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


@dataclass(frozen=True, slots=True)
class StepStats:
    """A task of the run.

    times: of its step, in the cycles in which it published or got something; of a background task from
        the beginning of the cycle of its inputs to that of the cycle in which the result appears.
    share: of the time that all cycles took, its step's, from 0 to 1.
    cycles: in how many a message of it is logged; of a task without outputs, in how many one that it
        takes is. None where the log has none of them.
    rate_hz: how often that was.
    dropped: number of inputs or pictures that were left out, by cause.
    errors: how often it raised.
    """

    task: str
    background: bool
    times: Times
    share: float | None
    cycles: int | None
    rate_hz: float | None
    dropped: Mapping[str, int]
    errors: int


@dataclass(frozen=True, slots=True)
class PathStats:
    """From a source to a sink, by the shortest way.

    tasks: the tasks on the way.
    from_source: from the time of the source's message, its `tov`, to the end of the sink's step. None
        where that is no time of the world, as of a film that is not played at its own speed.
    in_cycle: from the beginning of the sink's cycle to the end of its step.
    """

    tasks: tuple[str, ...]
    from_source: Times | None
    in_cycle: Times


@dataclass(frozen=True, slots=True)
class PortStats:
    """A topic of the log: messages and bytes, as they are stored, in all and by second."""

    topic: str
    messages: int
    rate_hz: float | None
    bytes: int
    bytes_per_s: float | None
    largest: int


@dataclass(frozen=True, slots=True)
class RunStats:
    """All figures of a run.

    cycle: how long a cycle took, without waiting for the next one.
    largest_cycle: bytes of all messages of one cycle, at most.
    memory_bytes: the most memory that the process had; None where the log does not say.
    notes: what could not be read, or is not known.
    """

    cycles: int
    duration_s: float
    rate_hz: float | None
    cycle: Times
    steps: tuple[StepStats, ...]
    paths: tuple[PathStats, ...]
    ports: tuple[PortStats, ...]
    log_bytes: int
    largest_cycle: int
    memory_bytes: int | None
    notes: tuple[str, ...]


def run_stats(log: Log, progress: Callable[[int], None] | None = None) -> RunStats:
    """The figures of `log`, as far as it can be read; see `Log.loss` afterwards.

    progress: called now and then with the time that has been reached.
    """
    reading = _Reading(log)
    for number, cycle in enumerate(log.cycles()):
        reading.add(cycle)
        if progress is not None and number % _ROWS == 0:
            progress(cycle.time_ns)
    return reading.stats()


class _Histogram:
    """How often which durations came, in nanoseconds."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)
        self.count = 0
        self.total = 0
        self.least: int | None = None
        self._most = 0

    def add(self, values: NDArray[np.int64]) -> None:
        if not len(values):
            return
        least, most = int(values.min()), int(values.max())
        self.least = least if self.least is None else min(self.least, least)
        self._most = max(self._most, most)
        self.count += len(values)
        self.total += int(values.sum())
        buckets = (np.log(np.maximum(values, 1)) / _WIDTH).astype(np.int64)
        self._counts += np.bincount(buckets, minlength=_BUCKETS)

    def times(self) -> Times:
        if not self.count:
            return Times(0, None, None, None)
        return Times(self.count, self._ms(0.5), self._ms(0.99), round(self._most / 1e6, 6))

    def _ms(self, share: float) -> float:
        before = np.cumsum(self._counts)
        bucket = int(np.searchsorted(before, math.ceil(share * self.count)))
        middle = math.exp((bucket + 0.5) * _WIDTH)
        return round(min(max(middle, self.least or 0), self._most) / 1e6, 6)


class _Waiting:
    """Durations that wait to be counted together."""

    def __init__(self) -> None:
        self.histogram = _Histogram()
        self._values: list[int] = []

    def add(self, value: int) -> None:
        self._values.append(max(-_LONGEST_NS, min(value, _LONGEST_NS)))
        if len(self._values) == _ROWS:
            self.flush()

    def flush(self) -> _Histogram:
        self.histogram.add(np.array(self._values, np.int64))
        self._values.clear()
        return self.histogram


@dataclass(slots=True)
class _Path:
    tasks: tuple[str, ...]
    topic: str
    """What the sink gets, on this way."""
    step: int
    from_source: _Waiting = field(default_factory=_Waiting)
    in_cycle: _Waiting = field(default_factory=_Waiting)


@dataclass(frozen=True, slots=True)
class _Ports:
    """The topics that a task gets and publishes, and what its `every` and `rate_hz` leave out."""

    inputs: frozenset[str]
    outputs: frozenset[str]
    every: int
    is_rated: bool

    def ran(self, cycle: int, here: Mapping[str, int]) -> bool:
        """Whether it did something in a cycle with these topics, as far as they say."""
        if not self.inputs and not self.outputs:
            return True
        if not self.outputs.isdisjoint(here):
            return True
        is_due = cycle % self.every == 0 and not self.is_rated
        return is_due and not self.inputs.isdisjoint(here)


class _Reading:
    """What is known after some cycles."""

    def __init__(self, log: Log) -> None:
        self._log = log
        graph = graph_of(log)
        tasks = [
            task
            for task in graph.get("tasks", [])
            if isinstance(task, dict) and isinstance(task.get("id"), str)
        ]
        self._background = {task["id"] for task in tasks if task.get("background")}
        self._topics = list(log.topics)
        self._of_task: dict[str, list[str]] = {}
        for topic in log.topics.values():
            if "task" in topic.metadata:
                self._of_task.setdefault(topic.metadata["task"], []).append(topic.name)
        self._edges = list(_edges(graph.get("cnx", []), self._of_task, log.topics))
        self._steps = log.metadata.get(STEP_TASKS, "").split()
        self._is_named = bool(self._steps)
        self._rows: list[list[int]] = []
        self._ran: list[list[bool]] = []
        self._step_times: list[_Histogram] = []
        self._step_totals: Counter[int] = Counter()
        self._cycle_times = _Histogram()
        self._paths = list(self._find_paths())
        self._seen: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._largest: Counter[str] = Counter()
        self._came: Counter[str] = Counter()
        by_id = {task["id"]: task for task in tasks}
        self._ports = [self._ports_of(by_id.get(task, {"id": task})) for task in self._steps]
        self._inputs = {
            task: ports.inputs
            for task, ports in zip(self._steps, self._ports, strict=True)
            if ports.inputs and not ports.outputs
        }
        self._dropped: dict[str, Counter[str]] = {}
        self._errors: Counter[str] = Counter()
        self._completions: dict[str, _Waiting] = {}
        self._starts = np.full(_KEPT_STARTS, -1, np.int64)
        self._start_cycles = np.full(_KEPT_STARTS, -1, np.int64)
        self._cycles = 0
        self._largest_cycle = 0
        self._first_ns: int | None = None
        self._last_ns = 0
        self._unread = 0

    # -- cycle by cycle ------------------------------------------------------------------------

    def add(self, cycle: LoggedCycle) -> None:
        self._cycles += 1
        if self._first_ns is None:
            self._first_ns = cycle.time_ns
        self._last_ns = cycle.time_ns
        ticks: list[int] | None = None
        here: dict[str, int] = {}
        controls: list[memoryview] = []
        size = 0
        for topic, tov_ns, payload in cycle.entries:
            bytes_ = len(payload)
            self._seen[topic] += 1
            self._bytes[topic] += bytes_
            self._largest[topic] = max(self._largest[topic], bytes_)
            if topic == STEPS_TOPIC:
                ticks = self._ticks(payload)
            elif topic == CONTROL_TOPIC:
                controls.append(payload)
            elif topic not in _OWN:
                here[topic] = tov_ns
                size += bytes_
        self._largest_cycle = max(self._largest_cycle, size)
        for task, topics in self._inputs.items():
            if not topics.isdisjoint(here):
                self._came[task] += 1
        if ticks is not None:
            self._add_ticks(cycle, ticks, here)
        for payload in controls:
            self._add_control(cycle.cycle, payload)

    def _ticks(self, payload: memoryview) -> list[int] | None:
        try:
            found = np.frombuffer(msgpack.unpackb(payload)["ticks_ns"], "<u8").tolist()
        except (ValueError, TypeError, LookupError, msgpack.UnpackException):
            found = []
        if not found or max(found) >= 2**63 or (self._steps and len(found) != len(self._steps) + 1):
            self._unread += 1
            return None
        if not self._steps:
            self._steps = [f"step {number}" for number in range(len(found) - 1)]
        return list(map(int, found))

    def _add_ticks(self, cycle: LoggedCycle, ticks: list[int], here: Mapping[str, int]) -> None:
        place = cycle.cycle % _KEPT_STARTS
        self._starts[place], self._start_cycles[place] = ticks[0], cycle.cycle
        self._rows.append(ticks)
        self._ran.append([ports.ran(cycle.cycle, here) for ports in self._ports])
        if len(self._rows) == _ROWS:
            self._flush()
        for path in self._paths:
            tov_ns = here.get(path.topic)
            if tov_ns is not None:
                took = ticks[path.step + 1] - ticks[0]
                path.in_cycle.add(took)
                path.from_source.add(cycle.time_ns + took - tov_ns)

    def _flush(self) -> None:
        if not self._rows:
            return
        rows, ran = np.array(self._rows, np.int64), np.array(self._ran, bool)
        self._rows.clear()
        self._ran.clear()
        while len(self._step_times) < rows.shape[1] - 1:
            self._step_times.append(_Histogram())
        for step, column in enumerate(np.diff(rows, axis=1).T):
            self._step_times[step].add(column[ran[:, step]] if step < ran.shape[1] else column)
            self._step_totals[step] += int(column.sum())
        self._cycle_times.add(rows[:, -1] - rows[:, 0])

    def _add_control(self, cycle: int, payload: memoryview) -> None:
        try:
            event = unpack(msgpack.unpackb(payload))
        except (ValueError, TypeError, msgpack.UnpackException):
            self._unread += 1
            return
        match event:
            case Dropped():
                by = self._dropped.setdefault(event.task, Counter())
                by[event.cause or "dropped"] += event.count
            case Replaced():
                self._dropped.setdefault(event.task, Counter())["replaced"] += 1
            case Failed():
                self._errors[event.task] += 1
            case Completion():
                begun = event.input_cycle % _KEPT_STARTS
                if self._start_cycles[begun] == event.input_cycle >= 0:
                    now = int(self._starts[cycle % _KEPT_STARTS])
                    waiting = self._completions.setdefault(event.task, _Waiting())
                    waiting.add(now - int(self._starts[begun]))

    # -- the graph -----------------------------------------------------------------------------

    def _ports_of(self, task: Mapping[str, Any]) -> _Ports:
        id_, every = task["id"], task.get("every")
        return _Ports(
            inputs=frozenset(topic for topic, into in self._edges if into == id_),
            outputs=frozenset(self._of_task.get(id_, ())),
            every=every if type(every) is int and every > 0 else 1,
            is_rated=task.get("rate_hz") is not None,
        )

    def _find_paths(self) -> Iterator[_Path]:
        """The shortest way from each source to each sink."""
        owner = {topic: task for task, topics in self._of_task.items() for topic in topics}
        into: dict[str, list[str]] = {}
        for topic, task in self._edges:
            into.setdefault(task, []).append(topic)
        feeding = {owner[topic] for topic, _ in self._edges if topic in owner}
        count = 0
        for step, sink in enumerate(self._steps):
            if sink in feeding or sink not in into:
                continue
            ways: dict[str, tuple[tuple[str, ...], str]] = {}
            queue: list[tuple[str, tuple[str, ...], str]] = [(sink, (sink,), "")]
            for task, way, last in queue:
                if task not in into and task != sink:
                    ways.setdefault(task, (way, last))
                for topic in into.get(task, ()):
                    before = owner.get(topic)
                    if before is not None and before not in {it[0] for it in queue}:
                        queue.append((before, (before, *way), last or topic))
            for tasks, topic in ways.values():
                count += 1
                if count <= _MOST_PATHS:
                    yield _Path(tasks, topic, step)

    # -- at the end ----------------------------------------------------------------------------

    def stats(self) -> RunStats:
        self._flush()
        seconds = 0.0 if self._first_ns is None else (self._last_ns - self._first_ns) / 1e9

        def rate(count: int) -> float | None:
            return round((count - 1) / seconds, 3) if count > 1 and seconds > 0 else None

        end = self._log.end or {}
        memory = end.get(PEAK_MEMORY, "")
        return RunStats(
            cycles=self._cycles,
            duration_s=seconds,
            rate_hz=rate(self._cycles),
            cycle=self._cycle_times.times(),
            steps=tuple(self._step(task, i, rate) for i, task in enumerate(self._steps)),
            paths=tuple(map(_path_stats, self._paths)),
            ports=tuple(
                PortStats(
                    topic,
                    self._seen[topic],
                    rate(self._seen[topic]),
                    self._bytes[topic],
                    round(self._bytes[topic] / seconds, 1) if seconds > 0 else None,
                    self._largest[topic],
                )
                for topic in self._topics
            ),
            log_bytes=sum(slab.size for slab in self._log.slabs),
            largest_cycle=self._largest_cycle,
            memory_bytes=int(memory) if memory.isdecimal() else None,
            notes=tuple(self._notes()),
        )

    def _step(self, task: str, index: int, rate: Callable[[int], float | None]) -> StepStats:
        own = self._step_times[index] if index < len(self._step_times) else _Histogram()
        is_background = task in self._background
        times = own.times()
        if is_background:
            times = self._completions.get(task, _Waiting()).flush().times()
        total = self._cycle_times.total
        cycles: int | None = None
        if task in self._of_task:
            cycles = max(self._seen[topic] for topic in self._of_task[task])
        elif task in self._inputs:
            cycles = self._came[task]
        return StepStats(
            task=task,
            background=is_background,
            times=times,
            share=round(self._step_totals[index] / total, 6) if total else None,
            cycles=cycles,
            rate_hz=None if cycles is None else rate(cycles),
            dropped=dict(self._dropped.get(task, {})),
            errors=self._errors[task],
        )

    def _notes(self) -> Iterator[str]:
        if not self._is_named:
            yield "steps are numbered: the log does not name the tasks of the plan"
        if self._unread:
            yield f"{self._unread:,} records of the runtime could not be read, and are left out"
        if any(path.from_source.histogram.least is not None for path in self._paths) and any(
            (path.from_source.histogram.least or 0) < 0 for path in self._paths
        ):
            yield (
                "a path without a time from its source begins with a film that is not played at its "
                "own speed"
            )


def _path_stats(path: _Path) -> PathStats:
    since = path.from_source.flush()
    is_of_world = since.least is None or since.least >= 0
    return PathStats(
        path.tasks, since.times() if is_of_world else None, path.in_cycle.flush().times()
    )


def _edges(
    connections: Sequence[Any], of_task: Mapping[str, Sequence[str]], topics: Mapping[str, Topic]
) -> Iterator[tuple[str, str]]:
    """Topic and receiving task of each connection. One that does not name the port is of the topics with
    the connection's message, or of all of the task, where only its code says which."""
    for edge in connections:
        if not isinstance(edge, dict):
            continue
        src, dst = str(edge.get("src", "")), str(edge.get("dst", ""))
        task, dot, port = src.partition(".")
        found = [name for name in of_task.get(task, ()) if not dot or name == f"/{task}/{port}"]
        message = str(edge.get("msg", "")).rpartition(".")[2]
        fitting = [name for name in found if topics[name].schema_name == message]
        for name in fitting or found:
            yield name, dst.partition(".")[0]
