"""A task with `background: true`: its `process` runs on a worker, and the cycle never waits.

In each cycle in which its inputs are present, a copy of them becomes the *waiting job*, in place of
an older one that has not begun. The worker takes the waiting job when it is free. What a job has
published appears in the first cycle after it is done, with the number of its input's cycle in a
control record: a replay runs the same jobs on the same inputs and delivers in the same cycles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flowrun.msgs.message import Message
from flowrun.runtime.engine.policy import ErrorPolicy, restart_task
from flowrun.runtime.engine.rates import Rate
from flowrun.runtime.engine.record import ALWAYS, Gate, StepCall, call_process, outputs_of_step
from flowrun.runtime.events import Event, event
from flowrun.runtime.graph.config import changed_keys
from flowrun.runtime.graph.plan import Step
from flowrun.runtime.task import Context, CycleTime, Task, TaskConfig

__all__ = [
    "BackgroundWorker",
    "Job",
    "bind_background",
    "deliver",
    "prepare_job",
    "run_job",
    "submits",
]


@dataclass(slots=True)
class Job:
    """One call of a background task's `process`.

    cycle, now_ns, config: those of the cycle in which its inputs were present.
    messages: by slot index, copies that the job alone uses; None for slots that it does not touch.
    restarts: whether the task is restarted first. error: what it raised.
    frozen: what the task remembers behind the job, for keyframes; None where none are made.
    """

    cycle: int
    now_ns: int
    config: TaskConfig
    messages: dict[int, Message]
    restarts: bool = False
    error: Exception | None = None
    frozen: dict[str, Any] | None = None


def prepare_job(
    step: Step, messages: Sequence[Message], *, time: CycleTime, config: TaskConfig
) -> Job:
    """A job on copies of the inputs that `messages` hold now, with outputs of its own."""
    own: dict[int, Message] = {}
    for argument in step.arguments:
        if argument.slot is None:
            continue
        message = messages[argument.slot]
        is_input = argument.port.direction == "input"
        own[argument.slot] = message.copy() if is_input else type(message)()
    return Job(time.cycle, time.now_ns, config, own)


def run_job(job: Job, step: Step, task: Task, ctx: Context, time: CycleTime) -> None:
    """Call `process` for `job`, after telling the task about changed configuration."""
    time.cycle, time.now_ns = job.cycle, job.now_ns
    for message in job.messages.values():
        message.bind_time(time)
    try:
        changed = changed_keys(task.config, job.config)
        task.config = job.config
        if changed and not job.restarts:
            task.configure(ctx, changed)
        if job.restarts:
            restart_task(task, ctx)
        _gate, call = call_process(step, _BySlot(job.messages), task, ctx)
        call()
        if step.task.spec.on_error != "stop":
            for message in outputs_of_step(step, _BySlot(job.messages)):
                if message.present:
                    message.check_published()
    except Exception as error:  # noqa: BLE001  # raised again by the cycle, named by task
        job.error = error
    except BaseException as error:  # SystemExit of a library must not end the worker
        in_replay = threading.current_thread() is threading.main_thread()
        if in_replay and isinstance(error, KeyboardInterrupt):
            raise  # the user's
        job.error = RuntimeError(f"{type(error).__name__}: {error}")


class _BySlot(Sequence[Message]):
    """Messages by slot index, as a step's call looks them up."""

    def __init__(self, messages: dict[int, Message]) -> None:
        self._messages = messages

    def __getitem__(self, slot: Any) -> Any:
        return self._messages[slot]

    def __len__(self) -> int:
        return len(self._messages)


