"""A task with `background: true`: its `process` runs on a worker, and the cycle never waits.

In each cycle in which its inputs are present, a copy of them becomes a job, which is in one state::

    waiting --> running --> done --> taken --> given
       |
       +--> replaced by a newer job that came before the worker was free

A free worker runs the waiting job until it is done. A cycle takes the oldest job that is done, and logs
a control record with the number of the cycle of the job's inputs. The task's step then gives the job:
it publishes what the job made, or raises what it raised. If a cycle does not reach the step
(`skip_cycle` of another task), the job stays taken until a cycle does. A job that has not been given is
in flight: it keeps a run from ending, and is part of a keyframe.

A replay runs the same jobs on the same inputs and delivers them in the same cycles; `Jobs`, `run_job`
and the step are the same there.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from flowrun.msgs.message import Message
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.instances import Instance, interrupt_task
from flowrun.runtime.engine.policy import ErrorPolicy, FailedInPhase, restart_task
from flowrun.runtime.engine.rates import Rate
from flowrun.runtime.engine.record import ALWAYS, StepCall, call_process, outputs_of_step
from flowrun.runtime.events import Event, Replaced
from flowrun.runtime.graph.config import changed_keys
from flowrun.runtime.graph.plan import Step
from flowrun.runtime.graph.spec import ThreadSpec
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.task import TaskConfig
from flowrun.runtime.threads import settle

_SHADOW_NICE = 10
"""The niceness of a shadow's thread: anything else that wants the processor gets it first."""

__all__ = [
    "BackgroundTask",
    "BackgroundWorker",
    "Job",
    "JobState",
    "Jobs",
    "ShadowWorker",
    "are_complete",
    "bind_background",
    "job_inputs",
    "prepare_job",
    "reconfigure_for",
    "run_job",
]


