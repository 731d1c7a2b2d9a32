"""A background task in a replay: it runs in the cycle of its input, at once, and its result waits for
the cycle in which it appeared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowrun.msgs.message import Message
from flowrun.runtime.engine.background import Job, deliver, prepare_job, run_job, submits
from flowrun.runtime.engine.instances import Instance
from flowrun.runtime.engine.keyframes import freeze_behind, restored_config, thaw_task
from flowrun.runtime.graph.plan import Step
from flowrun.runtime.task import CycleTime

__all__ = ["ReplayedBackground"]


class ReplayedBackground:
    """One background task.

    time: that of the cycle that runs. secrets: masked in what is said of a `freeze` that fails.
    input_cycles: the cycles whose inputs gave a result that appeared later, each with whether the
        task was restarted before it made it.
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
        self.config = made.task.config
        self.is_fed = False
        """Whether the result of this cycle comes from the log: its inputs are not in it (a log of
        mode `ring` begins in the middle)."""
        self.frozen: dict[str, Any] | None = None
        self._step = step
        self._time = time
        self._secrets = secrets
        self._input_cycles = input_cycles
        self._done: dict[int, Job] = {}
        self._taken: Job | None = None

    @property
    def present(self) -> bool:
        """Whether there is something to do in the cycle: the gate of the task's step."""
        begins = self._time.cycle in self._input_cycles
        return begins or self.is_fed or self._taken is not None

    @property
    def in_flight(self) -> list[tuple[Job, bool]]:
        """As `BackgroundWorker.in_flight`."""
        taken = [(self._taken, True)] if self._taken else []
        return taken + [(job, False) for job in self._done.values()]

    def reset(self) -> None:
        """As before the first cycle; the task is made anew by the caller."""
        self.config = self.made.bound.config
        self._forget()

    def take_from(self, input_cycle: int) -> None:
        """The result of `input_cycle` appears in the cycle that runs next."""
        self._taken = self._done.pop(input_cycle, None)
        self.is_fed = self._taken is None

    def call(self, messages: Sequence[Message], feed: Callable[[], None]) -> None:
        """The step in the cycle."""
        if self._time.cycle in self._input_cycles:
            self._run(messages, self._time)
        if self._taken is not None:
            job, self._taken = self._taken, None
            self.frozen = job.frozen
            deliver(job, self._step, messages)
        elif self.is_fed:
            feed()

    def thaw(
        self,
        frozen: Mapping[str, Any],
        inputs_of: Callable[[int], tuple[int, Sequence[Message]] | None],
    ) -> None:
        """Take up the task's part of a keyframe, and run the jobs again whose results come later.

        inputs_of: the time and the messages of a cycle as the log has them; None if it lacks them:
        the results are fed then. Passes on what `configure` or `thaw` raises.
        """
        self._forget()
        bound = self.made.bound
        thaw_task(self.made, restored_config(bound, frozen.get("live", {})), frozen)
        self.frozen = dict(frozen)
        for cycle, live, taken in frozen.get("jobs", []):
            found = inputs_of(cycle) if cycle in self._input_cycles else None
            if found is None:
                continue
            now_ns, messages = found
            self.config = restored_config(bound, live)
            self._run(messages, CycleTime(cycle, now_ns))
            if taken:
                self.take_from(cycle)
        self.config = restored_config(bound, frozen.get("config", {}))

    def _forget(self) -> None:
        self._done.clear()
        self._taken, self.is_fed = None, False

    def _run(self, messages: Sequence[Message], time: CycleTime) -> None:
        inputs = [
            (messages[argument.slot], argument.port.required)
            for argument in self._step.arguments
            if argument.slot is not None and argument.port.direction == "input"
        ]
        if submits(inputs):
            made = self.made
            job = prepare_job(self._step, messages, time=time, config=self.config)
            job.restarts = self._input_cycles[time.cycle]
            run_job(job, self._step, made.task, made.ctx, made.time)
            restarts = made.bound.spec.on_error == "restart"
            job.frozen = freeze_behind(made, job, restarts=restarts, secrets=self._secrets)
            self._done[time.cycle] = job
