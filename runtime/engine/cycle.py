"""What a cycle is. Live runs, replays, tests of one task and `flowrun ask` all use it.

::

    begin     clear the record; fix the time for the whole cycle;
              apply what came from outside: live values, results of background tasks
    step      run the sources; if nothing has come by then, there is no cycle
    step ...  run the other steps in the plan's order, each if its gate is open
    commit    write messages, events and step table to the log, also after an error

A message that somebody has published from outside is its port's message of the cycle. A source waits
for the next cycle, so that nothing of it is lost, and so does the result of a background task; any
other task runs as ever, for what it remembers, and its own message on that port is not seen.

`run` does all but the commit in one call, which `compiled` makes for the plan. Replays, debuggers and
tests go step by step.

A step that raises ends the cycle; `Cycle.failure` names the task, what it was doing, and the cause.
A policy other than `stop` handles its task's errors itself (`policy`); at most it ends the cycle, by
`SkipCycle`.

An `Outside` gives what comes from outside; nothing else here depends on whether it is live.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import CodeType, FunctionType
from typing import Any, Protocol

from flowrun.msgs.fields import LatePublishError, MessageTypeError
from flowrun.msgs.message import Message
from flowrun.runtime.clock import ticks_ns
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.background import bind_background
from flowrun.runtime.engine.compiled import compile_cycle
from flowrun.runtime.engine.instances import Instance, changed_config
from flowrun.runtime.engine.keyframes import Keyframes
from flowrun.runtime.engine.outside import Outside
from flowrun.runtime.engine.parallel import Crew, ParallelSteps
from flowrun.runtime.engine.policy import (
    FailedInPhase,
    Raised,
    SkipCycle,
    error_text,
    failed,
    policies_of,
    reconfigure,
)
from flowrun.runtime.engine.rates import RatedGate, is_rated, rate_of
from flowrun.runtime.engine.record import (
    BoundView,
    StepCall,
    call_process,
    make_record,
    outputs_of_step,
)
from flowrun.runtime.engine.watch import Kept, KeptInputs, MessageWatch
from flowrun.runtime.errors import InternalError, MessageMisused, RecordedError, TaskError
from flowrun.runtime.events import OUTSIDE, Event, Failed, Injected, Set, Switched
from flowrun.runtime.graph.plan import Plan, Step
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.task import Context

__all__ = ["Cycle", "CycleLog", "Failure"]


class CycleLog(Protocol):
    """Where cycles are written; `LogWriter` is one."""

    def check(self) -> None:
        """Raise the `LogError` that keeping what was committed has met since. Takes no time."""
        ...

    def bind(self, messages: Sequence[Message]) -> Any:
        """Prepare to commit these messages, by slot index, in many cycles."""
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
        """Write a cycle: the messages of `bound` that are present, the step table and the events.

        bound: what `bind` returned for the cycle's messages.
        start_ns: when the cycle began, in `ticks_ns`.
        ends_ns: when each step ended, in `ticks_ns`.
        keyframe: what the tasks remembered before the cycle.

        Raises `MessageTypeError` for a message that the log cannot hold, and `LogError` if the log
        ends before the run does.
        """
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of a task that ends the run.

    phase: what the task was doing; see `events.Failed`.
    cause: what it raised.
    """

    task_id: str
    cycle: int
    phase: str
    cause: BaseException

    @property
    def error(self) -> TaskError:
        """The error to raise, with `cause` as its cause."""
        error = TaskError(self.task_id, cycle=self.cycle, phase=self.phase, cause=self.cause)
        error.__cause__ = self.cause
        return error


