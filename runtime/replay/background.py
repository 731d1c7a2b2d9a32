"""A background task in a replay: a job runs at once, in the cycle of its inputs, and its result waits
for the cycle in which it appeared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowrun.msgs.message import Message
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.background import (
    Job,
    Jobs,
    JobState,
    are_complete,
    job_inputs,
    prepare_job,
    run_job,
)
from flowrun.runtime.engine.instances import Instance
from flowrun.runtime.engine.keyframes import freeze_after, restored_config, thaw_task
from flowrun.runtime.errors import RecordedError
from flowrun.runtime.events import Failed
from flowrun.runtime.graph.plan import Step

__all__ = ["RecordedBackground"]


class RecordedBackground:
    """One background task.

    time: the time of the running cycle.
    input_cycles: the cycles whose inputs gave a result that appeared later, each with whether the
        task was restarted before it made the result.
    secrets: masked in the error of a `freeze` that fails.
    """

    def __init__(
        self,
        step: Step,
        made: Instance,
        time: CycleTime,
        input_cycles: Mapping[int, bool],
        *,
        secrets: frozenset[str],
    ) -> None:
        self.made = made
        self.jobs = Jobs(made.task.config)
        self.replaced: int | None = None
        """The cycle of the inputs that were replaced in the running cycle."""
        self.is_fed = False
        """Whether this cycle's result comes from the log, because the log lacks its inputs: a log of
        mode `ring` begins in the middle."""
        self.lacks_inputs = False
        """Whether an input of the running cycle is not to be had: no job runs on the others."""
        self.unsettled: list[int] = []
        """The cycles whose inputs were neither replaced nor gave a result so far."""
        self._fed: Job | None = None
        """The last result that was taken from the log."""
        self._step = step
        self._time = time
        self._secrets = secrets
        self._input_cycles = input_cycles

    @property
    def has_work(self) -> bool:
        """Whether a job begins or is given in the running cycle."""
        return self._time.cycle in self._input_cycles or self.jobs.has_taken

    def gives(self, input_cycle: int) -> bool:
        """Whether the result of that cycle's inputs appears in the log."""
        return input_cycle in self._input_cycles

    def gives_after(self, input_cycle: int) -> bool:
        """Whether the result of later inputs appears in the log."""
        return any(later > input_cycle for later in self._input_cycles)

    def submit(self, job: Job) -> int | None:
        """Run the job if its result appeared; if not, it was replaced, or the run ended first."""
        restarts = self._input_cycles.get(job.cycle)
        if restarts is None:
            self.unsettled.append(job.cycle)
        elif not self.lacks_inputs:
            job.restarts = restarts
            self._run(job)
        replaced, self.replaced = self.replaced, None
        if replaced in self.unsettled:
            self.unsettled.remove(replaced)
        return replaced

    def take(self, input_cycle: int) -> None:
        """Let the result of `input_cycle` appear from the running cycle on. If it could not be made
        again, it comes from the log: see `fill`."""
        self.is_fed = False
        in_flight = self.jobs.in_flight
        if in_flight and in_flight[0].cycle == input_cycle and self.jobs.take() is not None:
            return
        self.is_fed = True
        job = Job(input_cycle, self._time.now_ns, self.jobs.config, {})
        job.frozen = {"error": f"the log lacks the inputs of cycle {input_cycle}"}
        self._fed = job
        self.jobs.put_taken(job)

    def fill(self, *, feed: Callable[[Message, int], None], failed: Failed | None) -> None:
        """Let a result that comes from the log be what the log has in the running cycle: in which
        cycle the step gives it depends on where others end theirs.

        feed: loads a slot's recorded message into a message.
        failed: the error that was recorded in place of a result.
        """
        job = self._fed
        if job is None or job.state is not JobState.TAKEN:
            return
        if failed is not None:
            job.error, job.phase = RecordedError(failed.text, failed.place), failed.phase
        for argument in self._step.arguments:
            if argument.port.is_output and argument.slot is not None:
                made = job.messages[argument.slot] = argument.port.message_type()
                feed(made, argument.slot)

    def reset(self) -> None:
        """Go back to before the first cycle; the caller makes the task again."""
        self.jobs.clear()
        self.unsettled = []
        self.jobs.config = self.made.bound.config

    def thaw(
        self,
        frozen: Mapping[str, Any],
        inputs_of: Callable[[int], tuple[int, Sequence[Message]] | None],
    ) -> None:
        """Restore the task's part of a keyframe, and run the jobs again whose results come later.

        frozen: the task's part.
        inputs_of: gives a cycle's time and messages from the log; None if the log lacks them.

        Passes on what `thaw_task` raises.
        """
        self.jobs.clear()
        self.unsettled = [
            cycle
            for cycle, _, taken, _ in frozen.get("jobs", [])
            if not taken and cycle not in self._input_cycles
        ]
        bound = self.made.bound
        thaw_task(self.made, restored_config(bound, frozen.get("live", {})), frozen)
        self.jobs.frozen = dict(frozen)
        for cycle, live, taken, restarts in frozen.get("jobs", []):
            found = inputs_of(cycle) if taken or cycle in self._input_cycles else None
            if found is None:
                continue
            now_ns, messages = found
            if are_complete(job_inputs(self._step, messages)):
                time, config = CycleTime(cycle, now_ns), restored_config(bound, live)
                job = prepare_job(self._step, messages, time=time, config=config)
                job.restarts = restarts
                self._run(job)
                if taken:
                    self.jobs.take()
        self.jobs.config = restored_config(bound, frozen.get("config", {}))

    def _run(self, job: Job) -> None:
        self.jobs.submit(job)
        self.jobs.begin()
        made = self.made
        run_job(job, self._step, made)
        job.frozen = freeze_after(made, job, secrets=self._secrets)
        self.jobs.finish(job)
