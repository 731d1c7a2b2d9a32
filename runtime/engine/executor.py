"""Runs a plan live: one cycle after another, until its sources end or it is asked to stop.

A cycle runs when something came from outside: a source published, a live value was set, or a
background task is done. Otherwise nothing runs and no cycle number is used: the executor sleeps until
a source wakes it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NoReturn

import msgpack

from flowrun.runtime.broadcast import Broadcast
from flowrun.runtime.clock import Clock, ticks_ns
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.background import (
    BackgroundWorker,
    Job,
    ShadowWorker,
    are_complete,
    job_inputs,
    prepare_job,
)
from flowrun.runtime.engine.beginning import Beginning
from flowrun.runtime.engine.cycle import Cycle, CycleLog, Failure
from flowrun.runtime.engine.injection import injected_message
from flowrun.runtime.engine.instances import (
    changed_config,
    make_instances,
    start_all,
    stop_all,
)
from flowrun.runtime.engine.keyframes import freeze_after, restored_config, thaw_task
from flowrun.runtime.engine.outside import LiveOutside
from flowrun.runtime.engine.parallel import crew_of
from flowrun.runtime.engine.policy import restart_task
from flowrun.runtime.engine.published import Published
from flowrun.runtime.engine.rates import is_rated
from flowrun.runtime.engine.waiting import Waiting
from flowrun.runtime.engine.watch import MessageWatch
from flowrun.runtime.engine.watchdog import Watchdog
from flowrun.runtime.engine.whereabouts import Whereabouts
from flowrun.runtime.errors import LogError, TaskError, UsageError
from flowrun.runtime.events import Assigned, Failed, Met
from flowrun.runtime.graph.bind import live_keys
from flowrun.runtime.graph.plan import Plan, Step
from flowrun.runtime.interrupts import Interrupted
from flowrun.runtime.task import Playback, ShownState
from flowrun.runtime.threads import settled
from flowrun.runtime.wording import counted

__all__ = ["Executor", "StartInterrupted", "Timing"]

WORKER_STOP_S = 8.0
"""Seconds that a stopping run waits for a background task's running call."""
_NOTHING = "nothing has come"
_SILENT_STOP_S = 0.5
"""Seconds to wait before logging that we are waiting."""


Timing = tuple[int, list[int], tuple[bool, ...]]
"""When a cycle began and each of its steps ended, in `ticks_ns`; and which slots have a message."""


class StartInterrupted(Interrupted):
    """The run was asked to stop while tasks were starting.

    Not an `Exception`: a library that a task calls in its `start` lets it pass, as it does Ctrl-C.
    """


class _Handover:
    """That the following cycles are written to `log`.

    cycle: the first of them, once that is known.
    """

    def __init__(self, log: CycleLog | None) -> None:
        self.log = log
        self.done = threading.Event()
        self.cycle: int | None = None


