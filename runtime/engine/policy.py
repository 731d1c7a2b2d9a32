"""`on_error` of a task: what happens when it raises.

| policy     | the failing cycle                      | the task afterwards                        |
|------------|----------------------------------------|--------------------------------------------|
| stop       | is logged as far as it came            | the run ends, with a finished log          |
| skip       | goes on without the task's outputs     | runs again in the next cycle               |
| skip_cycle | ends there; later tasks do not run     | runs again in the next cycle               |
| restart    | goes on without the task's outputs     | is made and started again, after a pause   |
|            |                                        | of 1 s, doubled with each failure up to 30 |

A source is restarted on a thread of its own, and its step is left out until that has ended; another task
within the cycle, which waits for it.

A message that the log would refuse is an error of the task: `publish` raises it. So is a message that
another thread of the task publishes after `process` has returned; the cycle that comes next ends with
`stop`, and goes on, with a line in the log, otherwise.

A live value that `configure` refuses is not kept: the task goes on with the config that it had. The
cycle goes on, also with `skip_cycle`.

Every error is a record of `/flowrun/control`. A log line says the same; an error that repeats itself is
logged every 10 s at most, with the number of times. Pauses follow the cycles' time, so that a replay, in
which the task fails again, restarts it in the same cycle.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from flowrun.msgs.message import Message
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.instances import Instance
from flowrun.runtime.errors import RecordedError, worded
from flowrun.runtime.events import Event, Failed, Restarted
from flowrun.runtime.graph.config import changed_keys
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.task import TaskConfig
from flowrun.runtime.wording import mask_secrets, storable

__all__ = [
    "TASK_FAILED",
    "ErrorPolicy",
    "FailedInPhase",
    "Raised",
    "SkipCycle",
    "error_text",
    "failed",
    "policies_of",
    "reconfigure",
    "restart_task",
]

TASK_FAILED = "task failed"
"""The event of a log line about an error that its task outlives."""
_FIRST_PAUSE_NS = 1_000_000_000
_LONGEST_PAUSE_NS = 30_000_000_000
_RUNTIME = ("flowrun.runtime.", "flowrun.msgs.")
_LONGEST_PLACE = 300
_REPEATED_NS = 10_000_000_000
"""How long the same error is only counted after it was logged."""


class SkipCycle(Exception):  # noqa: N818  # not an error: the policy has handled that
    """The rest of the cycle does not run."""


class FailedInPhase(Exception):  # noqa: N818  # it only carries the error, its cause
    """A task raised the cause in `phase`, and not in the `process` that is running."""

    def __init__(self, phase: str) -> None:
        super().__init__(phase)
        self.phase = phase


def error_text(error: BaseException, secrets: frozenset[str]) -> str:
    """An error as the log holds it."""
    if isinstance(error, RecordedError):
        return str(error)
    return storable(mask_secrets(worded(error), secrets))


def failed(
    task_id: str,
    error: BaseException,
    *,
    policy: str,
    phase: str,
    secrets: frozenset[str],
) -> Failed:
    """The event of an error that a task raised.

    policy: how it is handled.
    phase: what the task was doing; see `events.Failed`.
    secrets: masked in what is logged.
    """
    text = error_text(error, secrets)
    if isinstance(error, RecordedError):
        return Failed(task_id, policy, text, phase, error.place)
    place = storable(mask_secrets(_place(error.__traceback__), secrets))
    return Failed(task_id, policy, text, phase, place)


def _place(traceback: TracebackType | None) -> str:
    """The outermost function of the task in a traceback, and its line; "" if there is none.

    Not the line's number: lines above it may come and go.
    """
    while traceback is not None:
        frame = traceback.tb_frame
        if not frame.f_globals.get("__name__", "").startswith(_RUNTIME):
            code = frame.f_code
            line = linecache.getline(code.co_filename, traceback.tb_lineno, frame.f_globals)
            return f"{code.co_qualname}: {line.strip()}"[:_LONGEST_PLACE]
        traceback = traceback.tb_next
    return ""


def reconfigure(made: Instance, new: TaskConfig, policy: ErrorPolicy | None) -> None:
    """Give a task on the cycle's thread a new configuration; `policy` handles what it raises."""
    if policy is not None and policy.is_down:
        policy.start_with(new)
        return
    before = made.task.config
    changed = changed_keys(before, new)
    made.task.config = new
    if not changed:
        return
    try:
        made.task.configure(made.ctx, changed)
    except BaseException as error:
        if policy is None or is_users(error):
            raise
        made.task.config = before
        policy.handle(error, phase="configure")


def restart_task(made: Instance) -> None:
    """Stop a task, forget its state, and start it again with its present configuration.

    It stays the same object: every cycle record is bound to it.
    """
    task, ctx = made.task, made.ctx
    config = task.config
    try:
        task.stop(ctx)
    except BaseException as error:  # it has failed already
        if is_users(error):
            raise
        ctx.log.warning("stop failed before a restart", error=worded(error), raised=error)
    task.__dict__.clear()
    try:
        type(task).__init__(task, config)
    finally:
        task.config = config  # also if it raised: the next attempt needs it
    task.start(ctx)


@dataclass(frozen=True, slots=True)
class Raised:
    """What a task has raised so far.

    count: number of errors.
    text: the newest, as the log holds it.
    cycle: in which that was.
    time_ns: the time of that cycle.
    """

    count: int
    text: str
    cycle: int
    time_ns: int


@dataclass(slots=True)
class _Logged:
    """The error that was logged last, and how often it came again since."""

    text: str
    at_ns: int
    unlogged: int = 0