class BackgroundWorker:
    """The worker thread of one background task.

    wake: called on the worker's thread when a job is done.
    freeze: called there behind each job, for `Job.frozen`; None where no keyframes are made.
    """

    def __init__(
        self,
        step: Step,
        task: Task,
        ctx: Context,
        time: CycleTime,
        *,
        wake: Callable[[], None],
        freeze: Callable[[Job], dict[str, Any]] | None = None,
    ) -> None:
        self.step = step
        self.task = task
        self.config = task.config
        self.replaced = 0
        """How many waiting inputs were replaced by newer ones."""
        self.frozen: dict[str, Any] | None = None
        """What the task remembered behind the last job that `give` gave."""
        self._ctx = ctx
        self._time = time
        self._wake = wake
        self._freeze = freeze
        self._changed = threading.Condition()
        self._waiting: Job | None = None
        self._running: Job | None = None
        self._stopping = False
        self._done: list[Job] = []
        self._taken: Job | None = None
        self._thread = threading.Thread(
            target=self._work, name=f"flowrun-{step.task.id}", daemon=True
        )

    @property
    def busy(self) -> bool:
        """Whether a job runs, waits, or is done and not yet taken."""
        with self._changed:
            return bool(self._running or self._waiting or self._done)

    @property
    def has_result(self) -> bool:
        return bool(self._done)

    @property
    def in_flight(self) -> list[tuple[Job, bool]]:
        """The jobs whose results have not appeared, in order, each with whether it was taken."""
        with self._changed:
            jobs = [*self._done, self._running, self._waiting]
        taken = [(self._taken, True)] if self._taken else []
        return taken + [(job, False) for job in jobs if job]

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> int | None:
        """Make `job` the waiting one; the cycle of the one that waited, which is forgotten."""
        with self._changed:
            replaced = self._waiting
            if replaced is not None:
                self.replaced += 1
                job.restarts = job.restarts or replaced.restarts
            self._waiting = job
            self._changed.notify()
        return None if replaced is None else replaced.cycle

    def take(self) -> Job | None:
        """The oldest finished job, for the cycle that runs now; None while the one before waits
        for its step."""
        with self._changed:
            if not self._done or self._taken is not None:
                return None
            self._taken = self._done.pop(0)
            return self._taken

    def give(self) -> Job | None:
        """The job that was taken, once."""
        job, self._taken = self._taken, None
        if job is not None:
            self.frozen = job.frozen
        return job

    def interrupt(self) -> None:
        """Take no further job, and tell the task that nobody waits for the running one."""
        with self._changed:
            self._stopping = True
            self._waiting = None
            self._changed.notify()
            running = self._running
        if running is None:
            return
        try:
            self.task.interrupt(self._ctx)
        except Exception as error:  # noqa: BLE001  # the other tasks must get their turn
            self._ctx.log.error(  # noqa: TRY400  # one line, as of a `stop` that fails
                "interrupt failed", error=f"{type(error).__name__}: {error}"
            )

    def stop(self, *, timeout_s: float) -> bool:
        """End the worker after the running job, which is interrupted; False if that takes longer
        than `timeout_s`."""
        self.interrupt()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._stopping)
                if self._stopping:
                    return
                job, self._waiting = self._waiting, None
                self._running = job
            assert job is not None
            run_job(job, self.step, self.task, self._ctx, self._time)
            if self._freeze is not None:
                job.frozen = self._freeze(job)
            with self._changed:
                self._running = None
                self._done.append(job)
            self._wake()


def bind_background(
    worker: BackgroundWorker,
    messages: Sequence[Message],
    *,
    time: CycleTime,
    rate: Rate,
    policy: ErrorPolicy | None,
    note: Callable[[Event], None],
) -> StepCall:
    """The step in the cycle: publish the result that was taken, if one was, and submit this cycle's
    inputs, if `rate` admits it. `note` is told of inputs that were replaced."""
    step = worker.step
    inputs = [
        (messages[argument.slot], argument.port.required)
        for argument in step.arguments
        if argument.slot is not None and argument.port.direction == "input"
    ]

    def call() -> None:
        job = worker.give()
        error = None if job is None else job.error
        fails = error is not None and policy is not None and policy.restarts
        may_submit = policy is None or policy.admits()
        if may_submit and not fails and submits(inputs) and rate.admits(time):
            new = prepare_job(step, messages, time=time, config=worker.config)
            new.restarts = policy is not None and policy.take_restart()
            replaced = worker.submit(new)
            if replaced is not None:
                note(event("replaced", step.task.id, input_cycle=replaced))
        if job is not None:
            deliver(job, step, messages)
            if policy is not None:
                policy.note_success()

    gate: Gate = ALWAYS
    return gate, call


def submits(inputs: Sequence[tuple[Message, bool]]) -> bool:
    """Whether this cycle's inputs (each with whether it is required) make a job."""
    return any(message.present for message, _ in inputs) and all(
        message.present for message, required in inputs if required
    )


def deliver(job: Job, step: Step, messages: Sequence[Message]) -> None:
    """Publish a finished job's outputs in this cycle; raise what it raised."""
    if job.error is not None:
        raise job.error
    for argument in step.arguments:
        if argument.port.direction == "output" and argument.slot is not None:
            made = job.messages[argument.slot]
            if made.present:
                messages[argument.slot].adopt(made)