class JobState(enum.Enum):
    """Where a job is; see the module."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    TAKEN = "taken"
    GIVEN = "given"


@dataclass(slots=True, eq=False)
class Job:
    """One call of a background task's `process`.

    cycle, now_ns, config: those of the cycle in which its inputs were present.
    messages: by slot index, copies that the job alone uses; None for slots that it does not touch.
    restarts: whether the task is restarted first.
    error, phase: what it raised, and in what: "configure" or "process".
    accepted: the config that the task had when `configure` refused the job's.
    frozen: what the task remembers after the job, for keyframes; None where none are made.
    """

    cycle: int
    now_ns: int
    config: TaskConfig
    messages: dict[int, Message]
    restarts: bool = False
    error: BaseException | None = None
    phase: str = "process"
    accepted: TaskConfig | None = None
    frozen: dict[str, Any] | None = None
    state: JobState = JobState.WAITING


class Jobs:
    """The jobs of one background task that are in flight. May be used by two threads.

    config: the task's config for jobs to come.
    """

    def __init__(self, config: TaskConfig) -> None:
        self.config = config
        self.frozen: dict[str, Any] | None = None
        """What the task remembered after the last job that was given."""
        self.replaced = 0
        """How many waiting jobs were replaced by newer ones."""
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._closed = False

    @property
    def in_flight(self) -> list[Job]:
        """The jobs that have not been given, in the order of their cycles."""
        with self._changed:
            return list(self._jobs)

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    @property
    def working(self) -> bool:
        """Whether a job waits or runs."""
        return any(job.state in (JobState.WAITING, JobState.RUNNING) for job in self.in_flight)

    @property
    def running(self) -> Job | None:
        """The job that runs."""
        return next((job for job in self.in_flight if job.state is JobState.RUNNING), None)

    @property
    def has_done(self) -> bool:
        """Whether a job may be taken: one is done, and none is taken."""
        return bool(self._jobs) and self._jobs[0].state is JobState.DONE

    @property
    def has_taken(self) -> bool:
        return bool(self._jobs) and self._jobs[0].state is JobState.TAKEN

    def submit(self, job: Job) -> Job | None:
        """Make `job` the waiting one; returns the job that it replaces, if one was waiting."""
        with self._changed:
            replaced = None
            if self._closed:
                return None
            if self._jobs and self._jobs[-1].state is JobState.WAITING:
                replaced = self._jobs.pop()
                self.replaced += 1
                job.restarts = job.restarts or replaced.restarts
            self._jobs.append(job)
            self._changed.notify()
            return replaced

    def begin(self) -> Job | None:
        """Wait for a job, and make it the running one; returns None after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting() is not None)
            job = next((it for it in self._jobs if it.state is JobState.WAITING), None)
            if self._closed or job is None:
                return None
            job.state = JobState.RUNNING
            return job

    @property
    def has_waiting(self) -> bool:
        """Whether a job waits, so that `begin` gives one at once."""
        return any(job.state is JobState.WAITING for job in self.in_flight)

    def finish(self, job: Job) -> None:
        """Mark the running job as done."""
        with self._changed:
            job.state = JobState.DONE

    def take(self) -> Job | None:
        """Take the oldest job that is done for the running cycle; None while another is taken."""
        with self._changed:
            if not self.has_done:
                return None
            self._jobs[0].state = JobState.TAKEN
            return self._jobs[0]

    def give(self) -> Job | None:
        """The job that was taken, once; None if there is none."""
        with self._changed:
            if not self.has_taken:
                return None
            job = self._jobs.pop(0)
        job.state = JobState.GIVEN
        self.frozen = job.frozen
        if job.accepted is not None and self.config == job.config:
            self.config = job.accepted
        return job

    def close(self) -> bool:
        """Begin no further job; returns whether one is running."""
        with self._changed:
            self._closed = True
            if self._waiting() is not None:
                self._jobs.pop()
            self._changed.notify()
            return any(job.state is JobState.RUNNING for job in self._jobs)

    def put_back(self, job: Job) -> None:
        """Let `job`, which an earlier run was at when it was cut off, wait after those that do."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def put_taken(self, job: Job) -> None:
        """Put `job`, which was not run here, before all others, as taken."""
        with self._changed:
            job.state = JobState.TAKEN
            self._jobs.insert(0, job)

    def clear(self) -> None:
        """Forget all jobs."""
        with self._changed:
            self._jobs.clear()

    def _waiting(self) -> Job | None:
        last = self._jobs[-1] if self._jobs else None
        return last if last is not None and last.state is JobState.WAITING else None


class BackgroundTask(Protocol):
    """A background task as its step and the keyframes see it: with a worker, or recorded."""

    jobs: Jobs

    def submit(self, job: Job) -> int | None:
        """Take a job for a cycle's inputs; returns the cycle of the inputs it replaces, if any."""
        ...


def run_job(job: Job, step: Step, made: Instance) -> None:
    """Call `process` for `job`, after the restart or the `configure` that it asks for.

    What the task raises is kept in the job.
    """
    made.time.cycle, made.time.now_ns = job.cycle, job.now_ns
    for message in job.messages.values():
        message.bind_time(made.time)
    try:
        reconfigure_for(job, made)
        if job.error is not None:
            return
        _gate, call = call_process(step, _BySlot(job.messages), made.task, made.ctx)
        call()
    except BaseException as error:  # raised again by the cycle, named by task
        if is_users(error):
            raise
        job.error = error
    finally:
        for message in outputs_of_step(step, _BySlot(job.messages)):
            message.envelope.is_open = False


def reconfigure_for(job: Job, made: Instance) -> None:
    """Restart the task, or give it the job's config, as the job asks for."""
    task = made.task
    before, task.config = task.config, job.config
    if job.restarts:
        restart_task(made)
        return
    changed = changed_keys(before, job.config)
    if not changed:
        return
    try:
        task.configure(made.ctx, changed)
    except BaseException as error:
        if is_users(error):
            raise
        task.config = job.accepted = before
        job.error, job.phase = error, "configure"