class ErrorPolicy:
    """The policy of one task, other than `stop`, and how often it has failed in a row.

    note: takes the events of the running cycle.
    secrets: masked in what is logged.
    restart: restarts the task, and passes on what it raises; False if that is under way on another
        thread.
    """

    def __init__(
        self,
        made: Instance,
        time: CycleTime,
        *,
        note: Callable[[Event], None],
        secrets: frozenset[str],
        restart: Callable[[Instance], bool],
    ) -> None:
        self._made = made
        self._time = time
        self._note = note
        self._secrets = secrets
        self._kind = made.bound.spec.on_error
        self._restart = restart
        self._failures = 0
        self._until_ns: int | None = None
        self._starts_with: TaskConfig | None = None
        """While a restart is under way, the config that it was given."""
        self._new_config: TaskConfig | None = None
        """The config that was set while a restart is under way."""
        self._logged: _Logged | None = None
        self.raised: Raised | None = None
        """For other threads too: replaced, never changed."""

    def guard(self, call: Callable[[], None], outputs: Sequence[Message]) -> Callable[[], None]:
        """A call that runs `call` under the policy.

        call: runs the task once.
        outputs: the messages that the task publishes.
        """
        restarts = self._kind == "restart"

        def guarded() -> None:
            if restarts and self._until_ns is not None and not self._come_up():
                return
            try:
                call()
            except BaseException as error:
                if is_users(error):
                    raise
                for message in outputs:
                    message.clear()
                self.handle(error)
            else:
                self.note_success()

        return guarded

    def note_late(self, error: BaseException) -> None:
        """Log that the task published a message outside `process`."""
        text = error_text(error, self._secrets)
        self._count(text)
        self._made.ctx.log.error(TASK_FAILED, error=text, on_error=self._kind)

    def handle(self, error: BaseException, *, phase: str = "process") -> None:
        """Log what the task raised, and do what the policy says: begin the pause before a restart, or
        end the cycle with `SkipCycle`."""
        event = failed(self._made.id, error, policy=self._kind, phase=phase, secrets=self._secrets)
        self._note(event)
        self._count(event.text)
        self._log(event.text, error)
        if self._kind == "restart":
            pause_ns = min(_FIRST_PAUSE_NS << self._failures, _LONGEST_PAUSE_NS)
            self._failures += 1
            self._until_ns = self._time.now_ns + pause_ns
        if self._kind == "skip_cycle" and phase == "process":
            raise SkipCycle from error

    def _count(self, text: str) -> None:
        before = 0 if self.raised is None else self.raised.count
        self.raised = Raised(before + 1, text, self._time.cycle, self._time.now_ns)

    def _log(self, text: str, error: BaseException) -> None:
        now_ns, repeated = self._time.now_ns, {}
        if self._logged is not None and self._logged.text == text:
            if 0 <= now_ns - self._logged.at_ns < _REPEATED_NS:
                self._logged.unlogged += 1
                return
            if self._logged.unlogged:
                repeated["repeated"] = self._logged.unlogged + 1
        self._logged = _Logged(text, now_ns)
        self._made.ctx.log.error(
            TASK_FAILED, error=text, raised=error, on_error=self._kind, **repeated
        )

    @property
    def is_down(self) -> bool:
        """Whether the task is waiting for its restart."""
        return self._until_ns is not None

    @property
    def config(self) -> TaskConfig:
        """The config that the task has, or will start with."""
        if self._new_config is not None:
            return self._new_config
        return self._made.task.config if self._starts_with is None else self._starts_with

    def start_with(self, config: TaskConfig) -> None:
        """Let a task that is down start with another config."""
        if self._starts_with is not None:
            self._new_config = config
        else:
            self._made.task.config = config

    @property
    def restarts(self) -> bool:
        return self._kind == "restart"

    def freeze(self) -> dict[str, int | None]:
        """The policy's part of a keyframe."""
        return {"failures": self._failures, "until_ns": self._until_ns}

    def thaw(self, frozen: Mapping[str, Any]) -> None:
        """Restore what `freeze` gave."""
        self._failures = frozen.get("failures", 0)
        self._until_ns = frozen.get("until_ns")

    def note_success(self) -> None:
        """The task has worked: the next pause is as short as the first."""
        self._failures = 0

    def admits(self) -> bool:
        """For a background task: whether it may get a job in this cycle."""
        return self._until_ns is None or self._time.now_ns >= self._until_ns

    def take_restart(self) -> bool:
        """For a background task: whether the job made now begins with a restart. Resets that."""
        due = self._until_ns is not None
        self._until_ns = None
        return due

    def _come_up(self) -> bool:
        assert self._until_ns is not None
        if self._time.now_ns < self._until_ns:
            return False
        made = self._made
        if self._starts_with is None:
            self._starts_with = made.task.config
        error: BaseException | None = None
        try:
            if not self._restart(made):
                return False
        except BaseException as raised:  # counted, and tried again
            if is_users(raised):
                raise
            error = raised
        self._starts_with = None
        if self._new_config is not None:
            made.task.config, self._new_config = self._new_config, None
            return self._come_up()  # what it did with the config before does not count
        if error is not None:
            self.handle(error)
            return False
        self._until_ns = None
        self._note(Restarted(self._made.id))
        return True


def policies_of(
    instances: Iterable[Instance],
    time: CycleTime,
    *,
    note: Callable[[Event], None],
    secrets: frozenset[str],
    restart: Callable[[Instance], bool],
) -> dict[str, ErrorPolicy]:
    """The policy of each task whose `on_error` is not `stop`, by id."""
    return {
        made.id: ErrorPolicy(made, time, note=note, secrets=secrets, restart=restart)
        for made in instances
        if made.bound.spec.on_error != "stop"
    }
