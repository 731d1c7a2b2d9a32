"""Runs independent steps of a cycle at once: `runtime: {executor: parallel}`.

A step begins when all that feed it have ended, on whichever thread is free. What comes of a cycle is
what comes of it step by step, as a replay runs it, byte for byte:

- A task sees its inputs, the cycle's time and its own random numbers, and none of these depends on the
  order of steps that do not feed each other. Messages are logged in the plan's order.
- What a task reports, such as an error that it outlives, is in the plan's order too.
- Where an error ends the run, steps after it in the plan's order count as not run: their messages and
  reports are dropped. Those before it run to their end.
- A step that may end the cycle (`on_error: skip_cycle`) runs alone: all steps before it have ended, and
  none after it has begun. So do those that only hand over, as of background tasks: it costs less.

When a step ended, as the step table has it, is never before the step before it: what a step shows there
is what it has added to the cycle.
"""

from __future__ import annotations

import math
import os
import queue
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from flowrun.runtime.clock import ticks_ns
from flowrun.runtime.engine.instances import Instance
from flowrun.runtime.engine.record import CycleRecord, outputs_of_step
from flowrun.runtime.events import Event
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.spec import RuntimeSpec
from flowrun.runtime.interrupts import is_users

__all__ = ["Crew", "ParallelSteps", "crew_of", "run_step"]