class _BySlot(Sequence[Message]):
    """Messages by slot index, as a step's call looks them up."""

    def __init__(self, messages: dict[int, Message]) -> None:
        self._messages = messages

    def __getitem__(self, slot: Any) -> Any:
        return self._messages[slot]

    def __len__(self) -> int:
        return len(self._messages)


class BackgroundWorker:
    """The worker thread of one background task in a live run.

    wake: called on the worker's thread when a job is done.
    freeze: called there after each job, for `Job.frozen`; None where no keyframes are made.
    threads: on which cores the thread runs, and its niceness; None: as the one that starts it.
    """

    shadow: ShadowWorker | None = None
    """That of the task's shadow."""

    def __init__(
        self,
        step: Step,
        made: Instance,
        *,
        wake: Callable[[], None],
        freeze: Callable[[Job], dict[str, Any]] | None = None,
        threads: ThreadSpec | None = None,
    ) -> None:
        self._threads = threads
        self.jobs = Jobs(made.task.config)
        self._step = step
        self._made = made
        self._wake = wake
        self._freeze = freeze
        self._thread = threading.Thread(
            target=self._work, name=f"flowrun-{step.task.id}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    @property
    def thread_id(self) -> int | None:
        """The worker's `threading.get_ident`; None before `start`."""
        return self._thread.ident

    def submit(self, job: Job) -> int | None:
        replaced = self.jobs.submit(job)
        return None if replaced is None else replaced.cycle

    def interrupt(self) -> None:
        """Begin no further job, and let the task know that nobody waits for the running one."""
        if self.jobs.close():
            interrupt_task(self._made)

    def stop(self, *, timeout_s: float) -> bool:
        """Interrupt the running job and end the worker; False if that takes longer than
        `timeout_s`."""
        self.interrupt()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        if self._threads is not None:
            with suppress(OSError):  # it has been tried when the graph was bound
                settle(self._threads.affinity, self._threads.nice)
        while (job := self.jobs.begin()) is not None:
            self.do(job)

    def do(self, job: Job) -> None:
        """Run a job that `jobs.begin` gave, here and now. On the worker's thread, or, where none was
        started, on that of who moves the run by hand."""
        try:
            run_job(job, self._step, self._made)
            if self._freeze is not None:
                job.frozen = self._freeze(job)
        except BaseException as error:  # noqa: BLE001  # the run must not wait forever
            job.error = error
        finally:
            if self.shadow is not None and _has_published(job, self._step):
                self.shadow.release(job.cycle)
            self.jobs.finish(job)
            self._wake()


class ShadowWorker(BackgroundWorker):
    """That of a shadow: a job waits until the task has answered about the same inputs, so that the task
    goes first, and both answer about the same ones. Its thread lets others run.

    of: the task's step. worker: that task's own; None where it runs in the cycle.
    left_out: called with the number of inputs that newer ones have replaced, and why; from any thread.
    """

    def __init__(
        self,
        step: Step,
        made: Instance,
        *,
        of: Step,
        worker: BackgroundWorker | None,
        wake: Callable[[], None],
        left_out: Callable[[int, str], None],
        freeze: Callable[[Job], dict[str, Any]] | None = None,
        threads: ThreadSpec | None = None,
    ) -> None:
        given = threads or ThreadSpec()
        nice = _SHADOW_NICE if given.nice is None else max(given.nice, _SHADOW_NICE)
        threads = ThreadSpec(given.affinity, nice)
        super().__init__(step, made, wake=wake, freeze=freeze, threads=threads)
        self._worker = worker
        self._left_out = left_out
        self._outputs = [
            it.slot for it in of.arguments if it.port.is_output and it.slot is not None
        ]
        self._lock = threading.Lock()
        self._held: dict[int, Job] = {}
        """By cycle, jobs about whose inputs the task has not answered yet."""
        self._released = -1
        """The newest cycle about whose inputs it has."""
        if worker is not None:
            worker.shadow = self

    def submit(self, job: Job) -> int | None:
        with self._lock:
            if job.cycle != self._released:
                self._held[job.cycle] = job
                self._forget()
                return None
        return super().submit(job)

    def release(self, cycle: int) -> None:
        """The task has answered about the inputs of `cycle`. From any thread."""
        with self._lock:
            self._released = cycle
            job = self._held.pop(cycle, None)
        if job is not None and super().submit(job) is not None:
            self._left_out(1, Replaced.kind)  # the step that would say so may be over

    def settle(self, cycle: int, messages: Sequence[Message]) -> None:
        """A cycle has ended in which the task, which runs in the cycle, may have answered."""
        if self._worker is None:
            if any(messages[slot].present for slot in self._outputs):
                self.release(cycle)
            self._held.clear()

    def _forget(self) -> None:
        """Forget jobs about whose inputs the task will not answer."""
        if self._worker is not None:
            newest = max(self._held)
            asked = {job.cycle for job in self._worker.jobs.in_flight} | {newest}
            self._held = {cycle: job for cycle, job in self._held.items() if cycle in asked}


def _has_published(job: Job, step: Step) -> bool:
    return job.error is None and any(
        job.messages[it.slot].present
        for it in step.arguments
        if it.port.is_output and it.slot is not None
    )


def bind_background(
    task: BackgroundTask,
    step: Step,
    messages: Sequence[Message],
    *,
    time: CycleTime,
    rate: Rate,
    policy: ErrorPolicy | None,
    note: Callable[[Event], None],
) -> StepCall:
    """The step of a background task: gate and call on `messages`.

    The call submits the cycle's inputs, if `rate` and `policy` admit it. If a result was taken, it
    publishes that, or lets `policy` handle its error.

    note: takes the event of inputs that were replaced.
    """
    jobs = task.jobs
    inputs = job_inputs(step, messages)

    def call() -> None:
        job = jobs.give()
        error = None if job is None else job.error
        fails = error is not None and policy is not None and policy.restarts
        may_submit = policy is None or policy.admits()
        if may_submit and not fails and are_complete(inputs) and rate.admits(time):
            new = prepare_job(step, messages, time=time, config=jobs.config)
            new.restarts = policy is not None and policy.take_restart()
            replaced = task.submit(new)
            if replaced is not None:
                note(Replaced(step.task.id, replaced))
        if job is None:
            return
        if error is None:
            _publish(job, step, messages)
            if policy is not None:
                policy.note_success()
        elif policy is not None:
            policy.handle(error, phase=job.phase)
        else:
            raise FailedInPhase(job.phase) from error

    return ALWAYS, call


def job_inputs(step: Step, messages: Sequence[Message]) -> list[tuple[Message, bool]]:
    """The messages that the step reads, each with whether it is required."""
    return [
        (messages[argument.slot], argument.port.required)
        for argument in step.arguments
        if argument.slot is not None and argument.port.is_input
    ]


def are_complete(inputs: Sequence[tuple[Message, bool]]) -> bool:
    """Whether inputs, as `job_inputs` gives them, make a job."""
    return any(message.present for message, _ in inputs) and all(
        message.present for message, required in inputs if required
    )


def prepare_job(
    step: Step, messages: Sequence[Message], *, time: CycleTime, config: TaskConfig
) -> Job:
    """A job on copies of the inputs that `messages` hold now, with outputs of its own."""
    own: dict[int, Message] = {}
    for argument in step.arguments:
        if argument.slot is None:
            continue
        message = messages[argument.slot]
        if argument.port.is_input:
            own[argument.slot] = message.copy()
            continue
        output = own[argument.slot] = type(message)()
        output.envelope.owner = message.envelope.owner
        output.envelope.note_late = message.envelope.note_late
        output.envelope.defers = message.envelope.defers
    return Job(time.cycle, time.now_ns, config, own)


def _publish(job: Job, step: Step, messages: Sequence[Message]) -> None:
    """Publish in this cycle what the job made."""
    for argument in step.arguments:
        if argument.port.is_output and argument.slot is not None:
            made = job.messages[argument.slot]
            shown = messages[argument.slot].envelope
            shown.is_open = False  # the task was called
            if made.present:
                shown.show(made.envelope)
