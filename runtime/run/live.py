"""One run of one graph: plan, executor, log and what watches it, put together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from flowrun.runtime.broadcast import Answer, Broadcast
from flowrun.runtime.clock import Clock
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.errors import FlowrunError, LogError
from flowrun.runtime.graph.bind import live_keys
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.log.retention import OldRun, free_preallocated, remove_old_runs
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.run.log_lines import Stream, configure_logs
from flowrun.runtime.run.provenance import versions
from flowrun.runtime.run.recording import attachments_of, metadata_of, outputs_of
from flowrun.runtime.wording import mask_secrets, storable

__all__ = ["Run", "RunResult"]


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    error: None for a run that ended as it should. log_error: why its log ends before it does, where
    the graph says `logging: {on_error: continue}`.
    """

    reason: str
    error: FlowrunError | None
    cycles: int
    messages: int
    log_bytes: int
    log_error: LogError | None = None


class Run:
    """A graph that runs, and what others may see of it and ask of it, from any thread.

    directory: where the log goes; None keeps none. console: where log lines go, stderr if None.
    """

    def __init__(
        self, plan: Plan, *, clock: Clock, directory: Path | None, console: Stream | None = None
    ) -> None:
        graph = plan.graph.spec
        self.plan = plan
        self.name = graph.name
        self.directory = directory
        self.task_types = {task.id: task.spec.type for task in plan.graph.tasks}
        self.broadcasts: Mapping[str, Broadcast] = {
            task.id: Broadcast()
            for task in plan.graph.tasks
            if task.task_class.shows or not any(port.direction == "output" for port in task.ports)
        }
        self._clock = clock
        self._started_ns = clock.now_ns()
        self._state: str | dict[str, str] = "Running"
        self.log_error: LogError | None = None
        """Why the log ends before the run does."""
        goes_on = graph.logging.on_error == "continue"
        self.writer: LogWriter | None = None
        self._removed: list[OldRun] = []
        self._log_line: Any = None
        try:
            if directory is not None:
                free_preallocated(directory.parent, graph=graph.name)
                self.writer = self._make_writer(directory)
        except LogError as error:
            if not goes_on:
                raise
            self.log_error = error
        configure_logs(
            now_ns=clock.now_ns, target=self.writer, secrets=graph.secrets, stream=console
        )
        self._log_line = structlog.get_logger()
        self._tell_removed()
        if self.log_error is not None:
            self._log_line.error("the run is not logged", error=str(self.log_error))
        elif self.writer is not None:
            self._warn_of_unlogged_sources()
        self._has_run = False
        try:
            self.executor = Executor(
                plan,
                clock=clock,
                log=self.writer,
                on_log_error=self._go_on_without_log if goes_on else None,
                broadcasts=self.broadcasts,
            )
        except BaseException:
            self._discard()
            raise

    def _make_room(self, directory: Path, taken: int) -> None:
        """Keep the graph's runs within what `keep` allows. taken: bytes of the present one."""
        graph = self.plan.graph.spec
        keep = graph.logging.keep
        if keep.gib is None and keep.runs is None:
            return
        self._removed += remove_old_runs(
            directory.parent,
            graph=graph.name,
            graph_path=str(graph.path.absolute()),
            runs=None if keep.runs is None else keep.runs - 1,
            size=None if keep.gib is None else max(0, int(keep.gib * 2**30) - taken),
            present=directory,
        )
        if self._log_line is not None:  # before, nobody could be told
            self._tell_removed()

    def _tell_removed(self) -> None:
        while self._removed:
            old = self._removed.pop(0)
            said = {"path": str(old.path), "mib": round(old.size / 2**20, 1)}
            if old.problem is None:
                self._log_line.info("removed an old run", **said)
            else:
                self._log_line.warning("cannot remove an old run", **said, why=old.problem)

    def _make_writer(self, directory: Path) -> LogWriter:
        logging = self.plan.graph.spec.logging
        return LogWriter(
            directory,
            outputs=outputs_of(self.plan),
            steps=len(self.plan.steps),
            metadata=metadata_of(self.plan, directory, self._started_ns),
            attachments=attachments_of(self.plan, self._started_ns),
            library=f"flowrun {versions()['flowrun']}",
            slab_size_mib=logging.slab_size_mib,
            section_size_mib=logging.section_size_mib,
            keep_slabs=logging.keep_slabs if logging.mode == "ring" else None,
            make_room=partial(self._make_room, directory),
        )

    def _warn_of_unlogged_sources(self) -> None:
        sources = {step.task.id for step in self.plan.steps[: self.plan.source_count]}
        topics = [
            output.topic
            for output in outputs_of(self.plan)
            if output.task in sources and not (output.logged and output.payload)
        ]
        if topics:
            self._log_line.warning(
                "the run cannot be replayed: it logs no payload of a source",
                topics=", ".join(topics),
            )

    def _go_on_without_log(self, error: LogError) -> None:
        """Finish what there is of the log, and say once, on the console and in the result, that no
        more comes."""
        self.log_error = error
        # The same error may come again from finishing; the log is readable all the same.
        with contextlib.suppress(LogError):
            self._finish_log("log error", mask_secrets(str(error), self.plan.graph.spec.secrets))
        self._log_line.error("the log ends here; the run goes on", error=str(error))

    @contextmanager
    def discarded_unless_run(self) -> Iterator[None]:
        """If `run` is not called within, nothing is left of the run's directory."""
        try:
            yield
        finally:
            if not self._has_run:
                self._discard()

    def _discard(self) -> None:
        if self.writer is not None:
            self.writer.discard()

    def run(self, *, cycles: int | None = None) -> RunResult:
        """Run to the end; the log is finished then, whatever happened. Of a run that is stopped
        while its tasks start, no log is left."""
        self._has_run = True
        reason, error = "", None
        try:
            reason = self.executor.run(cycles=cycles)
        except FlowrunError as failure:
            reason, error = "error", failure
        except BaseException as failure:
            self._finish("internal error", f"{type(failure).__name__}: {failure}")
            raise
        if error is None and not self.executor.has_started:
            self._discard()
            self.writer = None
        finish_error = self._finish(reason, None if error is None else str(error))
        error = error or finish_error
        return RunResult(
            reason, error, self.executor.cycles, self.messages, self.log_bytes, self.log_error
        )

    def _finish(self, reason: str, error: str | None) -> FlowrunError | None:
        if error is not None:
            error = storable(mask_secrets(error, self.plan.graph.spec.secrets))
        self._state = "Stopped" if error is None else {"Error": error}
        for broadcast in self.broadcasts.values():
            broadcast.close()
        failed = None
        if self.log_error is None:
            try:
                self._finish_log(reason, error)
            except LogError as failure:
                failed = failure
        return failed

    def _finish_log(self, reason: str, error: str | None) -> None:
        if self.writer is None:
            return
        end = {
            "reason": reason,
            "cycles": str(self.executor.cycles),
            "ended_ns": str(self._clock.now_ns()),
        }
        self.writer.finish(end if error is None else {**end, "error": error})

    # -- for those who watch -------------------------------------------------------------------

    @property
    def messages(self) -> int:
        return self.writer.messages if self.writer is not None else 0

    @property
    def log_bytes(self) -> int:
        return self.writer.size if self.writer is not None else 0

    def state(self) -> str | dict[str, str]:
        """One of "Running", "Stopped" and {"Error": text}."""
        return self._state

    def graph(self) -> dict[str, Any]:
        """The resolved graph as plain data, secrets masked."""
        return masked_graph(self.plan.graph.spec)

    def live_keys(self) -> Mapping[str, tuple[str, ...]]:
        """Task id -> the config keys that may change while it runs."""
        return {task.id: live_keys(task.task_class) for task in self.plan.graph.tasks}

    def set_live(self, task_id: str, values: dict[str, Any]) -> None:
        """Change live values at the next cycle; `UsageError` names a wrong key or value."""
        self.executor.set_live(task_id, values)

    def stop(self, reason: str) -> None:
        """Ask the run to end after the running cycle."""
        self.executor.stop(reason)

    def interrupt_start(self, reason: str) -> None:
        """See `Executor.interrupt_start`."""
        self.executor.interrupt_start(reason)

    def report(self) -> dict[str, Any]:
        """What a status shows: counts, the cycle rate, per task p50 and p99 of the last cycles.

        starting: the task whose `start` runs, and progress what it says of itself; None afterwards.
        cycle_rate_hz is that of the last 1,024 cycles at most; latencies are in microseconds.
        """
        executor = self.executor
        timings = list(executor.timings)
        uptime_s = (self._clock.now_ns() - self._started_ns) / 1e9
        tasks: dict[str, Any] = {}
        for step in self.plan.steps:
            made = executor.instances[step.task.id]
            worker = executor.workers.get(made.id)
            dropped = int(getattr(made.task, "dropped", 0)) + (
                worker.jobs.replaced if worker else 0
            )
            tasks[made.id] = {
                "type": step.task.spec.type,
                "p50_us": None,
                "p99_us": None,
                "background": worker is not None,
                "dropped": dropped,
            }
        rate = 0.0
        if len(timings) > 1:
            spans = np.array([[start, *ends] for start, ends in timings], np.int64)
            durations = np.diff(spans, axis=1) / 1e3
            p50, p99 = np.percentile(durations, [50, 99], axis=0)
            for index, step in enumerate(self.plan.steps):
                tasks[step.task.id]["p50_us"] = round(float(p50[index]), 1)
                tasks[step.task.id]["p99_us"] = round(float(p99[index]), 1)
            rate = (len(timings) - 1) * 1e9 / max(1, timings[-1][0] - timings[0][0])
        return {
            "cycles": executor.cycles,
            "cycle_rate_hz": round(rate, 2),
            "uptime_s": round(uptime_s, 3),
            "starting": executor.starting,
            "progress": self._progress(),
            "log": None
            if self.writer is None
            else {"path": str(self.directory), "bytes": self.log_bytes, "messages": self.messages},
            "tasks": tasks,
            "last_answer": self.last_answer(),
        }

    def _progress(self) -> dict[str, Any] | None:
        made = self.executor.instances.get(self.executor.starting or "")
        if made is None or made.ctx.progress is None:
            return None
        what, fraction = made.ctx.progress
        return {"what": what, "fraction": fraction}

    def last_answer(self) -> dict[str, Any] | None:
        """The newest answer that a chat sink has shown."""
        answers = [b.newest for b in self.broadcasts.values() if isinstance(b.newest, Answer)]
        if not answers:
            return None
        newest = max(answers, key=lambda answer: answer.tov_ns)
        return {
            "prompt": newest.prompt,
            "response": newest.response,
            "latency_ms": newest.latency_ms,
            "backend": newest.backend,
            "cycle": newest.cycle,
            "timestamp_nanos": newest.tov_ns,
        }