class Cycle:
    """The cycles of a plan, one after the other.

    outside: gives what the running tasks do not make.
    instances: all tasks, by id. A task for which `outside.bind` gives a call is never called.
    running: ids of the tasks that run.
    time: the time that the tasks' contexts show; the caller sets `time.cycle` before each cycle.
    log: where cycles are written; None writes none. It may be set to None between two cycles.
    watch: checks what the tasks do with messages; None does not.
    crew: the threads that `runs` has besides the caller's; None runs one step after the other.
    ticks: monotonic nanoseconds, of when it began and each step ended.
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
        watch: MessageWatch | None = None,
        crew: Crew | None = None,
        ticks: Callable[[], int] = ticks_ns,
    ) -> None:
        self.plan = plan
        self.time = time
        self._ticks = ticks
        self.log: CycleLog | None = None
        self.events: list[Event] = []
        """What has happened in the cycle so far."""
        self.start_ns = 0
        """When it began, in `ticks_ns`."""
        self.ends_ns: list[int] = []
        """When each completed step ended, in `ticks_ns`."""
        self.published: tuple[bool, ...] = ()
        """By slot index, whether it has a message; of a cycle that `runs` has run."""
        self.failure: Failure | None = None
        """The error that ended the cycle and ends the run."""
        self.keyframe: bytes | None = None
        """What the tasks remembered before the cycle; committed with it, once."""
        self.around: Callable[[str, Callable[[], None]], None] | None = None
        """If set, `step` calls each task through it: `around(task_id, call)`."""
        self._outside = outside
        self._running = running
        self._instances = instances
        self._secrets = plan.graph.spec.secrets
        self._is_skipped = False
        self._step_count = len(plan.steps)
        self._slots = {(slot.task_id, slot.port): slot.index for slot in plan.slots}
        self.rates = {step.task.id: rate_of(step) for step in plan.steps}
        self.policies = policies_of(
            [made for id_, made in instances.items() if id_ in running],
            time,
            note=self.note,
            secrets=self._secrets,
            restart=outside.restart,
        )
        inner = [step.task.id for step in plan.steps[plan.source_count :]]
        self.keyframes = Keyframes(
            [instances[id_] for id_ in inner if id_ in running],
            policies=self.policies,
            rates=self.rates,
            background=outside.background,
            secrets=self._secrets,
        )
        ring_size = plan.graph.spec.runtime.ring_size
        self._watch = watch
        self._views: list[BoundView] = []
        self._muted: set[str] = set()
        """The sources of which nothing is seen."""
        self._injected: dict[int, list[Injected]] = {}
        """What somebody has published on the ports of the cycle's steps, by the step's index."""
        self._late: deque[tuple[str, LatePublishError]] = deque()
        self._ring = [
            make_record(plan, time, self._bind_step, self._note_late) for _ in range(ring_size)
        ]
        self._parallel: ParallelSteps | None = None
        if crew is not None:
            alone = [at for at, step in enumerate(plan.steps) if _is_alone(step)]
            self._parallel = ParallelSteps(plan, crew, alone=alone, instances=instances)
        self.runs = [self._compiled(index) for index in range(ring_size)]
        """Cycle n, up to its commit, is run by `runs[n % len(runs)]`, with `time.cycle` set to n. It
        returns False if nothing came from outside: no cycle has run, and the caller tries n again."""
        self.codes = _codes_of(self.runs)
        """The code of what runs steps; its local `at` is the step that runs."""
        self._kept = KeptInputs(plan, self._views)
        self.index = 0
        """Which record of the ring the cycle has."""
        self._bound: list[Any] = []
        if log is not None:
            self.log_to(log)

    def log_to(self, log: CycleLog) -> None:
        """Write the following cycles to `log`."""
        self.log = log
        self._bound = [log.bind(record.messages) for record in self._ring]

    @property
    def messages(self) -> tuple[Message, ...]:
        """By slot index, as the cycle has made them."""
        return self._ring[self.index].messages

    @property
    def calls(self) -> tuple[StepCall, ...]:
        """Gate and call of each step of the plan, in its order, on the cycle's messages."""
        return self._ring[self.index].calls

    @property
    def silent(self) -> list[str]:
        """The tasks that were called, and have never published a message on any of their outputs."""
        called: dict[str, bool] = {}
        published = set()
        for record in self._ring:
            for slot, message in zip(self.plan.slots, record.messages, strict=True):
                envelope = message.envelope
                called[slot.task_id] = (
                    called.get(slot.task_id, False) or envelope.is_open is not None
                )
                if envelope.tov_ns or envelope.present:
                    published.add(slot.task_id)
        return [id_ for id_, was_called in called.items() if was_called and id_ not in published]

    def _compiled(self, index: int) -> Callable[[], bool]:
        names = {
            "cycle": self,
            "time": self.time,
            "ticks": self._ticks,
            "apply": self._apply_live,
            "late": self._late,
            "take_late": self._take_late,
            "outside": self._outside,
            "has_taken": self._has_taken,
            "skip": self._skip,
            "fail": self._fail,
        }
        sources = {step.task.id for step in self.plan.steps[: self.plan.source_count]}
        parallel = self._parallel
        return compile_cycle(
            self._ring[index],
            before=self._ring[index - 1],
            index=index,
            source_count=self.plan.source_count,
            source_slots=[slot.index for slot in self.plan.slots if slot.task_id in sources],
            names=names,
            inner=None if parallel is None else partial(parallel.run, self._ring[index]),
        )

    def _has_taken(self) -> bool:
        background = self._outside.background
        return bool(background) and any(task.jobs.has_taken for task in background.values())

    def raised(self, task_id: str) -> Raised | None:
        """What a task has raised so far, the error that ends the run included; from any thread."""
        policy, failure = self.policies.get(task_id), self.failure
        raised = None if policy is None else policy.raised
        if failure is None or failure.task_id != task_id:
            return raised
        text = error_text(failure.cause, self._secrets)
        count = 1 if raised is None else raised.count + 1
        return Raised(count, text, failure.cycle, self.time.now_ns)

    # -- a cycle step by step --------------------------------------------------------------------

    def begin(self) -> None:
        """Clear the record, and apply what came from outside. After an error, which is `failure` then,
        no step runs."""
        self._ring[self.index].forget_made()
        self.index = self.time.cycle % len(self._ring)
        self._ring[self.index].clear()
        self.events = []
        self.ends_ns = []
        self.failure = None
        self._is_skipped = False
        self._injected = {}
        self.start_ns = start_ns = self._ticks()
        if self._apply(self._outside.begin(self.time, start_ns)):
            self._take_late()

    @property
    def next_step(self) -> int | None:
        """The index of the step that `step` runs next; None at the end of the cycle."""
        done = len(self.ends_ns)
        is_over = self.failure is not None or self._is_skipped or done == self._step_count
        return None if is_over else done

    def step(self, instead: Callable[[], None] | None = None) -> Step | None:
        """Run the next step, sources included; None at the end of the cycle.

        instead: what to call in place of the step's own call, whether its gate is open or not.
        """
        at = self.next_step
        if at is None:
            return None
        step = self.plan.steps[at]
        record = self._ring[self.index]
        gate, call = record.calls[at]
        injected = self._injected.get(at)
        try:
            if injected is not None and at < self.plan.source_count:
                pass  # a source has its turn in the next cycle
            elif instead is not None or gate.present:
                for envelope in record.outputs[at]:
                    envelope.is_open = True
                if instead is not None:
                    instead()
                elif self.around is not None and step.task.id in self._running:
                    self.around(step.task.id, call)
                else:
                    call()
                for envelope in record.outputs[at]:
                    envelope.is_open = False
            if injected is not None:
                self._show_injected(injected, record.messages)
            self.ends_ns.append(self._ticks())
        except SkipCycle:
            self._skip(at, self.ends_ns)
        except BaseException as error:
            if is_users(error):
                raise
            self._fail(at, error, self.ends_ns)
        else:
            if at == self.plan.source_count - 1:
                self.events += self._outside.after_sources(True)
        return step

    def note(self, event: Event) -> None:
        """Add to the cycle's events."""
        self.events.append(event)

    # -- what comes of it ------------------------------------------------------------------------

    def commit(self) -> None:
        """Write the cycle to the log, if there is one. Raises `LogError` if that cannot be written."""
        watch, log = self._watch, self.log
        if watch is not None:
            self.check_messages()
        missing = self._step_count - len(self.ends_ns)
        if missing:
            self.ends_ns = [*self.ends_ns, *[self._ticks()] * missing]
        if self.failure is not None:
            self.note(self.event_of(self.failure))
        if log is not None:
            try:
                log.commit(
                    self.time.cycle,
                    self.time.now_ns,
                    self._bound[self.index],
                    start_ns=self.start_ns,
                    ends_ns=self.ends_ns,
                    events=self.events,
                    keyframe=self.keyframe,
                )
            except MessageTypeError as error:
                raise InternalError(f"the log refuses what was published: {error}") from error
            self.keyframe = None
        if watch is not None and self.failure is None:
            self._misused(partial(watch.retire, self._ring[self.index]))

    @property
    def kept_views(self) -> list[Kept]:
        """After a cycle: the inputs that tasks keep beyond it, as far as that costs nothing to see."""
        return list(self._kept.views())

    def check_messages(self) -> None:
        """At the end of the cycle, if messages are watched: a message that was changed becomes the
        cycle's `failure`."""
        if self._watch is not None and self.failure is None:
            self._misused(partial(self._watch.check, self._ring[self.index]))

    def kept_inputs(self) -> list[Kept]:
        """Before a cycle: the inputs that tasks keep, though the cycle is to use their slots again.

        If messages are watched, those of the cycle before, by raising `TaskError` for one of them."""
        if self._watch is None:
            record = self._ring[self.time.cycle % len(self._ring)]
            return [*self._kept.views(), *self._kept.arrays(record)]
        try:
            self._watch.retire(self._ring[self.index])
        except MessageMisused as error:
            failure = Failure(error.task_id, self.time.cycle, OUTSIDE, error)
            raise failure.error from error
        return []

    def _misused(self, check: Callable[[], None]) -> None:
        try:
            check()
        except MessageMisused as error:
            self.failure = Failure(error.task_id, self.time.cycle, OUTSIDE, error)

    def event_of(self, failure: Failure) -> Failed:
        """The event of an error that ends the run."""
        return failed(
            failure.task_id,
            failure.cause,
            policy="stop",
            phase=failure.phase,
            secrets=self._secrets,
        )

    # -- inside ----------------------------------------------------------------------------------

    def _apply(self, came: Sequence[Event]) -> bool:
        """Apply what came from outside; False if an error ended the cycle."""
        for event in came:
            if type(event) is Failed and event.policy == "stop":
                cause = RecordedError(event.text, event.place)
                self.failure = Failure(event.task, self.time.cycle, event.phase, cause)
            else:
                self.events.append(event)
                if type(event) is Set and event.task in self._running:
                    self._configure(event)
                elif type(event) is Switched and event.task in self._running:
                    self._switch(event)
                elif type(event) is Injected and event.task in self._running:
                    self._injected.setdefault(self._step_of(event.task), []).append(event)
            if self.failure is not None:
                self.ends_ns = []
                return False
        return True

    def _apply_live(self, came: Sequence[Event]) -> bool:
        """As `_apply`. False too if somebody has published messages: the cycle has run then, step by
        step, as what `compiled` makes does not look for them."""
        self.ends_ns = []
        self._is_skipped = False
        if not self._apply(came):
            return False
        if not self._injected:
            return True
        if not (self._late and self._take_late()):
            while self.step() is not None:
                pass
        self.published = tuple(message.present for message in self.messages)
        self._injected = {}
        return False

    def _show_injected(self, injected: Sequence[Injected], messages: Sequence[Message]) -> None:
        for event in injected:
            message = messages[self._slots[event.task, event.port]]
            tov_ns = self.time.now_ns if event.tov_ns is None else event.tov_ns
            message.clear()
            message.restore(message.decode_fields(event.data), tov_ns=tov_ns)

    def _step_of(self, task_id: str) -> int:
        [at] = [i for i, step in enumerate(self.plan.steps) if step.task.id == task_id]
        return at

    def _note_late(self, task_id: str, error: LatePublishError) -> None:
        self._late.append((task_id, error))

    def _take_late(self) -> bool:
        """Handle what tasks published outside `process` since the last cycle, on any thread; returns
        whether that ends the cycle, and the run.

        It has no place in a cycle, so that a policy other than `stop` only logs it."""
        while self._late:
            task_id, error = self._late.popleft()
            policy = self.policies.get(task_id)
            if policy is None:
                self.failure = Failure(task_id, self.time.cycle, OUTSIDE, error)
                self.ends_ns = []
                return True
            policy.note_late(error)
        return False

    def _skip(self, at: int, ends_ns: list[int]) -> None:
        """The step at `at` has ended the cycle."""
        self._is_skipped = True
        self.ends_ns = ends_ns
        for envelope in self._ring[self.index].outputs[at]:
            envelope.is_open = False
        if at < self.plan.source_count:
            self.events += self._outside.after_sources(True)

    def _fail(self, at: int, error: BaseException, ends_ns: list[int]) -> None:
        """The step at `at` has raised an error that ends the run."""
        self._skip(at, ends_ns)
        phase = "process"
        if isinstance(error, FailedInPhase) and error.__cause__ is not None:
            phase, error = error.phase, error.__cause__
        task_id = self.plan.steps[at].task.id
        if isinstance(error, MessageMisused):
            task_id = error.task_id
        self.failure = Failure(task_id, self.time.cycle, phase, error)

    def _configure(self, event: Set) -> None:
        made = self._instances[event.task]
        background = self._outside.background.get(made.id)
        try:
            if background is not None:
                jobs = background.jobs
                jobs.config = changed_config(made.bound, jobs.config, event.values)
            else:
                policy = self.policies.get(made.id)
                config = made.task.config if policy is None else policy.config
                new = changed_config(made.bound, config, event.values)
                reconfigure(made, new, policy)
        except BaseException as error:
            if is_users(error):
                raise
            self.failure = Failure(made.id, self.time.cycle, "configure", error)

    def _switch(self, event: Switched) -> None:
        """Begin, or cease, to drop what a source publishes; from the next cycle on."""
        is_muted = event.playback == "muted"
        if is_muted == (event.task in self._muted):
            return
        self._muted ^= {event.task}
        at = self._step_of(event.task)
        step = self.plan.steps[at]
        self._ring = [
            record.with_call(at, self._bind_step(step, record.messages)) for record in self._ring
        ]
        self.runs[:] = [self._compiled(index) for index in range(len(self._ring))]
        self.codes = _codes_of(self.runs)

    def _bind_step(self, step: Step, messages: tuple[Message, ...]) -> StepCall:
        outside = self._outside.bind(step, messages)
        if outside is not None:
            gate, call = outside
            watch = self._watch
            return outside if watch is None else (gate, watch.checked(step, messages, call))
        made = self._instances[step.task.id]
        policy = self.policies.get(made.id)
        background = self._outside.background.get(made.id)
        if background is not None:
            return bind_background(
                background,
                step,
                messages,
                time=self.time,
                rate=self.rates[made.id],
                policy=policy,
                note=self.note,
            )
        if self._watch is not None:
            gate, call = self._watch.call(step, messages, made.task, made.ctx)
        else:
            gate, call = call_process(step, messages, made.task, made.ctx, views=self._views)
        if policy is not None:
            call = policy.guard(call, outputs_of_step(step, messages))
        if made.bound.is_source:
            gate = self._outside.gate(made.id)
            if made.id in self._muted:
                call = partial(_call_muted, call, made.ctx, outputs_of_step(step, messages))
        if is_rated(step):
            gate = RatedGate(gate, self.rates[made.id], self.time)
        return gate, call


def _is_alone(step: Step) -> bool:
    """Whether the step runs alone also where others run at once: see `parallel`."""
    return step.task.spec.background or step.task.spec.on_error == "skip_cycle"


def _call_muted(call: Callable[[], None], ctx: Context, outputs: Sequence[Message]) -> None:
    """Call a source, and drop what it publishes."""
    try:
        call()
    finally:
        for message in outputs:
            if message.present:
                message.clear()
                ctx.dropped(1, "muted")


def _codes_of(runs: Sequence[Callable[[], bool]]) -> frozenset[CodeType]:
    compiled = (run.__code__ for run in runs if isinstance(run, FunctionType))
    return frozenset((*compiled, Cycle.step.__code__))
