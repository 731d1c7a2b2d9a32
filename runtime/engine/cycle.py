"""What a cycle is. Live runs, replays, tests of one task and `flowrun ask` all use it.

::

    take_outside   the record is cleared; time stands still from now on
                   what came from outside is applied: live values, results of background tasks
                   the sources run; if nothing has come at all, this was no cycle
    run_rest       the other steps, in the plan's order, each if its gate is open
    commit         messages, events and step table go to the log, also of a cycle that an error ended

A step that raises ends the cycle; `Cycle.failure` carries which task did so, in what, and the cause.
The errors of a task with another policy than `stop` are handled by that (`policy`), which at most ends
the cycle, by `SkipCycle`.

What comes from outside is asked of an `Outside`, and nothing else here depends on whether it is live.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flowrun.msgs.message import Message, MessageTypeError
from flowrun.runtime.clock import ticks_ns
from flowrun.runtime.engine.background import bind_background
from flowrun.runtime.engine.instances import Instance, changed_config
from flowrun.runtime.engine.keyframes import Keyframes
from flowrun.runtime.engine.outside import Outside
from flowrun.runtime.engine.policy import (
    FailedInPhase,
    SkipCycle,
    error_text,
    policies_of,
    reconfigure,
    refusal,
)
from flowrun.runtime.engine.rates import RatedGate, is_rated, rate_of
from flowrun.runtime.engine.record import (
    StepCall,
    call_process,
    make_record,
    outputs_of_step,
)
from flowrun.runtime.errors import RAISED_BY_TASKS, InternalError, RecordedError, TaskError
from flowrun.runtime.events import Event, Failed, Set
from flowrun.runtime.graph.plan import Plan, Slot, Step
from flowrun.runtime.task import CycleTime

__all__ = ["Cycle", "CycleLog", "Failure"]


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
        events: Sequence[Event],
        keyframe: bytes | None = None,
    ) -> None:
        """Write a cycle: the messages of `bound` that are present, the step table, the events, and what
        the tasks remembered before it, if given. Raises `MessageTypeError` for a message that the log
        cannot hold, and `LogError` where the log ends before the run does."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of a task that ends the run.

    phase: what the task was doing: "process", "configure", "publish" or "publishing 'port'".
    cause: what it raised.
    """

    task_id: str
    cycle: int
    phase: str
    cause: BaseException

    @property
    def error(self) -> TaskError:
        """To be raised from `cause`."""
        error = TaskError(self.task_id, cycle=self.cycle, phase=self.phase, cause=self.cause)
        error.__cause__ = self.cause
        return error


class Cycle:
    """The cycles of a plan, one after the other.

    outside: what the tasks that run do not make.
    instances: of all tasks, by id. Those for which `outside.bind` gives a call are never called.
    running: the ids of those that run.
    time: what the tasks' contexts show; the caller sets `time.cycle` before each cycle.
    log: where cycles go; None keeps nothing. It may be set to None between two cycles.
    """

    def __init__(
        self,
        plan: Plan,
        outside: Outside,
        *,
        instances: Mapping[str, Instance],
        running: frozenset[str],
        time: CycleTime,
        log: CycleLog | None = None,
    ) -> None:
        self.plan = plan
        self.time = time
        self.log: CycleLog | None = None
        self.events: list[Event] = []
        """What has happened in the cycle so far."""
        self.start_ns = 0
        """When it began, in `ticks_ns`."""
        self.ends_ns: list[int] = []
        """When each step that is over ended, in `ticks_ns`."""
        self.failure: Failure | None = None
        """The error that ended the cycle, and ends the run."""
        self.keyframe: bytes | None = None
        """What the tasks remembered before the cycle; committed with it, once."""
        self.around: Callable[[str, Callable[[], None]], None] | None = None
        """Calls each task that runs, in `step`: `around(task_id, call)`."""
        self._outside = outside
        self._running = running
        self._instances = instances
        self._secrets = plan.graph.spec.secrets
        self._is_skipped = False
        self.rates = {step.task.id: rate_of(step) for step in plan.steps}
        self.policies = policies_of(
            [made for id_, made in instances.items() if id_ in running], time,
            note=self.note, secrets=self._secrets,
        )  # fmt: skip
        inner = [step.task.id for step in plan.steps[plan.source_count :]]
        self.keyframes = Keyframes(
            [instances[id_] for id_ in inner if id_ in running],
            policies=self.policies, rates=self.rates, background=outside.background,
            secrets=self._secrets,
        )  # fmt: skip
        ring_size = plan.graph.spec.runtime.ring_size
        self._ring = [make_record(plan, time, self._bind_step) for _ in range(ring_size)]
        self._source_messages = [
            [record.messages[slot.index] for slot in plan.slots if self._is_of_source(slot)]
            for record in self._ring
        ]
        self._index = 0
        self._bound: list[Any] = []
        if log is not None:
            self.log_to(log)

    def log_to(self, log: CycleLog) -> None:
        """Write the cycles that come to `log`."""
        self.log = log
        self._bound = [log.bind(record.messages) for record in self._ring]

    @property
    def messages(self) -> tuple[Message, ...]:
        """By slot index, as the cycle has made them."""
        return self._ring[self._index].messages

    @property
    def calls(self) -> list[StepCall]:
        """Gate and call of each step of the plan, in its order, on the cycle's messages."""
        return self._ring[self._index].calls

    # -- a cycle at once -------------------------------------------------------------------------

    def take_outside(self) -> bool:
        """Begin a cycle and run the sources; False if nothing came, and this is none.

        The same `time.cycle` begins again then.
        """
        self.begin()
        if self.failure is not None:
            return True
        self._run(self._ring[self._index].sources, 0)
        self.events += self._outside.after_sources()
        return (
            bool(self.events)
            or self.failure is not None
            or any(message.present for message in self._source_messages[self._index])
            or any(task.jobs.has_taken for task in self._outside.background.values())
        )

    def run_rest(self) -> None:
        """Run the steps after the sources."""
        if self.failure is None and not self._is_skipped:
            self._run(self._ring[self._index].steps, self.plan.source_count)

    def _run(self, calls: Sequence[StepCall], at: int) -> None:
        end = self.ends_ns.append
        try:
            for gate, call in calls:
                if gate.present:
                    call()
                end(ticks_ns())
                at += 1
        except SkipCycle:
            self._is_skipped = True
        except RAISED_BY_TASKS as error:
            self._fail(self.plan.steps[at].task.id, error)

    # -- a cycle step by step --------------------------------------------------------------------

    def begin(self) -> None:
        """Clear the record, and apply what came from outside."""
        self._index = self.time.cycle % len(self._ring)
        self._ring[self._index].clear()
        self.events = []
        self.ends_ns = []
        self.failure = None
        self._is_skipped = False
        self.start_ns = start_ns = ticks_ns()
        for event in self._outside.begin(self.time, start_ns):
            if self.failure is not None:
                return
            if type(event) is Failed and event.policy == "stop":
                cause = RecordedError(event.text)
                self.failure = Failure(event.task, self.time.cycle, event.phase, cause)
                return
            self.events.append(event)
            if type(event) is Set and event.task in self._running:
                self._configure(event)

    @property
    def next_step(self) -> int | None:
        """The index of the step that `step` runs next; None at the end of the cycle."""
        done = len(self.ends_ns)
        is_over = self.failure is not None or self._is_skipped or done == len(self.plan.steps)
        return None if is_over else done

    def step(self) -> Step | None:
        """Run the next step, sources included; None at the end of the cycle."""
        at = self.next_step
        if at is None:
            return None
        step = self.plan.steps[at]
        gate, call = self._ring[self._index].calls[at]
        around = self.around
        if around is not None and step.task.id in self._running:
            bare, task_id = call, step.task.id

            def call() -> None:
                around(task_id, bare)

        self._run([(gate, call)], at)
        sources = self.plan.source_count
        if at == sources - 1 or (at < sources and self.next_step is None):
            self.events += self._outside.after_sources()
        return step

    def note(self, event: Event) -> None:
        """Something happens in the cycle."""
        self.events.append(event)

    # -- what comes of it ------------------------------------------------------------------------

    def commit(self) -> None:
        """Write the cycle to the log, if there is one.

        A message that the log refuses becomes the cycle's `failure`; the cycle is then written without
        all that its task published. Raises `LogError` if the log cannot be written.
        """
        missing = len(self.plan.steps) - len(self.ends_ns)
        if missing:
            self.ends_ns += [ticks_ns()] * missing
        if self.failure is not None:
            self._note_failure(self.failure)
            if self.log is not None:
                self.leave_out_refused()
        while self.log is not None:
            try:
                self._write(self.log)
                return
            except MessageTypeError as error:
                failures = self.leave_out_refused()
                if not failures:
                    raise InternalError(f"the log refuses what it accepted: {error}") from error
                self.failure = self.failure or failures[0]

    def _note_failure(self, failure: Failure) -> None:
        phase = "publish" if failure.phase.startswith("publish") else failure.phase
        text = error_text(failure.cause, self._secrets)
        self.note(Failed(failure.task_id, "stop", text, phase))

    def leave_out_refused(self) -> list[Failure]:
        """Clear all outputs of the tasks that published what the log refuses, and note their errors."""
        failures: dict[str, Failure] = {}
        for slot, message in zip(self.plan.slots, self.messages, strict=True):
            cause = refusal(slot, message)
            if cause is not None and slot.task_id not in failures:
                phase = f"publishing {slot.port!r}"
                failures[slot.task_id] = Failure(slot.task_id, self.time.cycle, phase, cause)
        for failure in failures.values():
            self._note_failure(failure)
        for slot, message in zip(self.plan.slots, self.messages, strict=True):
            if slot.task_id in failures:
                message.clear()
        return list(failures.values())

    def _write(self, log: CycleLog) -> None:
        log.commit(
            self.time.cycle, self.time.now_ns, self._bound[self._index],
            start_ns=self.start_ns, ends_ns=self.ends_ns, events=self.events,
            keyframe=self.keyframe,
        )  # fmt: skip
        self.keyframe = None

    # -- inside ----------------------------------------------------------------------------------

    def _fail(self, task_id: str, error: BaseException) -> None:
        phase = "process"
        if isinstance(error, FailedInPhase) and error.__cause__ is not None:
            phase, error = error.phase, error.__cause__
        self.failure = Failure(task_id, self.time.cycle, phase, error)

    def _configure(self, event: Set) -> None:
        made = self._instances[event.task]
        background = self._outside.background.get(made.id)
        try:
            if background is not None:
                jobs = background.jobs
                jobs.config = changed_config(made.bound, jobs.config, event.values)
            else:
                new = changed_config(made.bound, made.task.config, event.values)
                reconfigure(made, new, self.policies.get(made.id))
        except RAISED_BY_TASKS as error:
            self.failure = Failure(made.id, self.time.cycle, "configure", error)

    def _is_of_source(self, slot: Slot) -> bool:
        return self._instances[slot.task_id].bound.is_source

    def _bind_step(self, step: Step, messages: tuple[Message, ...]) -> StepCall:
        outside = self._outside.bind(step, messages)
        if outside is not None:
            return outside
        made = self._instances[step.task.id]
        policy = self.policies.get(made.id)
        background = self._outside.background.get(made.id)
        if background is not None:
            return bind_background(
                background, step, messages,
                time=self.time, rate=self.rates[made.id], policy=policy, note=self.note,
            )  # fmt: skip
        gate, call = call_process(step, messages, made.task, made.ctx)
        if policy is not None:
            call = policy.guard(call, outputs_of_step(step, messages))
        if made.bound.is_source:
            gate = made.gate
        if is_rated(step):
            gate = RatedGate(gate, self.rates[made.id], self.time)
        return gate, call
