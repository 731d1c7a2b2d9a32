"""Runs the cycles of a log again, and compares each message with the recorded one, byte for byte.

What came from outside comes from the log: the sources' messages, the cycles' times, control messages,
and in which cycle each result of a background task appeared. All other tasks run as they did. Sources
are neither started nor called.

with Log("runs/porch-20260301T081502Z") as log, Replay(log) as replay:
    replay.seek(1200)                 # the tasks remember what they did before cycle 1200
    replay.step()                     # run the next task of the cycle
    replay.next_cycle()               # run the rest of it
    print(replay.message("inference.answer"), replay.differences)
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from flowrun.msgs.message import Message
from flowrun.runtime.engine.beginning import Unsettled
from flowrun.runtime.engine.cycle import CycleLog
from flowrun.runtime.engine.instances import start_all, stop_all
from flowrun.runtime.engine.keyframes import THAW
from flowrun.runtime.errors import LogError, ReplayError, TaskError, UsageError, worded
from flowrun.runtime.graph.bind import bind, dotted_names
from flowrun.runtime.graph.plan import Plan, plan_graph
from flowrun.runtime.graph.spec import GraphSpec
from flowrun.runtime.graph.stale import changed_modules
from flowrun.runtime.graph.unlogged import without_inputs
from flowrun.runtime.interrupts import telling_interrupts
from flowrun.runtime.log.reader import Log, LoggedCycle
from flowrun.runtime.places import place_of
from flowrun.runtime.replay.compare import Difference, OnDifference, OnMessage, Tolerance
from flowrun.runtime.replay.cycles import CycleReplay, ReplayReport
from flowrun.runtime.replay.faults import Changes
from flowrun.runtime.replay.graph import (
    acting_tasks,
    computed_elsewhere,
    external_tasks,
    graph_in_place_of,
    is_recorded_graph,
    masked_values,
    recorded_feed,
    recorded_graph,
    with_config,
)
from flowrun.runtime.replay.keyframes import Keyframe, RecordedKeyframes, no_beginning
from flowrun.runtime.run.provenance import changes
from flowrun.runtime.task import Task
from flowrun.runtime.wording import listed, nearest

__all__ = ["Difference", "Recorder", "Replay", "ReplayReport", "Tolerance", "recorded_graph"]


class Recorder(CycleLog, Protocol):
    """Takes the cycles of a replay; `ReplayLog` is one."""

    def wants_keyframe(self, cycle: int) -> bool:
        """Whether to commit with `cycle` what the tasks remember before it."""
        ...


_EXTERNAL = (
    "as it is configured, what it makes comes from outside (from a server, or it depends on who waits "
    "or how long), and is taken from the log; name it as a task to run to have it asked again"
)


_ACTS = "it acts outside the run, where a replay does nothing"

_LOST = (
    "no keyframe of the log, which begins in the middle of its run, holds all that it remembers and "
    "works on; its messages are taken from the log"
)


_UNFED = "the log does not hold what its sources gave; its messages are taken from the log"


class Replay:
    """A recorded run, to run again.

    log: the run's log, or its path.
    graph: another graph than the recorded one, or its file; its sources must have the recorded topics.
    feed: ids of tasks that do not run, besides sources; their messages come from the log.
    only: ids of the tasks that run; all others are fed. None runs all but `feed`. Tasks that act
        outside the run (`Task.acts_outside`) never run.
    config: "task.key" -> value in place of the recorded one. It holds from beginning to end, also
        after the run set the key to another value.
    tolerance: how far messages may be from the recorded ones.
    keyframes: whether `seek` may begin at a keyframe; False runs all earlier cycles instead.
    env: environment variables for `${NAME}` in the graph; None for the process's own.
    debug_messages: whether to raise an error for a task that changes a message or keeps an input.
    trust: whether the recorded graph may run, which names code and commands, though the run has not
        your own signature. `UntrustedRun` is raised without, unless `graph` is given.

    `run` does all at once. To step through the run, use `Replay` as a context manager, which starts
    the tasks, and stops them at the end::

        with Log("runs/inference-20260301T081502Z") as log, Replay(log) as replay:
            replay.seek(120)
            while replay.next_cycle() and not replay.differences:
                ...
    """

    def __init__(
        self,
        log: Log | Path | str,
        *,
        graph: Path | str | GraphSpec | None = None,
        feed: Collection[str] = (),
        only: Collection[str] | None = None,
        config: Mapping[str, Any] | None = None,
        tolerance: Tolerance | None = None,
        keyframes: bool = True,
        env: Mapping[str, str] | None = None,
        trust: bool = False,
        debug_messages: bool = False,
    ) -> None:
        if not isinstance(log, Log):
            log = Log(log)
            weakref.finalize(self, log.close)
        self.log = log
        env = os.environ if env is None else env
        self.notes: list[str] = []
        """A sentence on each part of the recording that could not be used, or is not as it was."""
        if isinstance(graph, GraphSpec):
            spec = graph
        else:
            spec = (
                recorded_graph(log, env, trust=trust)
                if graph is None
                else graph_in_place_of(log, Path(graph), env)
            )
        self.plan: Plan = plan_graph(bind(with_config(spec, config or {}), ready=False))
        self.notes += changes(log.metadata, self.plan)
        ids = [step.task.id for step in self.plan.steps]
        for task in (*feed, *(only or ())):
            if task not in ids:
                raise UsageError(f"unknown task {task!r}; tasks: {', '.join(ids)}")
        sources, external = ids[: self.plan.source_count], external_tasks(self.plan)
        acting = acting_tasks(self.plan)
        fed = {*feed, *external, *recorded_feed(log, ids)}
        if only is not None:
            fed = {*feed, *(id_ for id_ in ids if id_ not in only)}
        fed |= {*sources, *acting}
        lacking = without_inputs(self.plan) if only is None else ()
        unfed = [id_ for id_ in lacking if id_ not in fed]
        self.notes += [f"task {id_!r} is not run: {_UNFED}" for id_ in unfed]
        fed |= {*unfed}
        self.notes += [f"task {id_!r} is not run: {_ACTS}" for id_ in only or () if id_ in acting]
        self.notes += masked_values(spec, [id_ for id_ in ids if id_ not in fed])
        for task in ids:
            if task in fed & external and task not in (*feed, *sources) and only is None:
                self.notes.append(f"task {task!r} is not run: {_EXTERNAL}")
        for name in config or {}:
            if (task := name.partition(".")[0]) in fed:
                why = _EXTERNAL if task in external and only is None else "it is fed from the log"
                why = _ACTS if task in acting else _UNFED if task in unfed else why
                raise UsageError(f"{name} would change nothing: task {task!r} is not run: {why}")
        tolerance = tolerance or Tolerance()
        tolerance.check([slot.message_type for slot in self.plan.slots])
        made = partial(
            CycleReplay,
            log,
            self.plan,
            tolerance=tolerance,
            config=config or {},
            note=self._note,
            debug_messages=debug_messages,
        )
        self._graph: CycleReplay = made(fed=fed)
        self._keyframes = RecordedKeyframes(log, self._graph.outside, note=self._note)
        lost = self._keyframes.in_the_way() if keyframes else set()
        if lost and not lost & {name.partition(".")[0] for name in config or {}}:
            with suppress(ReplayError):  # what the others need of them is not in the log either
                self._graph = made(fed=fed | lost)
                self._keyframes = RecordedKeyframes(log, self._graph.outside, note=self._note)
                for task in sorted(lost):
                    self._note(f"task {task!r} is not run: {_LOST}")
        self._uses_keyframes = keyframes
        self._differs_from_recorded = bool(config) or not is_recorded_graph(log, spec)
        self._cycles: Iterator[LoggedCycle] = iter(())
        self._next: LoggedCycle | None = None
        self._in_cycle = False
        self._must_seek = False
        self._is_started = False
        self._has_begun = False
        """Whether a cycle has run, or a keyframe was restored, since the tasks were made."""

    # -- running -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<replay of {self.log.path}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @telling_interrupts()
    def start(self) -> None:
        """Start the tasks that run, and go to the first cycle that can run. `TaskError` if a task
        raises."""
        active = self._graph.active
        graph = self.plan.graph.spec
        for module in changed_modules(graph.path.parent, dotted_names(graph)):
            self._note(
                f"{module} has changed since this replay was made, and is replayed as it was then; "
                "make another `Replay` to run it as it is now"
            )
        start_all(active)
        for note in computed_elsewhere(self.log, active):
            self._note(note)
        self._graph.cycle.keyframes.begin()
        self._is_started = True
        try:
            self._rewind()
        except BaseException:
            self.stop()
            raise

    @telling_interrupts()
    def stop(self) -> None:
        """Stop the tasks."""
        self._is_started = False
        stop_all(self._graph.active)

    @telling_interrupts()
    def run(
        self,
        *,
        start: int | None = None,
        to: int | None = None,
        progress: Callable[[int], None] | None = None,
        pace: Callable[[int], None] | None = None,
        recorder: Recorder | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> ReplayReport:
        """Start the tasks, run the recorded cycles, stop the tasks. Differences are counted, not
        raised.

        start: the first cycle to compare; None for the first of the log.
        to: the last cycle to compare; None for the last of the log.
        progress: called after each cycle with the number of cycles done.
        pace: called before each cycle with its time.
        recorder: takes each cycle that ran.
        until: asked after each cycle whether it was the last one.

        Raises `TaskError` for an error that the recording does not have.
        """
        cycle = self._graph.cycle
        with self:
            if start is not None:
                self.seek(start)
            if recorder is not None:
                cycle.log_to(recorder)
            while self._next is not None and (to is None or self._next.cycle <= to) and not until():
                if pace is not None:
                    pace(self._next.time_ns)
                if recorder is not None and recorder.wants_keyframe(self._next.cycle):
                    cycle.keyframe = cycle.keyframes.take()
                self.next_cycle()
                if progress is not None:
                    progress(self.report.cycles)
        return self.report

    # -- stepping ------------------------------------------------------------------------------

    @property
    def cycle(self) -> int | None:
        """The cycle that runs, or the one that runs next; None after the last one."""
        return None if self._next is None else self._next.cycle

    @property
    def last_cycle(self) -> int:
        """The last cycle of the log. Reads all of it."""
        *_, last = (record.cycle for record in self.log.cycles())
        return last

    @property
    def time_ns(self) -> int | None:
        """The time of `cycle`."""
        return None if self._next is None else self._next.time_ns

    @property
    def next_task(self) -> str | None:
        """The task that runs next in the cycle; None between two cycles, and after the last task that
        has something to do."""
        at = self._graph.next_step if self._in_cycle else None
        if at is None:
            return None
        for step in range(at, len(self.plan.steps)):
            if self._graph.will_run(step):
                return self.plan.steps[step].task.id
        return None

    @property
    def report(self) -> ReplayReport:
        """What the cycles run since the start, or since the last `seek`, have shown."""
        return self._graph.report

    @property
    def differences(self) -> list[Difference]:
        """The differences of the cycle that runs, or ran last."""
        return self._graph.differences

    @property
    def fed(self) -> frozenset[str]:
        """The tasks that do not run: their messages come from the log."""
        return self._graph.fed

    def hook(
        self,
        *,
        around: Callable[[str, Callable[[], None]], None] | None = None,
        on_difference: OnDifference | None = None,
        on_message: OnMessage | None = None,
        isolate: bool = False,
        faults: Changes | None = None,
    ) -> None:
        """Set what is called during the cycles; each call of `hook` replaces all of it.

        around: called as `around(task_id, call)` in place of `call()` for each task that runs.
        on_difference: called with each difference, the recorded message, and the one that was made
            instead; both are valid during the call. Not called while `seek` runs cycles.
        on_message: called with each message that a running task made, or was recorded and it did not
            make, as `OnMessage` says. Not called while `seek` runs cycles.
        isolate: whether each task gets the recorded inputs even if the tasks before it made something
            else, so that each task's own differences are seen.
        faults: what happens to messages of tasks; made for this replay.
        """
        self._graph.faults = faults
        self._graph.cycle.around = around
        self._graph.on_difference = on_difference
        self._graph.on_message = on_message
        self._graph.isolate = isolate

    def task(self, task_id: str) -> Task:
        """The task object, to look at; `UsageError` for an unknown id."""
        if task_id not in self._graph.instances:
            ids = list(self._graph.instances)
            raise UsageError(
                f"unknown task {task_id!r}; tasks: {listed(ids)}{nearest(task_id, ids)}"
            )
        return self._graph.instances[task_id].task

    def message(self, output: str) -> Message | None:
        """The message that `task.port`, or the only output of `task`, has published in the cycle that
        runs, or ran last; None if it has not. A read-only view, valid until the next cycle begins."""
        message = self._graph.messages[self._slot_of(output)]
        return message.view() if message.present else None

    def recorded(self, output: str) -> Message | None:
        """The recorded message of an output, as a copy; see `message`. None if the log lacks it."""
        slot = self.plan.slots[self._slot_of(output)]
        found = self._graph.recorded.get(slot.topic)
        if found is None:
            return None
        message = slot.message_type()
        found.load_into(message)
        return message

    @telling_interrupts()
    def step(self) -> str | None:
        """Run the next task of the cycle, which the first call begins; returns its id, or None at the
        end of the cycle: after its last task, or after an error that ended it.

        A task for which the cycle has no input is passed over. Raises `TaskError` for an error that
        the recording does not have; go on with `seek` then.
        """
        while self._advance():
            if self._graph.ran is not None:
                return self._graph.ran
        return None

    @telling_interrupts()
    def next_cycle(self) -> bool:
        """Run the cycle to its end; False after the last one. Raises as `step` does."""
        self._check_started()
        if self._next is None:
            return False
        while self._advance():
            pass
        return True

    @property
    def keyframes(self) -> list[int]:
        """The cycles of the keyframes at which a replay can begin."""
        return list(self._keyframes)

    @property
    def unfrozen(self) -> dict[str, int]:
        """Tasks whose `freeze` failed in the run, each with the number of keyframes, of those looked at,
        that lack what it remembered."""
        return {task: len(cycles) for task, cycles in self._keyframes.unfrozen.items()}

    @property
    def refused(self) -> frozenset[int]:
        """The cycles of the keyframes that were tried, and that a task could not take up: its `thaw`
        raised. `seek` has begun at an earlier one, or at the beginning."""
        return frozenset(self._keyframes.refused)

    @telling_interrupts()
    def seek(self, cycle: int, *, fresh: bool = False) -> None:
        """Go to before `cycle`, forwards or back: the tasks remember what they remembered then.

        Begins at the nearest keyframe and runs the cycles from there on, without reporting
        differences; `report` starts again from nothing. `UsageError` for a cycle that the log does
        not have.

        fresh: make all tasks again first, as another process would. If False they go on, and keep what
            they remember besides their `freeze`.
        """
        self._check_started(seeks=True)
        self._find(cycle)
        if fresh:
            self._remake()
        here = None if self._must_seek or self._in_cycle else self.cycle
        later = self._keyframes.back_from(cycle) if self._uses_keyframes else iter(())
        found = next(later, None)
        # A keyframe that is refused costs what the tasks remember now: after one, they rather go on.
        jumps = fresh or not self.refused
        is_nearer = jumps and found is not None and here is not None and found[0] > here
        must_begin = here is None or here > cycle or is_nearer
        if must_begin and self._restore(found, later) is None:
            self._rewind()
        self._graph.report = ReplayReport()
        graph = self._graph
        told = graph.on_difference, graph.on_message
        graph.on_difference = graph.on_message = None
        try:
            while self._next is not None and self._next.cycle < cycle:
                self.next_cycle()
        finally:
            graph.on_difference, graph.on_message = told
        self._graph.report = ReplayReport()
        self._graph.differences = []

    def remembered(self) -> bytes:
        """What the tasks that run remember now, between two cycles, as a keyframe has it."""
        self._check_started()
        return self._graph.cycle.keyframes.take()

    def unsettled(self) -> dict[str, list[Unsettled]]:
        """By background task, the inputs of which the run has not given a result up to here, and that
        nothing has replaced, as far as the log holds them."""
        found: dict[str, list[Unsettled]] = {}
        for task_id, background in self._graph.outside.background.items():
            for cycle in background.unsettled:
                inputs = self._graph.outside.inputs_at(task_id, cycle)
                if inputs is not None:
                    found.setdefault(task_id, []).append(Unsettled(cycle, *inputs))
        return found

    # -- inside: where the replay is ---------------------------------------------------------------

    def _check_started(self, *, seeks: bool = False) -> None:
        if not self._is_started:
            raise ReplayError(
                "the tasks are not started: step within `with Replay(...) as replay:`"
            )
        if self._must_seek and not seeks:
            raise ReplayError("the replay ended with an error; seek a cycle to go on")

    def _advance(self) -> bool:
        """Run one step of the cycle, which the first call begins; False at its end."""
        self._check_started()
        if self._next is None:
            return False
        try:
            goes_on = True
            if not self._in_cycle:
                self._has_begun = self._in_cycle = True
                goes_on = self._graph.begin(self._next)
            if goes_on and self._graph.step():
                return True
            self._graph.end()
        except BaseException:
            self._must_seek, self._in_cycle = True, False
            raise
        self._in_cycle = False
        ended = self.report.recorded_error is not None
        self._next = None if ended else next(self._cycles, None)
        return False

    def _go_to(self, cycle: int) -> None:
        self._graph.clear()
        self._cycles = self.log.cycles(cycle)
        self._next = next(self._cycles, None)
        self._in_cycle = self._must_seek = False

    def _find(self, cycle: int) -> None:
        try:
            self.log[cycle]
        except LogError:
            raise UsageError(
                f"cycle {cycle} is not in the log, which holds cycles "
                f"{self._keyframes.first_cycle} to {self.last_cycle}"
            ) from None

    def _rewind(self) -> None:
        """Go to the first cycle that can run, with what the tasks remembered then."""
        first = self._keyframes.first_cycle
        later = self._keyframes.forwards() if first and self._uses_keyframes else iter(())
        found = self._restore(next(later, None), later)
        begin = self._keyframes.first_decodable if found is None else found[0]
        if begin > first:
            reason = (
                "no replay can begin before its first complete keyframe"
                if found is not None
                else "the pictures before their first key frame cannot be decoded"
            )
            self._note(
                f"the log begins in the middle of its run: cycles {first} to {begin - 1} are left "
                f"out, as {reason}"
            )
        if found is not None:
            return
        if first:
            taken = " that they can take up" if self.refused else ""
            self._note(
                f"the log begins at cycle {first}, without a keyframe{taken}: the tasks begin as at the "
                "start of a run"
            )
        self._remake()
        self._go_to(begin)

    def _remake(self) -> None:
        if self._has_begun:
            self._must_seek = True
            self._graph.remake()
            self._graph.cycle.keyframes.begin()
            self._has_begun = False

    def _restore(self, found: Keyframe | None, others: Iterator[Keyframe]) -> Keyframe | None:
        """Begin at the keyframe `found`, or at the first of `others` that each task can take up; None if
        there is none."""
        refused: list[int] = []
        why = ""
        while found is not None:
            try:
                self._thaw(found)
                break
            except TaskError as error:
                if error.phase != THAW:
                    raise
                refused.append(found[0])
                why = why or f"task {error.task_id!r} cannot take up {_refusal(error)}"
                self._keyframes.refuse(found[0])
                found = next(others, None)
        if refused:
            self._note(no_beginning(refused, why))
        return found

    def _thaw(self, keyframe: Keyframe) -> None:
        self._must_seek = self._has_begun = True  # should it fail
        if self._differs_from_recorded and keyframe[0] > 0:
            self._note(
                f"begun at the keyframe of cycle {keyframe[0]}: what the tasks remember there was made "
                "with the recorded graph and config; without keyframes all earlier cycles run too"
            )
        self._graph.thaw(*keyframe)
        self._go_to(keyframe[0])

    def _note(self, text: str, in_place_of: str = "") -> None:
        if in_place_of in self.notes:
            self.notes[self.notes.index(in_place_of)] = text
        elif text not in self.notes:
            self.notes.append(text)

    def _slot_of(self, output: str) -> int:
        for slot in self.plan.slots:
            if output == f"{slot.task_id}.{slot.port}":
                return slot.index
        own = [slot.index for slot in self.plan.slots if slot.task_id == output]
        if len(own) == 1:
            return own[0]
        known = [f"{slot.task_id}.{slot.port}" for slot in self.plan.slots]
        raise UsageError(
            f"unknown output {output!r}; outputs: {listed(known)}{nearest(output, known)}"
        )


def _refusal(error: TaskError) -> str:
    """What `thaw` raised, and where."""
    cause = error.__cause__ or error
    place = place_of(cause)
    where = "" if place is None else f", at {place}"
    return f"what it remembered: thaw raised {worded(cause)}{where}"
