"""Runs a plan live: one cycle after another, until its sources end or somebody stops it.

A cycle happens when something came from outside: a source published, a control message arrived, or
a background task is done. Otherwise nothing runs and no cycle number is used: the executor sleeps
until a source wakes it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import msgpack

from flowrun.msgs.message import Message, MessageTypeError
from flowrun.runtime.broadcast import Broadcast
from flowrun.runtime.clock import Clock, ManualClock, ticks_ns
from flowrun.runtime.engine.background import BackgroundWorker, bind_background
from flowrun.runtime.engine.instances import (
    Instance,
    SourceHooks,
    changed_config,
    make_instances,
    start_all,
    stop_all,
)
from flowrun.runtime.engine.keyframes import Keyframes, freeze_behind
from flowrun.runtime.engine.policy import (
    SkipCycle,
    error_text,
    guarded,
    policies_of,
    reconfigure,
    refusal,
)
from flowrun.runtime.engine.rates import Rate, RatedGate, is_rated, rate_of
from flowrun.runtime.engine.record import StepCall, call_process, make_record
from flowrun.runtime.errors import RAISED_BY_TASKS, LogError, TaskError, UsageError
from flowrun.runtime.events import Event, event
from flowrun.runtime.graph.plan import Plan, Step
from flowrun.runtime.task import CycleTime, TaskConfig

__all__ = ["CycleLog", "Executor", "StartInterrupted", "publishing_errors"]

IDLE_POLL_NS = 10_000_000
"""How often a source is asked that said neither `wake` nor `wake_at`."""

WORKER_STOP_S = 10.0
"""How long a run that is stopped waits for a background task's running call."""
_SILENT_STOP_S = 0.5
"""How long it does so without saying it."""


class CycleLog(Protocol):
    """Where cycles are written; `LogWriter` is one."""

    def bind(self, messages: Sequence[Message]) -> Any:
        """Prepare to commit these messages, by slot index, again and again."""
        ...

    def commit(
        self,
        cycle: int,
        now_ns: int,
        bound: Any,
        *,
        start_ns: int,
        ends_ns: list[int],
        events: list[Event],
        keyframe: bytes | None = None,
    ) -> None:
        """Write a cycle: what of `bound` is present, the step table, the events, and what the tasks
        remembered in front of it, if given. Raises `LogError` where the log ends before the run
        does."""
        ...


class StartInterrupted(KeyboardInterrupt):
    """Whoever runs the graph wants it to end while its tasks start. No `Exception`: what a task
    calls in its `start` lets it pass, as it does Ctrl-C."""


@dataclass(slots=True)
class _SourceGate:
    present: bool = True