class Executor:
    """A live run of `plan`.

    clock: gives the cycles' time; a `ManualClock` moves to the next wake-up instead of sleeping.
    log: where cycles are written; None writes none.
    on_log_error: called once with the error that ended the log; the run then goes on without one.
        None ends the run.
    broadcasts: the `ctx.broadcast` of each sink, by task id.
    debug_messages: whether to check what tasks do with messages; see `watch`. One step runs after the
        other then.
    run_id: see `Context.run_id`.
    begins: what the tasks remember of an earlier run, which this one goes on with; None: nothing.
    ticks: see `Cycle`.
    leaves: ids of tasks that are neither started nor called.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        clock: Clock,
        log: CycleLog | None = None,
        on_log_error: Callable[[LogError], None] | None = None,
        broadcasts: Mapping[str, Broadcast] | None = None,
        debug_messages: bool = False,
        run_id: str = "",
        begins: Beginning | None = None,
        ticks: Callable[[], int] = ticks_ns,
        leaves: Collection[str] = (),
    ) -> None:
        self.plan = plan
        self._begins = begins
        self._first = 0 if begins is None else begins.cycle
        self.cycles = self._first
        """The number of the next cycle: how many have been completed, by the run that this one goes on
        with too."""
        self.timings: deque[Timing] = deque(maxlen=1024)
        """Of the last cycles."""
        self.stop_reason: str | None = None
        self.is_at_end = False
        """Whether the run has ended as its sources have, or as it had run all cycles that it was to."""
        self.starting: str | None = None
        """The task whose `start` runs now."""
        self.has_started = False
        """Whether the `start` of every task has returned."""
        self.observer: Callable[[Cycle], None] | None = None
        """Called after the commit of each cycle, on the cycles' thread; it MUST NOT block or raise."""
        self.wait_for_others: Callable[[], None] | None = None
        """Called before each cycle, on the cycles' thread: a run that goes in step with others waits
        there, until `stop_reason` is set."""
        self.on_rest: Callable[[], None] | None = None
        """Called on the cycles' thread, between two cycles, when nothing comes any more but from
        `rest_but`; it MUST NOT block or raise."""
        self.rest_but: Collection[str] = ()
        """Sources."""
        self.published = Published(plan)
        self._handover: _Handover | None = None
        """What a thread has asked `log_to` for, and no cycle has seen."""
        self._clock = clock
        self._on_log_error = on_log_error
        self._outside = outside = LiveOutside(
            clock,
            sources=[step.task.id for step in plan.steps[: plan.source_count]],
            packets=_packet_tasks(plan) if log is not None else (),
            actors=[
                step.task.id
                for step in plan.steps
                if step.task.task_class.acts_outside
                or step.task.task_class.leaves_out
                or step.task.spec.shadow_of
            ],
            leaves=leaves,
        )
        self.left_out = outside.left_out
        self._packet_sources = _packet_tasks(plan) & outside.sources.keys() if log else set()
        self._has_ended = False
        """Whether the tasks have been stopped, or are being so."""
        self._stopped: set[str] = set()
        """The sources that were stopped before all other tasks are."""
        time = CycleTime()
        self.instances = make_instances(
            plan,
            time,
            broadcasts=broadcasts,
            source=outside.source,
            actor=lambda task_id: outside.actor(task_id, self.stop),
            run_id=run_id,
        )
        self._begun = [made for id_, made in self.instances.items() if id_ not in leaves]
        """The tasks that are started, in order."""
        self._keyframe_interval = plan.graph.spec.logging.keyframe_interval if log else 0
        self._next_keyframe = self._first if self._keyframe_interval else None
        self.workers: dict[str, BackgroundWorker] = {
            step.task.id: self._worker(step)
            for step in plan.steps
            if step.task.spec.background and not step.task.spec.shadow_of
        }
        self._shadows = {
            step.task.id: self._shadow(step) for step in plan.steps if step.task.spec.shadow_of
        }
        self.workers |= self._shadows
        outside.background.update(self.workers)
        self._crew = None if debug_messages else crew_of(plan.graph.spec.runtime)
        self.cycle = Cycle(
            plan,
            outside,
            instances=self.instances,
            running=frozenset(made.id for made in self._begun),
            time=time,
            log=log,
            watch=MessageWatch(plan) if debug_messages else None,
            crew=self._crew,
            ticks=ticks,
        )
        self.whereabouts = Whereabouts(self.cycle, self.instances)
        self.watchdog = Watchdog(self.whereabouts, self.instances, self.workers, self._crew)
        self._waiting = Waiting(
            clock,
            outside,
            rated={
                step.task.id: self.cycle.rates[step.task.id]
                for step in plan.steps[: plan.source_count]
                if is_rated(step)
            },
            rate_hz=plan.graph.spec.runtime.rate_hz,
            collect_ms=plan.graph.spec.runtime.collect_timeout_ms,
        )
        self._configs = {id_: made.task.config for id_, made in self.instances.items()}
        self._set_lock = threading.Lock()
        self._waits = True
        """Whether to wait where nothing has come."""

    @property
    def silent(self) -> list[str]:
        """The tasks that were called, and have never published a message on any of their outputs."""
        return self.cycle.silent

    @property
    def has_own_speed(self) -> bool:
        """Whether a source gives what comes at its own speed: a live one, or one that plays so."""
        return bool(self._outside.live) or any(
            getattr(made.task.config, "realtime", False) is True for made in self.instances.values()
        )

    def _worker(self, step: Step) -> BackgroundWorker:
        return BackgroundWorker(
            step,
            self.instances[step.task.id],
            wake=self._outside.woken.set,
            freeze=self._freeze_of(step),
            threads=self.plan.graph.spec.runtime.background,
        )

    def _shadow(self, step: Step) -> ShadowWorker:
        [of] = [it for it in self.plan.steps if it.task.id == step.task.spec.shadow_of]
        return ShadowWorker(
            step,
            self.instances[step.task.id],
            of=of,
            worker=self.workers.get(of.task.id),
            wake=self._outside.woken.set,
            left_out=partial(self._outside.leave_out, step.task.id),
            freeze=self._freeze_of(step),
            threads=self.plan.graph.spec.runtime.background,
        )

    def _freeze_of(self, step: Step) -> Callable[[Job], dict[str, Any]] | None:
        if not self._keyframe_interval:
            return None
        made = self.instances[step.task.id]
        return partial(freeze_after, made, secrets=self.plan.graph.spec.secrets)

    # -- from other threads --------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Ask the run to end after the running cycle. From any thread, but not from a signal handler:
        it may have interrupted a holder of the locks that this takes."""
        if self.stop_reason is None:
            self.stop_reason = reason
        self._waiting.stop()

    def interrupt_start(self, reason: str) -> None:
        """Raise `StartInterrupted` while tasks start; do nothing otherwise.

        For a signal handler of the thread that called `run`: a `start` may block for minutes, and
        nothing else ends it.
        """
        if self.starting is not None:
            self.stop_reason = reason
            raise StartInterrupted

    def awaits(self, source: str) -> bool:
        """Whether something may come from `source` at any moment: it has not finished, and has not said
        when it is due."""
        outside = self._outside
        is_later = outside.due.is_later(source, self._clock.now_ns())
        known = outside.sources[source]
        return not (known.has_ended or is_later) and known.playback == "running"

    @property
    def states(self) -> dict[str, tuple[ShownState, str]]:
        """How each source is doing: its state, and the code of what keeps it from running."""
        return self._outside.states

    def switch(self, source: str, playback: Playback) -> bool:
        """Pause, mute or resume a source at the next cycle boundary; False if that was asked last. From
        any thread.

        Raises `UsageError` for a task that is no source, and for a source that has ended.
        """
        sources = self._outside.sources
        if source not in sources:
            what = "task" if source in self.instances else "unknown task"
            why = " is no source" if source in self.instances else ""
            raise UsageError(f"{what} {source!r}{why}; sources: {', '.join(sources)}")
        if sources[source].has_ended:
            raise UsageError(f"source {source!r} has ended; nothing more comes from it")
        return self._outside.switch(source, playback)

    def hold(self, is_held: bool) -> None:  # noqa: FBT001  # as `Links.hold` is called
        """Let the run's own sources wait for another partition, or go on. From any thread."""
        received = {it.source for it in self.plan.graph.receives}
        for source in self.states.keys() - received:
            with contextlib.suppress(UsageError):  # it has ended
                self.switch(source, "paused" if is_held else "running")

    def note_link(self, event: Assigned | Met) -> None:
        """Keep with the next cycle what has become of a link to another process. From any thread."""
        self._outside.note_link(event)

    def publish(self, port: str, fields: Mapping[str, Any], *, tov_ns: int | None = None) -> bool:
        """Publish a message on a port, `TASK.PORT`, in the next cycle; see `injection.injected_message`.
        From any thread. False while too many wait for a cycle.

        Raises `UsageError` for an unknown port, and for fields that are not those of its message.
        """
        return self._outside.inject(injected_message(self.plan, port, fields, tov_ns=tov_ns))

    def set_live(self, task_id: str, values: Mapping[str, Any]) -> None:
        """Change live configuration values at the next cycle boundary. From any thread.

        Raises `UsageError` for an unknown task, a key that is not live, or a bad value.
        """
        made = self.instances.get(task_id)
        if made is None:
            raise UsageError(f"unknown task {task_id!r}; tasks: {', '.join(self.instances)}")
        with self._set_lock:
            new = changed_config(made.bound, self._configs[task_id], values)
            try:
                msgpack.packb(dict(values))
            except (TypeError, ValueError, OverflowError) as error:
                raise UsageError(
                    f"{task_id}: the log cannot hold {values!r:.80}: {error}"
                ) from None
            self._configs[task_id] = new
            self._outside.set(task_id, dict(values))
            for id_ in self._shadows:
                self._let_follow(id_, task_id, values)

    def _let_follow(self, shadow: str, task_id: str, values: Mapping[str, Any]) -> None:
        """Let a shadow have the live values that were set for its task."""
        made = self.instances[shadow]
        spec = made.bound.spec
        followed = {key: value for key, value in values.items() if key in spec.follows}
        if spec.shadow_of == task_id and followed:
            self._configs[shadow] = changed_config(made.bound, self._configs[shadow], followed)
            self._outside.set(shadow, followed)

    def log_to(self, log: CycleLog | None, *, timeout_s: float) -> int | None:
        """Write the following cycles to `log`, from a keyframe on, or to none; waits until it is so, and
        returns the number of the first of them. From another thread.

        None: the cycle that runs has not ended within `timeout_s`, or the run has; nothing changes then.
        """
        handover = self._handover = _Handover(log)
        self._outside.woken.set()
        handover.done.wait(timeout_s)
        with self._set_lock:
            if self._handover is handover:
                self._handover = None
        return handover.cycle

    def _hand_over(self) -> None:
        with self._set_lock:
            handover, self._handover = self._handover, None
        if handover is None:
            return
        if handover.log is None:
            self.cycle.log = None
        else:
            self.cycle.log_to(handover.log)
            if self._keyframe_interval:
                self._next_keyframe = self.cycles
        handover.cycle = self.cycles
        handover.done.set()

    def live_values(self, task_id: str) -> dict[str, Any]:
        """The values that were set last, of the keys that may change while it runs."""
        config = self._configs[task_id]
        return config.model_dump(
            mode="json", include=set(live_keys(type(self.instances[task_id].task)))
        )

    # -- the run -------------------------------------------------------------------------------

    def run(self, *, cycles: int | None = None) -> str:
        """Start the tasks, run until the end, stop the tasks; returns the reason why it ended.

        cycles: end after this number of cycles.

        Raises `TaskError` for what a task raised; all tasks are stopped then too. So does an error in
        the `stop` of a task that acts outside the run, such as of a file that it cannot finish. A run
        that is stopped before all tasks have started has no cycle.
        """
        runtime = self.plan.graph.spec.runtime
        with settled(runtime.affinity, runtime.nice):
            return self._run(cycles)

    def _run(self, cycles: int | None) -> str:
        try:
            self._start_tasks()
        except (StartInterrupted, Exception):
            if self.stop_reason is None:
                raise
            return self.stop_reason  # a library may have turned the interrupt into an error
        try:
            if self._keyframe_interval:
                self.cycle.keyframes.begin()
            if self._begins is not None:
                self._take_up(self._begins)
            for worker in self.workers.values():
                worker.start()
            self.watchdog.start()
            limit = None if cycles is None else self._first + cycles
            self.run_cycles(limit)
            if self._packet_sources and self.cycles != limit:
                self._run_last_cycle()
        finally:
            self.watchdog.stop()
            if self._crew is not None:
                self._crew.end()
            failed = self._stop_tasks()
        if failed:
            raise failed[0]
        assert self.stop_reason is not None
        return self.stop_reason

    def _start_tasks(self) -> None:
        try:
            start_all(self._begun, on_start=self._note_start)
        except BaseException as error:
            if isinstance(error, TaskError) and self.stop_reason is None:
                self._outside.note_failure(error.task_id)
            self._outside.close()
            raise
        self.has_started = True

    def _take_up(self, begins: Beginning) -> None:
        """Give the tasks what they remembered, and what they were working on. One that cannot take it up
        starts from nothing."""
        for task_id, frozen in begins.tasks.items():
            made = self.instances.get(task_id)
            if made is None or made.bound.is_source:
                continue
            worker, policy = self.workers.get(task_id), self.cycle.policies.get(task_id)
            try:
                thaw_task(made, restored_config(made.bound, frozen.get("live", {})), frozen)
            except TaskError as error:
                made.ctx.log.warning(
                    "cannot take up what it remembered; it starts from nothing", why=str(error)
                )
                restart_task(made)
                continue
            config = made.task.config
            if worker is not None:
                worker.jobs.frozen = dict(frozen)
                config = worker.jobs.config = restored_config(made.bound, frozen.get("config", {}))
            self._configs[task_id] = config
            if policy is not None:
                policy.thaw(frozen)
            self.cycle.rates[task_id].due_ns = frozen.get("due_ns")
        for task_id, unsettled in begins.unsettled.items():
            worker = self.workers.get(task_id)
            [step] = [it for it in self.plan.steps if it.task.id == task_id]
            for cycle, now_ns, messages in unsettled if worker is not None else ():
                assert worker is not None
                if are_complete(job_inputs(step, messages)):
                    time = CycleTime(cycle, now_ns)
                    worker.jobs.put_back(
                        prepare_job(step, messages, time=time, config=worker.jobs.config)
                    )

    def _stop_packet_sources(self) -> None:
        """Stop the sources that may have packets which no picture has brought into the log."""
        sources = self._packet_sources - self._stopped - set(self._outside.restarts.under_way)
        self._stopped |= sources
        stop_all([made for id_, made in self.instances.items() if id_ in sources])
        self._outside.close()

    def _run_last_cycle(self) -> None:
        """Run a cycle in which nothing comes but the sources' last packets, if there are any."""
        self._stop_packet_sources()
        rest = self._outside.take_packets()
        if rest:
            self._outside.reported.extend(rest)
            reason, self.stop_reason = self.stop_reason, None
            self.run_cycles(self.cycles + 1)
            self.stop_reason = reason

    def _stop_tasks(self) -> list[TaskError]:
        """As `stop_all`."""
        self._has_ended = True
        self._stop_workers()
        starting = self._outside.restarts.end(silent_s=_SILENT_STOP_S, timeout_s=WORKER_STOP_S)
        gone = starting | self._stopped
        failed = stop_all([made for made in self._begun if made.id not in gone])
        self._outside.close()
        return failed

    def _stop_workers(self) -> None:
        for worker in self.workers.values():
            worker.interrupt()
        for id_, worker in self.workers.items():
            silent_s = min(_SILENT_STOP_S, WORKER_STOP_S)
            if worker.stop(timeout_s=silent_s):
                continue
            log = self.instances[id_].ctx.log
            log.info("waiting for its running call", up_to_s=WORKER_STOP_S)
            if not worker.stop(timeout_s=WORKER_STOP_S - silent_s):
                log.warning("still running; the run ends without it")

    def _note_start(self, task_id: str | None) -> None:
        if task_id is not None and self.stop_reason is not None:
            raise StartInterrupted
        self.starting = task_id

    def run_cycles(self, limit: int | None) -> None:
        """Run cycles until the run ends, or `limit` cycles are completed in all. The caller has
        started the tasks, as `run` does."""
        cycle, waiting = self.cycle, self._waiting
        time, timings, published = cycle.time, self.timings, self.published
        runs, ring_size = cycle.runs, len(cycle.runs)
        paced, held_back = waiting.is_paced, waiting.holds_back
        shadows = list(self._shadows.values())
        while self.stop_reason is None:
            if self._handover is not None:
                self._hand_over()
            number = self.cycles
            if number == limit:
                self.stop_reason, self.is_at_end = self._limit_of(number), True
                return
            if number == self._next_keyframe:
                # Once, though sources may have to be asked several times before the cycle begins.
                cycle.keyframe = cycle.keyframes.take()
                interval = self._keyframe_interval
                self._next_keyframe = number - number % interval + interval
            if self.wait_for_others is not None:
                self.wait_for_others()
            if held_back:
                waiting.for_cycle()
            time.cycle = number
            if not runs[number % ring_size]():
                self._idle()
                continue
            if cycle.failure is not None and self._packet_sources:
                self._stop_packet_sources()
                cycle.events[:0] = self._outside.take_packets()
            try:
                cycle.commit()
            except LogError as error:
                self._lose_log(error)
            self.cycles = number + 1
            if published.pending:
                published.note(cycle.messages)
            timings.append((cycle.start_ns, cycle.ends_ns, cycle.published))
            for shadow in shadows:
                shadow.settle(number, cycle.messages)
            if self.observer is not None:
                self.observer(cycle)
            if cycle.failure is not None:
                self._end_with(cycle.failure)
            if paced:
                waiting.count(time)
            if cycle.events and self._source_failed():
                waiting.after_source_error()

    def _limit_of(self, cycle: int) -> str:
        return f"the limit of {counted(cycle - self._first, 'cycle')}"

    # -- moved by hand -------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the tasks, for `try_cycle`. No thread is started: the jobs of `workers` wait for who
        does them. Raises as `run`."""
        self._start_tasks()
        if self._keyframe_interval:
            self.cycle.keyframes.begin()
        if self._begins is not None:
            self._take_up(self._begins)

    def try_cycle(self) -> bool:
        """Run a cycle if something has come, and wait for nothing; False if nothing has, or the run is
        over: `stop_reason` says why then. Raises as `run`."""
        before, pace_ns = self.cycles, self._waiting.pace_ns
        if pace_ns is not None and pace_ns > self._clock.now_ns():
            return False
        self._waiting.pass_due()
        self._waits = False
        self.run_cycles(before + 1)
        if self.stop_reason in (_NOTHING, self._limit_of(before + 1)):
            self.stop_reason, self.is_at_end = None, False
        return self.cycles > before

    @property
    def due_ns(self) -> int | None:
        """When a source is due next; None if none has said so."""
        return self._waiting.due_ns()

    def finish(self) -> None:
        """End what `begin` has begun, as `run` does. Raises as `run`."""
        try:
            if self._packet_sources and self.cycle.failure is None:
                self._run_last_cycle()
        finally:
            failed = self._stop_tasks()
        if failed:
            raise failed[0]

    def abandon(self) -> None:
        """End what `begin` has begun, unless it has ended, where nothing of it counts any more: its log
        is gone."""
        self.cycle.log = None
        if self.has_started and not self._has_ended:
            self._stop_tasks()

    def _idle(self) -> None:
        """Nothing came."""
        if self.cycle.log is not None:
            try:
                self.cycle.log.check()
            except LogError as error:
                self._lose_log(error)
        if self.on_rest is not None and self._is_over(but=self.rest_but):
            self.on_rest()
        woken = self._outside.woken
        if self._is_over():
            self.stop_reason, self.is_at_end = "end of sources", True
        elif woken.is_set():  # since the sources were asked, maybe: ask them once more
            woken.clear()
        elif not self._waits:
            self.stop_reason = _NOTHING
        else:
            self._waiting.for_sources(self.cycle.time.now_ns)

    def _end_with(self, failure: Failure) -> NoReturn:
        self.stop_reason = str(failure.error)
        self._outside.note_failure(failure.task_id)
        raise failure.error from failure.cause

    def _source_failed(self) -> bool:
        return any(
            type(event) is Failed and self.instances[event.task].bound.is_source
            for event in self.cycle.events
        )

    def _lose_log(self, error: LogError) -> None:
        failure = self.cycle.failure
        if failure is not None:
            self.stop_reason = str(failure.error)
            raise failure.error from error
        if self._on_log_error is None:
            self.stop_reason = str(error)
            raise error
        self.cycle.log = None
        self._on_log_error(error)

    def _is_over(self, *, but: Collection[str] = ()) -> bool:
        return all(
            source.has_ended or name in but for name, source in self._outside.sources.items()
        ) and not any(worker.jobs.busy for worker in self.workers.values())


def _packet_tasks(plan: Plan) -> set[str]:
    """The tasks whose pictures are logged as the packets that they came in."""
    return {
        slot.task_id
        for slot in plan.slots
        if slot.logged and slot.payload and slot.codec == "packets"
    }
