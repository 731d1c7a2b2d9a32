"""One run of one graph: plan, executor, log and what watches it, put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from flowrun.runtime.broadcast import Broadcast
from flowrun.runtime.clock import Clock
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.errors import FlowrunError, LogError, worded
from flowrun.runtime.graph.bind import live_keys
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.run.log_lines import Stream, configure_logs
from flowrun.runtime.run.recording import Recording
from flowrun.runtime.run.report import LogReport, Progress, RunReport, newest_answer, task_reports
from flowrun.runtime.wording import mask_secrets, storable

__all__ = ["Run", "RunResult"]


@dataclass(frozen=True, slots=True)
class RunResult:
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


class Run:
    """A graph that runs, and what others may see of it and ask of it, from any thread.

    clock: the time of its cycles.
    directory: where the log goes; None keeps none.
    console: where log lines go, stderr if None.
    """

    def __init__(
        self, plan: Plan, *, clock: Clock, directory: Path | None, console: Stream | None = None
    ) -> None:
        self.plan = plan
        self.name = plan.graph.spec.name
        self.directory = directory
        self.shows = {task.id: task.task_class.shows for task in plan.graph.tasks}
        self.broadcasts: Mapping[str, Broadcast] = {
            task.id: Broadcast()
            for task in plan.graph.tasks
            if task.task_class.shows or not any(port.direction == "output" for port in task.ports)
        }
        self._clock = clock
        self._started_ns = clock.now_ns()
        self._state: str | dict[str, str] = "Running"
        self._has_run = False
        self._recording = Recording(
            plan, directory, started_ns=self._started_ns, now_ns=clock.now_ns
        )
        configure_logs(
            now_ns=clock.now_ns, target=self.writer, secrets=plan.graph.spec.secrets, stream=console
        )
        self._recording.report_to(structlog.get_logger())
        try:
            self.executor = Executor(
                plan,
                clock=clock,
                log=self.writer,
                on_log_error=self._lose_log if self._recording.outlived else None,
                broadcasts=self.broadcasts,
            )
        except BaseException:
            self._recording.discard()
            raise

    # -- running -------------------------------------------------------------------------------

    @contextmanager
    def discarded_unless_run(self) -> Iterator[None]:
        """If `run` is not called within, nothing is left of the run's directory."""
        try:
            yield
        finally:
            if not self._has_run:
                self._recording.discard()

    def run(self, *, cycles: int | None = None) -> RunResult:
        """Run to the end; the log is finished then, whatever happened. No log is left of a run that
        is stopped while its tasks start.

        cycles: end after this number of cycles.
        """
        self._has_run = True
        reason, error = "", None
        try:
            reason = self.executor.run(cycles=cycles)
        except FlowrunError as failure:
            reason, error = "error", failure
        except BaseException as failure:
            self._finish("internal error", worded(failure))
            raise
        if error is None and not self.executor.has_started:
            self._recording.discard()
        finish_error = self._finish(reason, None if error is None else str(error))
        return RunResult(
            reason=reason,
            error=error or finish_error,
            cycles=self.executor.cycles,
            messages=self._recording.messages,
            log_bytes=self._recording.size,
            log_error=self._recording.error,
        )

    def _finish(self, reason: str, error: str | None) -> FlowrunError | None:
        if error is not None:
            error = storable(mask_secrets(error, self.plan.graph.spec.secrets))
        self._state = "Stopped" if error is None else {"Error": error}
        for broadcast in self.broadcasts.values():
            broadcast.close()
        return self._recording.finish(reason, error, cycles=self.executor.cycles)

    def _lose_log(self, error: LogError) -> None:
        self._recording.give_up(error, cycles=self.executor.cycles)

    # -- asking something of it ----------------------------------------------------------------

    def set_live(self, task_id: str, values: dict[str, Any]) -> None:
        """Change live values at the next cycle; `UsageError` names a wrong key or value."""
        self.executor.set_live(task_id, values)

    def stop(self, reason: str) -> None:
        """Ask the run to end after the running cycle."""
        self.executor.stop(reason)

    def interrupt_start(self, reason: str) -> None:
        """See `Executor.interrupt_start`."""
        self.executor.interrupt_start(reason)

    # -- watching it ---------------------------------------------------------------------------

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

    def report(self) -> RunReport:
        """How the run is doing."""
        tasks, rate_hz = task_reports(self.executor)
        log = None
        if self.writer is not None:
            log = LogReport(str(self.directory), self._recording.size, self._recording.messages)
        return RunReport(
            cycles=self.executor.cycles,
            cycle_rate_hz=rate_hz,
            uptime_s=round((self._clock.now_ns() - self._started_ns) / 1e9, 3),
            starting=self.executor.starting,
            progress=self._progress(),
            log=log,
            tasks=tasks,
            last_answer=newest_answer(self.broadcasts.values()),
        )

    def _progress(self) -> Progress | None:
        made = self.executor.instances.get(self.executor.starting or "")
        return None if made is None or made.ctx.progress is None else Progress(*made.ctx.progress)