class _ConfigureError(Exception):
    """`configure` of a task raised the cause."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id


class Executor:
    """A live run of `plan`.

    clock: the cycles' time; a `ManualClock` moves to the next wake-up instead of sleeping.
    log: where cycles go; None keeps nothing.
    on_log_error: called once with what ended the log, and the run goes on without; None ends it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Clock,
        log: CycleLog | None = None,
        on_log_error: Callable[[LogError], None] | None = None,
        broadcasts: Mapping[str, Broadcast] | None = None,
    ) -> None:
        self.plan = plan
        self.cycles = 0
        """How many cycles have been completed."""
        self.timings: deque[tuple[int, list[int]]] = deque(maxlen=1024)
        """(start, end of each step) of the last cycles, in `ticks_ns`."""
        self.stop_reason: str | None = None
        self.starting: str | None = None
        """The task whose `start` runs now."""
        self.has_started = False
        """Whether the `start` of every task has returned."""
        self._clock = clock
        self._log = log
        self._on_log_error = on_log_error
        self._time = CycleTime()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._due: dict[str, int] = {}
        self._noted: list[Event] = []
        self._gates = {step.task.id: _SourceGate() for step in plan.steps[: plan.source_count]}
        self._controls: deque[tuple[str, dict[str, Any], TaskConfig]] = deque()
        self._control_lock = threading.Lock()
        hooks = SourceHooks(
            clock=clock.now_ns, wake=self._wake.set, wake_at=self._wake_at, finish=self._finish,
            dropped=self._note_dropped, logged=log is not None,
        )  # fmt: skip
        self.instances = make_instances(plan, self._time, broadcasts=broadcasts or {}, hooks=hooks)
        self._keyframe_interval = plan.graph.spec.logging.keyframe_interval if log else 0
        self.workers: dict[str, BackgroundWorker] = {}
        for step in plan.steps:
            if step.task.spec.background:
                made = self.instances[step.task.id]
                freeze = None
                if self._keyframe_interval:
                    freeze = partial(
                        freeze_behind, made, restarts=step.task.spec.on_error == "restart",
                        secrets=plan.graph.spec.secrets,
                    )  # fmt: skip
                self.workers[made.id] = BackgroundWorker(
                    step, made.task, made.ctx, made.time, wake=self._wake.set, freeze=freeze
                )
        self._policies = policies_of(
            self.instances.values(), self._time,
            note=self._noted.append, secrets=plan.graph.spec.secrets,
        )  # fmt: skip
        self._rates = {step.task.id: rate_of(step) for step in plan.steps}
        self._keyframes = Keyframes(
            [self.instances[step.task.id] for step in plan.steps[plan.source_count :]],
            policies=self._policies, rates=self._rates, background=self.workers,
            secrets=plan.graph.spec.secrets,
        )  # fmt: skip
        self._keyframe: bytes | None = None
        """For the cycle that is committed next."""
        self._rated_sources = [
            step.task.id for step in plan.steps[: plan.source_count] if is_rated(step)
        ]
        self._pace = Rate(every=1, rate_hz=plan.graph.spec.runtime.rate_hz)
        self._configs = {id_: made.task.config for id_, made in self.instances.items()}
        ring_size = plan.graph.spec.runtime.ring_size
        self._ring = [make_record(plan, self._time, self._bind_step) for _ in range(ring_size)]
        self._bound = [log.bind(record.messages) if log else None for record in self._ring]

    # -- from other threads --------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Ask the run to end after the cycle that is running. From any thread; a signal handler
        must leave it to one, since it may interrupt a holder of the locks that this takes."""
        if self.stop_reason is None:
            self.stop_reason = reason
        self._stopping.set()
        self._wake.set()

    def interrupt_start(self, reason: str) -> None:
        """While tasks start, raise `StartInterrupted`; otherwise nothing. For a signal handler of
        the thread that called `run`: a `start` may block for minutes, and nobody else can end it."""
        if self.starting is not None:
            self.stop_reason = reason
            raise StartInterrupted

    def set_live(self, task_id: str, values: Mapping[str, Any]) -> None:
        """Change live configuration values at the next cycle boundary. From any thread.

        Raises `UsageError` for an unknown task, a key that is not live, or a bad value.
        """
        made = self.instances.get(task_id)
        if made is None:
            raise UsageError(f"unknown task {task_id!r}; tasks: {', '.join(self.instances)}")
        with self._control_lock:
            new = changed_config(made.bound, self._configs[task_id], values)
            try:
                msgpack.packb(dict(values))
            except (TypeError, ValueError, OverflowError) as error:
                raise UsageError(
                    f"{task_id}: the log cannot hold {values!r:.80}: {error}"
                ) from None
            self._configs[task_id] = new
            self._controls.append((task_id, dict(values), new))
        self._wake.set()

    # -- the run -------------------------------------------------------------------------------

    def run(self, *, cycles: int | None = None) -> str:
        """Start the tasks, run until the end, stop the tasks; the reason why it ended.

        cycles: end after so many. Raises `TaskError` for what a task raised; all tasks are stopped
        then too. A run that is stopped before all tasks have started has no cycle.
        """
        instances = list(self.instances.values())
        try:
            start_all(instances, on_start=self._note_start)
        except (StartInterrupted, Exception):
            if self.stop_reason is None:
                raise
            return self.stop_reason  # an error may be what a library made of the interrupt
        self.has_started = True
        try:
            if self._keyframe_interval:
                self._keyframes.begin()
            for worker in self.workers.values():
                worker.start()
            self._loop(cycles)
        finally:
            self._stop_workers()
            stop_all(instances)
        assert self.stop_reason is not None
        return self.stop_reason

    def _stop_workers(self) -> None:
        for worker in self.workers.values():
            worker.interrupt()
        for id_, worker in self.workers.items():
            if worker.stop(timeout_s=min(_SILENT_STOP_S, WORKER_STOP_S)):
                continue
            log = self.instances[id_].ctx.log
            log.info("waiting for its running call", up_to_s=WORKER_STOP_S)
            if not worker.stop(timeout_s=WORKER_STOP_S):
                log.warning("still running; left behind")

    def _note_start(self, task_id: str | None) -> None:
        if task_id is not None and self.stop_reason is not None:
            raise StartInterrupted
        self.starting = task_id

    def _loop(self, max_cycles: int | None) -> None:
        time, ring, bound, log = self._time, self._ring, self._bound, self._log
        clock_at, timings, workers = self._clock.at, self.timings, self.workers
        source_slots = [
            [m for m, slot in zip(record.messages, self.plan.slots, strict=True)
             if slot.task_id in self._gates]
            for record in ring
        ]  # fmt: skip
        noted, controls = self._noted, self._controls
        size, polled = len(ring), False
        last = max_cycles if max_cycles is not None else -1
        paced = self.plan.graph.spec.runtime.rate_hz is not None
        next_keyframe = 0 if self._keyframe_interval else -1
        while self.stop_reason is None:
            cycle = self.cycles
            if cycle == last:
                self.stop_reason = f"reached --cycles {max_cycles}"
                break
            if cycle == next_keyframe:
                # Once, though sources may have to be asked several times before the cycle is.
                self._keyframe = self._keyframes.take()
                next_keyframe = cycle + self._keyframe_interval
            if paced:
                self._wait_for_pace()
            index = cycle % size
            record = ring[index]
            record.clear()
            time.cycle = cycle
            start = ticks_ns()
            time.now_ns = now_ns = clock_at(start)
            events: list[Event] = []
            ends: list[int] = []
            end = ends.append
            idle = False
            try:
                if controls:
                    self._apply_controls(events)
                if workers:
                    self._take_results(events)
                for gate, call in record.sources:
                    if gate.present:
                        call()
                    end(ticks_ns())
                source_failed = False
                if noted:
                    self._take_noted(events)
                    source_failed = any(item["kind"] == "error" for item in events)
                idle = not events
                if idle:
                    for message in source_slots[index]:
                        if message.present:
                            idle = False
                            break
                if idle:
                    if self._is_over():
                        self.stop_reason = "end of sources"
                    elif polled:
                        self._sleep(now_ns)
                    else:
                        # Sources are asked once more, so that a wake-up since then is not lost.
                        self._wake.clear()
                    polled = not polled
                    continue
                for gate, call in record.steps:
                    if gate.present:
                        call()
                    end(ticks_ns())
            except SkipCycle:
                source_failed = len(ends) < self.plan.source_count
                ends += [ticks_ns()] * (len(self.plan.steps) - len(ends))
            except RAISED_BY_TASKS as error:
                if idle and isinstance(error, SystemExit):
                    raise  # of a signal's handler, while nothing ran
                self._fail(error, index, events, start_ns=start, ends_ns=ends)
            polled = False
            if noted:
                self._take_noted(events)
            if log is not None:
                try:
                    log.commit(
                        cycle, now_ns, bound[index], start_ns=start, ends_ns=ends, events=events,
                        keyframe=self._keyframe,
                    )  # fmt: skip
                    self._keyframe = None
                except MessageTypeError as error:
                    self._fail_publish(error, index, events, start_ns=start, ends_ns=ends)
                except LogError as error:
                    self._lose_log(error)
                    log = None
            timings.append((start, ends))
            self.cycles = cycle + 1
            if paced:
                self._pace.admits(time)
            if source_failed and not isinstance(self._clock, ManualClock):
                self._stopping.wait(IDLE_POLL_NS / 1e9)  # it may fail for ever, and at once

    def _fail(
        self,
        error: BaseException,
        index: int,
        events: list[Event],
        *,
        start_ns: int,
        ends_ns: list[int],
    ) -> None:
        """Write the cycle as far as it came, so that its inputs can be looked at, and raise."""
        task_id, phase = (
            self.plan.steps[min(len(ends_ns), len(self.plan.steps) - 1)].task.id,
            "process",
        )
        if isinstance(error, _ConfigureError) and error.__cause__ is not None:
            task_id, phase, error = error.task_id, "configure", error.__cause__
        cycle = self._time.cycle
        failure = TaskError(task_id, cycle=cycle, phase=phase, cause=error)
        self._take_noted(events)
        text = error_text(error, self.plan.graph.spec.secrets)
        events.append(event("error", task_id, key="stop", value=text))
        self.stop_reason = str(failure)
        if self._log is not None:
            ends_ns += [ticks_ns()] * (len(self.plan.steps) - len(ends_ns))
            # A task in front may have published what cannot be written.
            self._leave_out_refused(self._ring[index].messages, events)
            try:
                self._commit_last(index, events, start_ns=start_ns, ends_ns=ends_ns)
            except (MessageTypeError, LogError) as unwritable:
                raise failure from unwritable
        raise failure from error

    def _fail_publish(
        self,
        error: MessageTypeError,
        index: int,
        events: list[Event],
        *,
        start_ns: int,
        ends_ns: list[int],
    ) -> None:
        """Write the cycle without what the task published whose message cannot be written; raise."""
        failures = self._leave_out_refused(self._ring[index].messages, events)
        if not failures:
            raise error
        failure = failures[0]
        self.stop_reason = str(failure)
        try:
            self._commit_last(index, events, start_ns=start_ns, ends_ns=ends_ns)
        except (MessageTypeError, LogError) as unwritable:
            raise failure from unwritable
        raise failure from failure.__cause__

    def _leave_out_refused(
        self, messages: Sequence[Message], events: list[Event]
    ) -> list[TaskError]:
        """Clear all outputs of the tasks of which the log refuses one, and note their errors."""
        failures = publishing_errors(self.plan, messages, self._time.cycle)
        for failure in failures:
            assert failure.__cause__ is not None
            text = error_text(failure.__cause__, self.plan.graph.spec.secrets)
            events.append(event("error", failure.task_id, key="stop", value=text))
        failed = {failure.task_id for failure in failures}
        for slot, message in zip(self.plan.slots, messages, strict=True):
            if slot.task_id in failed:
                message.clear()
        return failures

    def _commit_last(
        self, index: int, events: list[Event], *, start_ns: int, ends_ns: list[int]
    ) -> None:
        assert self._log is not None
        self._log.commit(
            self._time.cycle, self._time.now_ns, self._bound[index],
            start_ns=start_ns, ends_ns=ends_ns, events=events, keyframe=self._keyframe,
        )  # fmt: skip
        self.cycles = self._time.cycle + 1

    def _lose_log(self, error: LogError) -> None:
        if self._on_log_error is None:
            self.stop_reason = str(error)
            raise error
        self._log = None
        self._on_log_error(error)

    # -- what comes from outside ---------------------------------------------------------------

    def _bind_step(self, step: Step, messages: tuple[Message, ...]) -> StepCall:
        made = self.instances[step.task.id]
        worker = self.workers.get(made.id)
        if worker is not None:
            gate, call = bind_background(
                worker,
                messages,
                time=self._time,
                rate=self._rates[made.id],
                policy=self._policies.get(made.id),
                note=self._noted.append,
            )
            return gate, guarded(self._policies, step, call, messages)
        gate, call = call_process(step, messages, made.task, made.ctx)
        call = guarded(self._policies, step, call, messages)
        if made.bound.is_source:
            gate = self._gates[made.id]
        if is_rated(step):
            gate = RatedGate(gate, self._rates[made.id], self._time)
        return gate, call

    def _wake_at(self, task_id: str, time_ns: int) -> None:
        self._due[task_id] = time_ns

    def _finish(self, task_id: str) -> None:
        if self._gates[task_id].present:
            self._gates[task_id].present = False
            self._due.pop(task_id, None)
            self._noted.append(event("end_of_source", task_id))
            self._wake.set()

    def _note_dropped(self, task_id: str, count: int) -> None:
        self._noted.append(event("dropped", task_id, value=count))

    def _take_noted(self, events: list[Event]) -> None:
        while self._noted:
            events.append(self._noted.pop(0))

    def _apply_controls(self, events: list[Event]) -> None:
        while self._controls:
            task_id, values, new = self._controls.popleft()
            events.append(event("set", task_id, value=values))
            self._configure(self.instances[task_id], new)

    def _configure(self, made: Instance, new: TaskConfig) -> None:
        worker = self.workers.get(made.id)
        if worker is not None:
            worker.config = new
            return
        policy = self._policies.get(made.id)
        try:
            reconfigure(made, new, policy)
        except RAISED_BY_TASKS as error:
            raise _ConfigureError(made.id) from error

    def _take_results(self, events: list[Event]) -> None:
        for task_id, worker in self.workers.items():
            if worker.has_result:
                job = worker.take()
                if job is not None:
                    events.append(
                        event("completion", task_id, value=job.restarts, input_cycle=job.cycle)
                    )

    def _is_over(self) -> bool:
        return not any(gate.present for gate in self._gates.values()) and not any(
            worker.busy for worker in self.workers.values()
        )

    def _sleep(self, now_ns: int) -> None:
        """Until somebody wakes us, a source is due, or it is time to ask the sources again."""
        for task_id in self._rated_sources:
            due_ns = self._rates[task_id].due_ns
            if due_ns is not None and self._gates[task_id].present:
                self._due[task_id] = max(due_ns, self._due.get(task_id, 0))
        due = min(self._due.values(), default=None)
        if isinstance(self._clock, ManualClock):
            if due is not None:
                self._clock.advance_to(due)
                self._forget_due(due)
                return
            self._wake.wait(IDLE_POLL_NS / 1e9)
            return
        until = now_ns + IDLE_POLL_NS if due is None else min(due, now_ns + IDLE_POLL_NS)
        wait_ns = until - self._clock.now_ns()
        if wait_ns > 0:
            self._wake.wait(wait_ns / 1e9)
        if due is not None:
            self._forget_due(self._clock.now_ns())

    def _wait_for_pace(self) -> None:
        """Until the graph's own `rate_hz` admits another cycle; `stop` ends the wait."""
        due_ns = self._pace.due_ns
        if due_ns is None:
            return
        if isinstance(self._clock, ManualClock):
            self._clock.advance_to(due_ns)
        while (wait_ns := due_ns - self._clock.now_ns()) > 0 and self.stop_reason is None:
            self._stopping.wait(wait_ns / 1e9)

    def _forget_due(self, now_ns: int) -> None:
        for task_id in [id_ for id_, due in self._due.items() if due <= now_ns]:
            del self._due[task_id]


def publishing_errors(plan: Plan, messages: Sequence[Message], cycle: int) -> list[TaskError]:
    """Of a cycle that cannot be logged: an error for each task that published what it may not."""
    failures: dict[str, TaskError] = {}
    for slot, message in zip(plan.slots, messages, strict=True):
        cause = refusal(slot, message)
        if cause is not None and slot.task_id not in failures:
            phase = f"publishing {slot.port!r}"
            failure = TaskError(slot.task_id, cycle=cycle, phase=phase, cause=cause)
            failure.__cause__ = cause
            failures[slot.task_id] = failure
    return list(failures.values())
