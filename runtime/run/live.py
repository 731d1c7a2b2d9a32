"""One run of one graph: plan, executor, log and what watches it, put together."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from flowrun.msgs.message import Message
from flowrun.runtime.broadcast import Answer, Broadcast, Shows
from flowrun.runtime.clock import Clock, monotonic_s
from flowrun.runtime.engine.beginning import Beginning
from flowrun.runtime.engine.cycle import Cycle
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.engine.whereabouts import Busy, stacks, undisturbed
from flowrun.runtime.errors import FlowrunError, LogError, TaskError, UsageError, worded
from flowrun.runtime.graph.bind import channels_of, live_keys
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.privacy import leaks
from flowrun.runtime.graph.spec import GraphSpec
from flowrun.runtime.interrupts import is_users, telling_interrupts
from flowrun.runtime.links.links import Links
from flowrun.runtime.links.reached import reached_before, said_of
from flowrun.runtime.links.status import PartStatus
from flowrun.runtime.links.told import Told
from flowrun.runtime.links.transport import Transport
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.mistaken import TakenForRun
from flowrun.runtime.run.captured import Captured
from flowrun.runtime.run.clips import ClipMaker, asks_for_clips
from flowrun.runtime.run.disk_use import large_pictures
from flowrun.runtime.run.log_lines import TO_LOG_ONLY, Stream, configure_logs
from flowrun.runtime.run.observed import Observed
from flowrun.runtime.run.recording import Recording
from flowrun.runtime.run.report import (
    LogReport,
    Progress,
    RunReport,
    busiest,
    newest_answer,
    part_status,
    task_reports,
)
from flowrun.runtime.run.shadows import Shadows
from flowrun.runtime.wording import mask_secrets, storable

__all__ = ["Run", "RunResult"]

_SILENT_S = 5.0
"""Seconds after which a source that publishes nothing is mentioned; then twice as many, and so on."""
_SILENT_AT_MOST_S = 300.0
_BUSY_S = 1.0
_COMMIT_S = 2.0
"""Seconds that the end of a stuck run waits for a cycle that is being written."""
_LOG_MODULE = "flowrun.runtime.log."
_CONFIGURING = threading.Lock()
"""structlog is configured for the run that is being made."""


@dataclass(frozen=True, slots=True)
class RunResult(TakenForRun):
    """How a run ended.

    reason: why it ended, "error" where `error` says more.
    error: None for a run that ended as it should.
    cycles: number of cycles that have ended.
    messages: number of messages of tasks in the log.
    log_bytes: size of the log.
    log_error: why the log ends before the run does, where the graph says
        `logging: {on_error: continue}`.
    """

    reason: str
    error: FlowrunError | None
    cycles: int
    messages: int
    log_bytes: int
    log_error: LogError | None = None

    _is = "run() and wait() return when the run has ended, and say how"


class Run:
    """A graph that runs, and what others may see of it and ask of it, from any thread.

    clock: the time of its cycles.
    directory: where the log goes; None keeps none.
    console: where log lines go, stderr if None.
    debug_messages: whether to find tasks that change messages or keep inputs; slow.
    transport: opens what carries messages to other partitions; None opens what the graph names.
    begins: what is left of an earlier run, which this one goes on with.
    told: what is heard of the ends of the other processes of its fleet; None where nobody says it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Clock,
        directory: Path | None,
        console: Stream | None = None,
        debug_messages: bool = False,
        transport: Callable[[GraphSpec], Transport] | None = None,
        begins: Beginning | None = None,
        told: Told | None = None,
    ) -> None:
        self.plan = plan
        self.name = plan.graph.spec.name
        self.shows: dict[str, Shows | None] = {
            task.id: task.task_class.shows for task in plan.graph.tasks
        }
        self.broadcasts: Mapping[str, Broadcast] = {
            task.id: Broadcast()
            for task in plan.graph.tasks
            if task.task_class.shows or not any(port.is_output for port in task.ports)
        }
        self.channels: Mapping[str, int] = channels_of(plan.graph)
        """Task id -> its channel number, of those that show pictures or answers."""
        self._observed = Observed(plan.slots, keeps_log=directory is not None)
        for task in self._observed.videos:
            self.shows[task] = "video"
        self._clock = clock
        self._started_ns = clock.now_ns()
        self._ended_ns: int | None = None
        self.page: str | None = None
        """Where its page is, without the token; None where it is not served."""
        self.on_again: Callable[[], None] | None = None
        """What `run_again` calls; None where nobody would run the graph again."""
        self._state: str | dict[str, str] = "Running"
        self._reason: str | None = None
        self._has_run = False
        self._ended = threading.Event()
        self.links: Links | None = None
        """What it sends to other partitions and gets from them; None for a run that is no partition."""
        if plan.graph.spec.part is not None and directory is None:
            raise UsageError(
                "a partition needs its log: the log is what it sends, and where it goes on"
            )
        # A task may change the working directory.
        self._place = directory
        place = None if directory is None else directory.absolute()
        is_part = place is not None and plan.graph.spec.part is not None
        self._recording = Recording(
            plan,
            place,
            started_ns=self._started_ns,
            now_ns=clock.now_ns,
            after=None if begins is None else (begins.run_id, begins.cycle),
            says=said_of(reached_before(plan, place)) if is_part and place is not None else {},
        )
        with _CONFIGURING:
            self._lines = configure_logs(
                now_ns=clock.now_ns, target=self, secrets=plan.graph.spec.secrets, stream=console
            )
            self.log = structlog.get_logger().bind()
            """The run's own logger, also when another run has configured structlog since."""
            self._recording.report_to(self.log)
            for leak in leaks(plan):
                self.log.warning(leak.message, line=leak.where.line)
            try:
                self.executor = Executor(
                    plan,
                    clock=clock,
                    log=self.writer,
                    on_log_error=self._lose_log if self._goes_on_without_log else None,
                    broadcasts=self.broadcasts,
                    debug_messages=debug_messages,
                    run_id=_id_of(self.name, self._started_ns) if place is None else place.name,
                    begins=begins,
                )
            except BaseException:
                self._recording.discard()
                raise
        self._captured = Captured(self.executor.whereabouts, self.log)
        self._watchers: tuple[Callable[[Cycle], None], ...] = ()
        if place is not None and plan.graph.spec.part is not None:
            self._link(place, transport, told)
        self._clips: ClipMaker | None = None
        if asks_for_clips(plan):
            self._clips = ClipMaker(plan, self._recorded_in, self.log)
            self.watch(self._clips.look)
        self._shadows = Shadows(plan)
        if self._shadows.reports:
            self.watch(self._shadows.look)
        self._mention_s: dict[str, float] = {}
        self._has_mentioned_pictures = False
        self._thread = threading.get_ident()
        self._pid = os.getpid()
        _RUNS.add(self)

    # -- running -------------------------------------------------------------------------------

    @contextmanager
    def discarded_unless_run(self) -> Iterator[None]:
        """If `run` is not called within, nothing is left of the run's directory."""
        try:
            yield
        finally:
            if not self._has_run:
                self._recording.discard()

    @telling_interrupts()
    def run(self, *, cycles: int | None = None) -> RunResult:
        """Run to the end; the log is finished then, whatever happened. No log is left of a run that
        is stopped while its tasks start.

        cycles: end after this number of cycles.
        """
        self._has_run = True
        self._thread = threading.get_ident()
        reason, error = "", None
        try:
            with self._captured.capturing():
                reason, error = self._run(cycles)
        except BaseException as failure:
            self._leave_if_child()
            self._finish(
                *("interrupted", None) if is_users(failure) else ("internal error", worded(failure))
            )
            if self.links is not None:
                self.links.end(in_order=False)
            raise
        self._leave_if_child()
        if error is None and not self.executor.has_started:
            self._recording.discard()
        finish_error = self._finish(reason, None if error is None else str(error))
        if self.links is not None:
            is_last = self.executor.is_at_end or (self.executor.has_started and self.links.is_last)
            self.links.end(in_order=error is None and finish_error is None and is_last)
        return self._result(reason, error or finish_error)

    def _result(self, reason: str, error: FlowrunError | None) -> RunResult:
        return RunResult(
            reason=reason,
            error=error,
            cycles=self.executor.cycles,
            messages=self._recording.messages,
            log_bytes=self._recording.size,
            log_error=self._recording.error,
        )

    def _run(self, cycles: int | None) -> tuple[str, FlowrunError | None]:
        reason, error = "error", None
        log = self.log
        try:
            if self.links is not None:
                self.links.start(self.executor.instances)
                if ring := self.links.ring_sources:
                    rest = self.links.rest
                    self.executor.rest_but = ring
                    self.executor.on_rest = lambda: rest(self.executor.cycles)
                if self.links.goes_in_step:
                    is_over = lambda: self.executor.stop_reason is not None  # noqa: E731
                    self.executor.wait_for_others = partial(self.links.wait_in_step, is_over)
            reason = self.executor.run(cycles=cycles)
            if self.links is not None and self.links.error is not None:
                raise self.links.error
        except FlowrunError as failure:
            error = failure
            fields: dict[str, Any] = {}
            if isinstance(failure, TaskError):
                fields["task"] = failure.task_id
            # The console shows it at the end, without the traceback.
            fields |= {TO_LOG_ONLY: True}
            log.error(str(failure), raised=failure.__cause__, **fields)  # noqa: TRY400
        if self.executor.has_started and self.executor.cycles:
            failed = error.task_id if isinstance(error, TaskError) else None
            for task in self.executor.silent:
                if task != failed:
                    log.info(
                        "ran, and never published a message",
                        task=task,
                        hint="publish() shows an output to others; a function returns its message",
                    )
            for kept in self.executor.cycle.kept_views if error is None else ():
                log.warning(str(kept), task=kept.tasks[0])
            for task, took_ms in busiest(self.executor):
                log.info(
                    "the cycles wait for it nearly all of the time",
                    task=task,
                    call_ms=round(took_ms),
                    hint="`background: true` lets them go on meanwhile",
                )
            for task in self.executor.published.never_ran:
                log.info("never ran: what it needs did not come", task=task)
            self._mention_pictures()
        self._lines.flush(self.log)
        return reason, error

    def let_go(self) -> None:
        """In a child process of a fork: the run is the parent's."""
        self.executor.cycle.log = None
        self.executor.stop_reason = "a fork"
        self._recording.let_go()

    def _leave_if_child(self) -> None:
        if os.getpid() != self._pid:  # a task forked, and came back from its `process` twice
            os._exit(0)

    def end_now(self, reason: str) -> RunResult:
        """Finish the log while `run` has not returned: a task does not come back. From another thread
        than that of `run`; end the process afterwards, as tasks may still be at work.

        The cycle that is running is not in the log.
        """
        self.executor.stop(reason)
        self.executor.cycle.log = None  # the cycle that runs is committed to nothing
        until = monotonic_s() + _COMMIT_S
        while self._is_committing() and monotonic_s() < until:
            self._ended.wait(0.01)
        names = ", ".join(dict.fromkeys(repr(busy.task) for busy in self.busy()))
        waited = f", without waiting for task {names}" if names else ""
        self._lines.flush(self.log)
        error = self._finish(reason + waited, None)
        return self._result(reason + waited, error)

    def _is_committing(self) -> bool:
        with undisturbed():
            return _is_in_commit(stacks().get(self._thread))

    def _finish(self, reason: str, error: str | None) -> FlowrunError | None:
        if error is not None:
            error = storable(mask_secrets(error, self.plan.graph.spec.secrets))
        self._ended_ns = self._clock.now_ns()
        self._reason = reason
        self._state = "Stopped" if error is None else {"Error": error}
        for broadcast in self.broadcasts.values():
            broadcast.close()
        self._observed.close()
        if self._clips is not None:
            self._clips.close()
        return self._recording.finish(reason, error, cycles=self.executor.cycles)

    def _link(
        self,
        place: Path,
        transport: Callable[[GraphSpec], Transport] | None,
        told: Told | None,
    ) -> None:
        writer, sends = self._recording.writer, self.plan.graph.sends
        links = self.links = Links(
            self.plan,
            place,
            started_ns=self._started_ns,
            clock=self._clock,
            log=self.log,
            committed=None if writer is None or not sends else writer.follow(),
            transport=transport,
            told=told,
        )
        if writer is not None:
            writer.restate = links.restate
        links.on_error = self.executor.stop
        links.hold = self.executor.hold
        links.note = self.executor.note_link
        links.own_status = self._part_status
        self.watch(links.look)

    @property
    def _goes_on_without_log(self) -> bool:
        """Whether the run goes on where its log cannot. A partition does not: its log is what it sends,
        and what it takes without one would come again."""
        return self._recording.outlived and self.plan.graph.spec.part is None

    def _lose_log(self, error: LogError) -> None:
        self._recording.give_up(error, cycles=self.executor.cycles)

    # -- asking something of it ----------------------------------------------------------------

    def set_live(self, task_id: str, values: dict[str, Any]) -> None:
        """Change live values at the next cycle; `UsageError` names a wrong key or value."""
        self.executor.set_live(task_id, values)

    def publish(self, port: str, fields: Mapping[str, Any], *, tov_ns: int | None = None) -> bool:
        """Publish a message on a port, `TASK.PORT`, in the next cycle: it takes the place of what the
        task publishes there. False while too many wait for a cycle.

        fields: as JSON or the message holds them; see `engine.injection.injected_message`.
        tov_ns: its time of validity, nanoseconds since 1970 UTC; None: the cycle's time.

        Raises `UnknownPort`, and `UsageError` naming a field that is not what its message declares.
        """
        return self.executor.publish(port, fields, tov_ns=tov_ns)

    def ports(self) -> dict[str, type[Message]]:
        """The ports on which `publish` does, and their messages."""
        return {f"{slot.task_id}.{slot.port}": slot.message_type for slot in self.plan.slots}

    def pause(self, source: str) -> bool:
        """From the next cycle on nothing comes from the source; False if that was asked last. A file
        waits where it is; a live source stays connected, and drops what comes.

        Raises `UsageError` for a task that is no source, and for a source that has ended.
        """
        return self.executor.switch(source, "paused")

    def mute(self, source: str) -> bool:
        """As `pause`, but the source goes on: what it would have published is dropped."""
        return self.executor.switch(source, "muted")

    def resume(self, source: str) -> bool:
        """End what `pause` or `mute` began; False if neither was asked last. Raises as they do."""
        return self.executor.switch(source, "running")

    def record(self, on: bool) -> bool:  # noqa: FBT001
        """Stop the log, or begin it again, between two cycles; False if it is so already. Each stretch
        is a log of its own, which says of which it is the next, and replays by itself.

        Waits for the cycle that runs, and for the disk. Raises `UsageError` where there is no log to
        stop, the run has ended, or a task holds the cycle up; `LogError` where none can be begun.
        """
        if self._state != "Running":
            raise UsageError("the run has ended")
        if self.links is not None:
            raise UsageError("the log of a partition is what it sends: it cannot be stopped")
        return self._recording.switch(on, self.executor.log_to)

    def stop(self, reason: str) -> None:
        """Ask the run to end after the running cycle. If no other run of this process follows, as far as
        is known, it then waits until other partitions have what it sent; asked again, it does not."""
        has_ended = self._reason is not None
        self.executor.stop(reason)
        if self.links is not None and (has_ended or not self.links.is_last):
            self.links.hurry()

    def leave(self) -> bool:
        """The run has ended: wait no longer for other partitions to take what was sent. False if it does
        not wait for that."""
        if self.links is None or not self.links.waits_at_end:
            return False
        self.links.hurry()
        return True

    @property
    def may_run_again(self) -> bool:
        """Whether `run_again` does something."""
        return self.on_again is not None

    def run_again(self) -> bool:
        """Ask for another run of the graph, after the end of this one; False where nobody would."""
        if self.on_again is None:
            return False
        self.on_again()
        return True

    def interrupt_start(self, reason: str) -> None:
        """See `Executor.interrupt_start`."""
        self.executor.interrupt_start(reason)

    # -- watching it ---------------------------------------------------------------------------

    def observe(self) -> Observed:
        """What its cycles bring from now on."""
        if self._observed.look not in self._watchers:
            self.watch(self._observed.look)
        return self._observed

    def watch(self, look: Callable[[Cycle], None]) -> None:
        """Call `look` after the commit of each cycle, on the cycles' thread. What it raises is logged,
        and the run goes on."""
        self._watchers = (*self._watchers, look)
        self.executor.observer = self._look

    def _look(self, cycle: Cycle) -> None:
        for look in self._watchers:
            try:
                look(cycle)
            except Exception:
                name = getattr(look, "__qualname__", repr(look))
                self.log.exception("what watches the cycles has failed", watcher=name)

    def log_record(
        self, time_ns: int, level: str, message: str, name: str, fields: dict[str, Any]
    ) -> None:
        """Keep a line of the log; see `LogTarget`."""
        self._recording.log_record(time_ns, level, message, name, fields)
        self._observed.note_line(time_ns, level, message, name, fields)

    def busy(self) -> list[Busy]:
        """The tasks whose methods run now; the console asks a few times a second."""
        return self.executor.whereabouts.busy()

    def attend(self) -> None:
        """Log which source is silent, and whose pictures fill the log. To be called a few times a
        second, from any thread but that of `run`."""
        if self._has_run and self._state == "Running":
            self._captured.keep_on()
            if self.executor.has_started and self.executor.stop_reason is None:
                self._mention_silence()
                self._mention_pictures()

    def _mention_pictures(self) -> None:
        writer = self._recording.writer
        if writer is None or self._has_mentioned_pictures:
            return
        duration_s = (self._clock.now_ns() - self._started_ns) / 1e9
        large = large_pictures(self.plan, writer.picture_bytes, writer.size, duration_s)
        if large is not None:
            self._has_mentioned_pictures = True
            self._log_of(large.task).warning(
                "its pictures are most of the log",
                mb_per_s=round(large.mb_per_s),
                hint=large.hint,
            )

    def _mention_silence(self) -> None:
        silent = self.executor.published.silent_s(monotonic_s())
        stuck = {busy.task for busy in self.busy() if busy.for_s >= _BUSY_S}
        foreground = stuck - self.executor.workers.keys()
        for source, for_s in silent.items():
            if for_s < _SILENT_S:
                if self._mention_s.pop(source, 0.0) > _SILENT_S:
                    self._log_of(source).info("publishes again")
                continue
            if foreground - {source} or not self.executor.awaits(source):
                continue
            if for_s >= self._mention_s.get(source, _SILENT_S):
                self._mention_s[source] = for_s + min(for_s, _SILENT_AT_MOST_S)
                self._log_of(source).warning("has published nothing", for_s=round(for_s))

    def _log_of(self, task: str) -> Any:
        return self.executor.instances[task].ctx.log

    @property
    def directory(self) -> Path | None:
        """Where its log is, the last one if it was stopped and begun again; None for a run without."""
        if self._place is None or len(self._recording.directories) == 1:
            return self._place
        return self._recording.directory

    def _recorded_in(self) -> Path | None:
        """Where the log is that is written now."""
        return self._recording.directory if self._recording.is_on else None

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where its logs are: of each stretch between the begin of the recording and its stop."""
        return self._recording.directories

    @property
    def writer(self) -> LogWriter | None:
        """What writes the log; None for a run that keeps none."""
        return self._recording.writer

    def state(self) -> str | dict[str, str]:
        """One of "Running", "Stopped" and {"Error": text}."""
        return self._state

    def graph(self) -> dict[str, Any]:
        """The resolved graph as plain data, secrets masked."""
        return masked_graph(self.plan.graph.spec)

    def live_keys(self) -> Mapping[str, tuple[str, ...]]:
        """Task id -> the config keys that may change while it runs."""
        return {task.id: live_keys(task.task_class) for task in self.plan.graph.tasks}

    def settings(self) -> dict[str, dict[str, Any]]:
        """Task id -> the values in force of those keys, of tasks that have some."""
        secrets = self.plan.graph.spec.secrets
        return {
            task: _masked(self.executor.live_values(task), secrets)
            for task, keys in self.live_keys().items()
            if keys
        }

    @property
    def last_answer(self) -> Answer | None:
        """The newest that a sink has shown."""
        return newest_answer(self.broadcasts.values())

    def report(self) -> RunReport:
        """How the run is doing."""
        tasks, rate_hz = task_reports(self.executor)
        for id_, shadow in self._shadows.reports.items():
            tasks[id_] = replace(tasks[id_], shadow=shadow)
        at_ns = self._clock.now_ns() if self._ended_ns is None else self._ended_ns
        log = None
        if self.writer is not None:
            log = LogReport(
                str(self.directory),
                self._recording.size,
                self._recording.messages,
                on=self._recording.is_on,
            )
        return RunReport(
            cycles=self.executor.cycles,
            cycle_rate_hz=rate_hz,
            uptime_s=round((at_ns - self._started_ns) / 1e9, 3),
            at_ns=at_ns,
            starting=self.executor.starting,
            progress=self._progress(),
            log=log,
            tasks=tasks,
            last_answer=self.last_answer,
            ended=self._reason,
            part=None if self.links is None else str(self.plan.graph.spec.part),
            links=() if self.links is None else self.links.status(),
            fleet=() if self.links is None else self.links.fleet(),
        )

    def _part_status(self) -> PartStatus:
        """How this process is doing, for the others of its fleet."""
        assert self.links is not None
        at_ns = self._clock.now_ns() if self._ended_ns is None else self._ended_ns
        ended = None if self._state == "Running" else self._state
        return replace(
            part_status(self.executor, part=str(self.plan.graph.spec.part), ended=ended),
            uptime_s=round((at_ns - self._started_ns) / 1e9, 3),
            run="" if self._place is None else self._place.name,
            page=self.page,
            links=tuple(self.links.status()),
        )

    def ask_backends(self) -> None:
        """Somebody looks: see `Backends.ask`."""
        if self._state == "Running":
            for made in list(self.executor.instances.values()):
                if made.ctx.backends is not None:
                    made.ctx.backends.ask()

    def _progress(self) -> Progress | None:
        made = self.executor.instances.get(self.executor.starting or "")
        return None if made is None or made.ctx.progress is None else Progress(*made.ctx.progress)


def _id_of(name: str, started_ns: int) -> str:
    """As the log's directory would be called, of a run that keeps none."""
    return f"{name}-{datetime.fromtimestamp(started_ns // 1_000_000_000, UTC):%Y%m%dT%H%M%SZ}"


def _masked(data: Any, secrets: frozenset[str]) -> Any:
    """The same data with the secrets in its texts masked."""
    match data:
        case str():
            return mask_secrets(data, secrets)
        case dict():
            return {key: _masked(value, secrets) for key, value in data.items()}
        case list():
            return [_masked(value, secrets) for value in data]
        case _:
            return data


def _is_in_commit(frame: FrameType | None) -> bool:
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code is Cycle.commit.__code__ or name.startswith(_LOG_MODULE):
            return True
        frame = frame.f_back
    return False


_RUNS: weakref.WeakSet[Run] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A task forked. Its child has neither the threads that a run needs nor any business in its log."""
    for run in _RUNS:
        run.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)
