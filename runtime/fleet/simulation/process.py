"""One process of a partition in a simulation: its runs, one after the other, moved by hand.

What has a thread of its own in a real process has its turn here when the seed says so: a background task
takes a drawn time for an answer, and the links have a turn between two cycles, and now and then within
one, before it is committed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.engine.background import BackgroundWorker, Job
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.fleet.record import folder_of
from flowrun.runtime.fleet.simulation.machine import OwnClock, TappedLog
from flowrun.runtime.fleet.simulation.promises import Promises
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.graph.spec import GraphSpec, PartId
from flowrun.runtime.links.fake import FakeNetwork, FakeTransport
from flowrun.runtime.links.links import LinkError, Links
from flowrun.runtime.links.reached import reached_before, said_of
from flowrun.runtime.links.source import GapError
from flowrun.runtime.links.transport import Transport
from flowrun.runtime.log.directory import new_run_directory
from flowrun.runtime.replay.recovery import recovered_part
from flowrun.runtime.run.recording import Recording

__all__ = ["Process"]

_LOOK_NS = 50_000_000
"""Interval at which the links have a turn while nothing happens."""
_SAY_END_NS = 1_000_000_000
_AGAIN_NS = 1_000_000_000
"""After which a process that has failed is started again."""
_JOB_NS = (3_000_000, 50_000_000, 50_000_000, 400_000_000, 1_500_000_000)
"""What a background task may take for an answer."""
_TURN_IN_CYCLE = 0.3
"""How often the links have a turn within a cycle."""


class _Killed(BaseException):
    """The process dies within a cycle. No task must be able to catch it."""


class Process:
    """The process of `plan`.

    folder: that of the fleet. seed: of what is drawn.
    ahead_ns: by how much its machine's clock is ahead of `clock`.
    others: all processes, itself included.
    say: called with what it does by itself, such as to end with an error.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        clock: ManualClock,
        network: FakeNetwork,
        *,
        seed: int,
        ahead_ns: int,
        others: Mapping[PartId, Process],
        say: Callable[[str], None],
    ) -> None:
        spec = plan.graph.spec
        assert spec.part is not None
        self.part, self.plan = spec.part, plan
        self.cycles = 0
        self.has_ended = self.has_failed = False
        self.cycle_ns, self.dies = 1_000_000, False
        self.promises, self._others = Promises(plan, network, others), others
        self.run = 0
        """When the present run began, by its clock."""
        self._log_dir = folder_of(folder, self.part)
        self._world, self._clock = clock, OwnClock(clock, ahead_ns)
        self._network, self._say = network, say
        self._random = random.Random(f"{seed} {self.part}")  # noqa: S311  # reproducible on purpose
        self._partition = next(it for it in spec.partitions if it.id == self.part.partition)
        self._executor: Executor | None = None
        self._recording: Recording | None = None
        self._links: Links | None = None
        self._end: FakeTransport | None = None
        """Its end of the network."""
        self._is_finished = False
        self._end_said_ns = self._links_turn_ns = self._busy_until_ns = 0
        self._again_ns: int | None = None
        self._jobs: dict[str, tuple[int, Job]] = {}
        """By task, the job that runs, and when it is done."""

    @property
    def is_alive(self) -> bool:
        return self._executor is not None

    @property
    def is_running(self) -> bool:
        """Whether it has a run that goes on. One that has ended in order is not killed while it waits
        for its receivers: started again, it would send from its first cycle, and they have ended."""
        return self._executor is not None and not self._is_finished

    @property
    def waits_for_start(self) -> bool:
        """Whether it is gone, and is to be started again."""
        return self._executor is None and not self.has_ended

    @property
    def due_ns(self) -> int | None:
        """When it has something to do by itself; None if it waits for others."""
        if self._executor is None:
            return self._again_ns
        if self._is_finished:
            return self._end_said_ns + _SAY_END_NS
        due = [when for when, _ in self._jobs.values()]
        if self._busy_until_ns > self._world.time_ns:
            due.append(self._busy_until_ns)
        elif (source_ns := self._executor.due_ns) is not None:
            due.append(source_ns - self._clock.ahead_ns)
        return min(due, default=None)

    # -- its life ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start a run."""
        self._again_ns = None
        self._world.time_ns += 1  # no two runs begin at once
        self.run = started_ns = self._clock.now_ns()
        directory = new_run_directory(self._log_dir, f"{self.plan.graph.spec.name}-{started_ns}")
        begins = recovered_part(self.plan, directory)
        self._recording = recording = Recording(
            self.plan,
            directory,
            started_ns=started_ns,
            now_ns=self._clock.now_ns,
            after=None if begins is None else (begins.run_id, begins.cycle),
            says=said_of(reached_before(self.plan, directory)),
        )
        log = structlog.get_logger().bind(part=str(self.part))
        recording.report_to(log)
        self._executor = executor = Executor(
            self.plan,
            clock=self._clock,
            log=TappedLog(recording.writer, self._before_commit),
            run_id=directory.name,
            begins=begins,
            ticks=self._clock.now_ns,
            leaves=[it.id for it in self.plan.graph.tasks if it.task_class.acts_outside],
        )
        self._links = links = Links(
            self.plan,
            directory,
            started_ns=started_ns,
            clock=self._clock,
            log=log,
            committed=recording.writer.follow() if recording.writer is not None else None,
            transport=self._open,
            now_s=lambda: self._world.time_ns / 1e9,
        )
        if recording.writer is not None:
            recording.writer.restate = links.restate
        links.on_error, links.hold = executor.stop, executor.hold
        links.note = executor.note_link
        executor.observer = self._look
        self._is_finished = self.dies = False
        self._jobs = {}
        self.promises.begin()
        self._busy_until_ns = self._links_turn_ns = 0
        self._try(self._start)

    def _start(self) -> None:
        assert self._links is not None
        assert self._executor is not None
        self._links.start(self._executor.instances, threaded=False)
        self._executor.begin()

    def pump(self) -> None:
        """Do all that can be done now."""
        now_ns = self._world.time_ns
        if self._again_ns is not None and now_ns >= self._again_ns:
            self.begin()
        if self._executor is None or self._links is None:
            return
        if self._links.was_woken() or now_ns - self._links_turn_ns >= _LOOK_NS:
            self._links_turn_ns = now_ns
            self._links.pump()
        if self._is_finished:
            self._wait_for_receivers()
            return
        self._work()
        if now_ns >= self._busy_until_ns and self._links.is_in_step():
            self.promises.check_step(self.run)
            self._try(self._cycle)

    def stop(self) -> None:
        """End the run in order, unless it has ended."""
        if self.is_running:
            self._try(lambda: self._finish("the end of the simulation"))

    def kill(self) -> None:
        """End the process as SIGKILL does: nothing is finished, and nothing is said."""
        executor, links = self._executor, self._links
        if executor is None:
            return
        if self._recording is not None and not self._is_finished:
            self._recording.abandon()
        self._executor = self._recording = self._links = None
        self._jobs = {}
        if self._end is not None:
            self._end.close()
        if links is not None:
            links.end(in_order=False)
        executor.abandon()

    # -- its cycles ----------------------------------------------------------------------------------

    def _cycle(self) -> None:
        assert self._executor is not None
        assert self._links is not None
        runs = self._executor.try_cycle()
        if self._links.error is not None:
            raise self._links.error
        if runs:
            self._busy_until_ns = self._world.time_ns + self.cycle_ns
        if self._executor.stop_reason is not None:
            self._finish(self._executor.stop_reason)

    def _work(self) -> None:
        """The turn of the background tasks."""
        assert self._executor is not None
        now_ns = self._world.time_ns
        for name, worker in self._executor.workers.items():
            running = self._jobs.get(name)
            if running is not None and now_ns >= running[0]:
                worker.do(running[1])
                del self._jobs[name]
                running = None
            if running is None:
                self._take_job(name, worker, now_ns)

    def _take_job(self, name: str, worker: BackgroundWorker, now_ns: int) -> None:
        if worker.jobs.has_waiting:
            job = worker.jobs.begin()
            assert job is not None
            self._jobs[name] = now_ns + self._random.choice(_JOB_NS), job

    def _before_commit(self) -> None:
        """The tasks of a cycle have run, and it is not in the log."""
        if self._random.random() < _TURN_IN_CYCLE and self._links is not None:
            self._links.pump()
        if self.dies:
            self.dies = False
            raise _Killed

    def _look(self, cycle: Any) -> None:
        """A cycle was committed."""
        self.cycles += 1
        self.promises.look(cycle)
        assert self._links is not None
        self._links.look(cycle)

    # -- its end -------------------------------------------------------------------------------------

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except _Killed:
            self.kill()
        except FlowrunError as error:
            self._fail(error)

    def _fail(self, error: FlowrunError) -> None:
        """The run ends with an error. One that the graph asks for is no fault: the process is started
        again, if the graph says so."""
        if not isinstance(error, LinkError) and not isinstance(error.__cause__, GapError):
            raise FlowrunError(f"{self.part}: {error}") from error
        executor, recording, links = self._executor, self._recording, self._links
        assert executor is not None
        assert recording is not None
        assert links is not None
        self._say(f"{self.part} ends: {error}")
        executor.abandon()
        recording.finish("error", str(error), cycles=executor.cycles)
        links.end(in_order=False)
        self._executor = self._recording = self._links = None
        self._jobs = {}
        if self._partition.on_error == "restart":
            self._again_ns = self._world.time_ns + _AGAIN_NS
        else:
            self.has_ended = self.has_failed = True

    def _finish(self, reason: str) -> None:
        assert self._executor is not None
        assert self._recording is not None
        self._executor.finish()
        self._recording.finish(reason, None, cycles=self._executor.cycles)
        self._is_finished = True
        self._end_said_ns = 0

    def _wait_for_receivers(self) -> None:
        assert self._links is not None
        if self._world.time_ns - self._end_said_ns < _SAY_END_NS:
            return
        self._end_said_ns = self._world.time_ns
        lacking = self._links.say_end()
        # The last word of one that has ended may be lost, and it says nothing again.
        ended = {str(part) for part, it in self._others.items() if it.has_ended}
        if ended.issuperset(lacking):
            self.has_ended = True
            self._links.end(in_order=True)
            self._executor = self._recording = self._links = None

    def _open(self, _spec: GraphSpec) -> Transport:
        self._end = self._network.transport(str(self.part), on_put=self.promises.look_at_put)
        return self._end