class Crew:
    """Threads that work besides the cycle's own.

    size: how many; they are made when they are first needed, and do not keep the process.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.threads: tuple[threading.Thread, ...] = ()
        """Those that were made. Replaced, never changed."""

    def help(self, work: Callable[[], None], hands: int) -> None:
        """Have up to `hands` threads call `work`, which MUST NOT raise."""
        hands = min(hands, self.size)
        for number in range(len(self.threads), hands):
            made = threading.Thread(target=self._run, name=f"flowrun-step {number}", daemon=True)
            made.start()
            self.threads = (*self.threads, made)
        for _ in range(hands):
            self._work.put(work)

    def end(self) -> None:
        """End the threads; one whose step does not return is left."""
        for _ in self.threads:
            self._work.put(None)
        self.threads = ()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def crew_of(spec: RuntimeSpec) -> Crew | None:
    """The threads that a graph's `runtime` asks for, besides the cycle's own; None if for none."""
    if spec.executor == "serial":
        return None
    return Crew((spec.workers or len(spec.affinity or os.sched_getaffinity(0))) - 1)


@dataclass(frozen=True, slots=True)
class _Stage:
    """Steps that may run at once, after all steps before them.

    steps: their indices, in the plan's order.
    waits: by step, how many others of the stage feed it.
    feeds: by step, those of the stage that it feeds.
    width: how many are as far from the stage's first steps, at the most: as many threads are of use.
    """

    steps: tuple[int, ...]
    waits: Mapping[int, int]
    feeds: Mapping[int, Sequence[int]]
    width: int


class ParallelSteps:
    """The steps of a plan that are no sources.

    alone: indices of those that run alone.
    instances: the tasks, by id.
    """

    def __init__(
        self, plan: Plan, crew: Crew, *, alone: Collection[int], instances: Mapping[str, Instance]
    ) -> None:
        self._plan = plan
        self._crew = crew
        self._instances = [instances[step.task.id] for step in plan.steps]
        self._index = {step.task.id: at for at, step in enumerate(plan.steps)}
        self._stages = _stages(plan, alone)

    def run(
        self, record: CycleRecord, events: list[Event], ends_ns: list[int]
    ) -> tuple[int, BaseException] | None:
        """Run the steps of one cycle. Returns the index of the first one that raised, and what it did;
        None if none has.

        events: gets what the tasks report.
        ends_ns: gets when each step ended, up to the one that raised.
        """
        for stage in self._stages:
            first_event = len(events)
            running = _Running(stage, self._instances, record)
            self._crew.help(running.work, stage.width - 1)
            running.work()
            end = running.end
            events[first_event:] = sorted(
                (event for event in events[first_event:] if self._index[event.task] <= end),
                key=lambda event: self._index[event.task],
            )
            for at in stage.steps:
                if at < end:
                    ends_ns.append(max([running.ended_ns[at], *ends_ns[-1:]]))
                elif at > end:
                    for message in outputs_of_step(self._plan.steps[at], record.messages):
                        message.clear()
            if running.failed:
                return int(end), running.failed[int(end)]
        return None


class _Running:
    """A stage that runs; any number of threads work on it, and each leaves when nothing is left to do.

    failed: by step, what it raised.
    ended_ns: by step, when it ended, in `ticks_ns`.
    """

    def __init__(self, stage: _Stage, instances: Sequence[Instance], record: CycleRecord) -> None:
        self.failed: dict[int, BaseException] = {}
        self.ended_ns: dict[int, int] = {}
        self._stage = stage
        self._instances, self._record = instances, record
        self._waits = dict(stage.waits)
        self._ready = [at for at in stage.steps if not self._waits[at]]
        self._under_way = 0
        self._changed = threading.Condition()

    @property
    def end(self) -> float:
        """The first step that has raised; those after it count as not run. Infinite if none has."""
        return min(self.failed, default=math.inf)

    def work(self) -> None:
        """Run steps until none is left. Raises nothing but what ends the process."""
        while (at := self._begin()) is not None:
            error: BaseException | None = None
            try:
                run_step(self._instances[at], self._record, at)
            except BaseException as raised:
                if is_users(raised):
                    self._note(at, raised)
                    raise
                error = raised
            self._note(at, error)

    def _begin(self) -> int | None:
        """The next step to run, when there is one; None if none will be."""
        with self._changed:
            while True:
                while self._ready and self._ready[0] > self.end:
                    heappop(self._ready)
                if self._ready:
                    self._under_way += 1
                    return heappop(self._ready)
                if not self._under_way:
                    return None
                self._changed.wait()

    def _note(self, at: int, error: BaseException | None) -> None:
        with self._changed:
            self._under_way -= 1
            self.ended_ns[at] = ticks_ns()
            if error is not None:
                self.failed[at] = error
            else:
                for fed in self._stage.feeds[at]:
                    self._waits[fed] -= 1
                    if not self._waits[fed]:
                        heappush(self._ready, fed)
            self._changed.notify_all()


def run_step(made: Instance, record: CycleRecord, at: int) -> None:  # noqa: ARG001  # `Whereabouts` looks
    """Call the step at `at` of a record, if its gate is open.

    made: the step's task.
    """
    gate, call = record.calls[at]
    if not gate.present:
        return
    for envelope in record.outputs[at]:
        envelope.is_open = True
    try:
        call()
    finally:
        for envelope in record.outputs[at]:
            envelope.is_open = False


def _stages(plan: Plan, alone: Collection[int]) -> list[_Stage]:
    stages = []
    steps: list[int] = []
    for at in range(plan.source_count, len(plan.steps)):
        if at in alone:
            stages += [_stage(plan, it) for it in (steps, [at]) if it]
            steps = []
        else:
            steps.append(at)
    return [*stages, _stage(plan, steps)] if steps else stages


def _stage(plan: Plan, steps: Sequence[int]) -> _Stage:
    made_by = {
        argument.slot: at
        for at in steps
        for argument in plan.steps[at].arguments
        if argument.port.is_output
    }
    feeds: dict[int, list[int]] = {at: [] for at in steps}
    waits = dict.fromkeys(steps, 0)
    far = dict.fromkeys(steps, 0)
    for at in steps:
        slots = {it.slot for it in plan.steps[at].arguments if not it.port.is_output}
        for feeder in {made_by[slot] for slot in slots if slot in made_by}:
            feeds[feeder].append(at)
            waits[at] += 1
            far[at] = max(far[at], far[feeder] + 1)
    return _Stage(tuple(steps), waits, feeds, max(Counter(far.values()).values()))
