"""A log -> the same cycles again, each message compared with the recorded one, byte for byte.

What came from outside is fed back from the log: the sources' messages, the cycles' times, control
messages, and in which cycle a background task's result of which cycle appeared. All other tasks run
as they did. Sources are neither started nor called.

with Log("runs/porch-20260301T081502Z") as log, Replay(log, env=os.environ) as replay:
    replay.seek(1200)                 # the tasks remember what they did in front of cycle 1200
    replay.step()                     # run the next task of the cycle
    replay.next_cycle()               # run the rest of it
    print(replay.message("inference.answer"), replay.differences)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgpack

from flowrun.msgs.message import Message
from flowrun.runtime.bind import bind
from flowrun.runtime.errors import FlowrunError, LogError, ReplayError, TaskError, UsageError
from flowrun.runtime.events import Event
from flowrun.runtime.graph import GraphSpec, load_graph, parse_graph
from flowrun.runtime.instances import (
    Instance,
    changed_config,
    make_instances,
    start_all,
    stop_all,
)
from flowrun.runtime.keyframe import (
    first_error,
    restored_config,
    thaw_task,
    unpack_keyframe,
)
from flowrun.runtime.log_format import (
    CONTROL_TOPIC,
    GRAPH_SOURCE,
    KEYFRAME_INTERVAL,
    KEYFRAME_TOPIC,
    NO_PAYLOAD,
    PAYLOAD,
    STEPS_TOPIC,
)
from flowrun.runtime.log_reader import CycleRecord, Log
from flowrun.runtime.plan import Plan, Step, plan_graph
from flowrun.runtime.policy import (
    SkipCycle,
    error_text,
    guarded,
    policies_of,
    reconfigure,
    restart_task,
)
from flowrun.runtime.rates import RatedGate, is_rated, rate_of
from flowrun.runtime.replay_background import ReplayedBackground
from flowrun.runtime.replay_compare import Difference, Recorded, Tolerance, compare
from flowrun.runtime.ring import ALWAYS, StepCall, call_process, make_record
from flowrun.runtime.task import CycleTime, Task
from flowrun.runtime.wording import listed, nearest

__all__ = ["Difference", "Replay", "ReplayReport", "Tolerance", "recorded_graph"]


@dataclass(slots=True)
class ReplayReport:
    """What a replay found.

    compared: messages made again and compared. fed: messages taken from the log.
    differing: how many of the compared ones were not identical; first: the first of them.
    tolerated: how many more were within the tolerance.
    recorded_error: the error that ended the recorded run, and that came again.
    """

    cycles: int = 0
    compared: int = 0
    fed: int = 0
    differing: int = 0
    tolerated: int = 0
    first: Difference | None = None
    recorded_error: str | None = None
    per_task: dict[str, int] = field(default_factory=dict)
    """Compared messages of each task."""

    @property
    def identical(self) -> bool:
        return self.differing == 0


class _RecordedEnvironment(dict[str, str]):
    """The environment for a recorded graph: what is no longer set is empty. As a rule that is a
    password of a source, which a replay does not open; `${NAME:-default}` gives its default."""

    def __contains__(self, name: object) -> bool:
        return True


def recorded_graph(log: Log, env: Mapping[str, str]) -> GraphSpec:
    """The graph that made `log`, as it was then."""
    text = log.attachments.get(GRAPH_SOURCE)
    if text is None:
        raise ReplayError(f"{log.path}: the log holds no graph; give one to replay it with")
    path = Path(log.metadata.get("graph_path", "graph.yaml"))
    return parse_graph(text.decode(), path=path, env=_RecordedEnvironment(env))


def _with_config(spec: GraphSpec, values: Mapping[str, Any]) -> GraphSpec:
    """`spec` with other config values, which are checked when it is bound."""
    tasks = {task.id: task for task in spec.tasks}
    for name, value in values.items():
        task_id, dot, key = name.partition(".")
        if not dot or not key:
            raise UsageError(f"{name!r}: expected task.key=value")
        task = tasks.get(task_id)
        if task is None:
            raise UsageError(f"unknown task {task_id!r}; tasks: {', '.join(tasks)}")
        tasks[task_id] = replace(task, config={**task.config, key: value})
    return replace(spec, tasks=tuple(tasks.values()))


class Replay:
    """A recorded run, to be run again.

    graph: another graph file than the recorded one; its sources must have the recorded topics.
    feed: ids of tasks that are not run, their messages being taken from the log, beside sources.
    only: ids of the tasks that are run; all others are fed. None runs all but `feed`.
    config: "task.key" -> value in place of the recorded one: what if it had been so?
    tolerance: how far messages may be from the recorded ones.
    keyframes: whether `seek` may begin at a keyframe; False runs all cycles in front instead.
    env: environment variables for `${NAME}` in the graph.

    `run` does all at once. To step through it, use it as a context manager: it starts the tasks,
    and stops them at the end.
    """

    def __init__(
        self,
        log: Log,
        *,
        graph: Path | None = None,
        feed: Collection[str] = (),
        only: Collection[str] | None = None,
        config: Mapping[str, Any] | None = None,
        tolerance: Tolerance | None = None,
        keyframes: bool = True,
        env: Mapping[str, str],
    ) -> None:
        self.log = log
        self.report = ReplayReport()
        """Of the cycles run since the start, or since the last `seek`."""
        self.differences: list[Difference] = []
        """Those of the cycle that runs, or ran last."""
        self.notes: list[str] = []
        """What of the recording could not be used as one would expect, a sentence each."""
        self.around: Callable[[str, Callable[[], None]], None] | None = None
        """Calls each task that is run: `around(task_id, call)`, in place of `call()`."""
        self.on_difference: Callable[[Difference, Recorded | None, Message], None] | None = None
        """Told each difference, with the recorded message and the one that was made instead; they
        are valid during the call."""
        self.isolate = False
        """Whether each task gets what was recorded also where the tasks in front of it made
        something else, so that each task's own differences are seen."""
        spec = recorded_graph(log, env) if graph is None else load_graph(graph, env=env)
        spec = _with_config(spec, config or {})
        self.plan: Plan = plan_graph(bind(spec, ready=False))
        ids = [step.task.id for step in self.plan.steps]
        for task in (*feed, *(only or ())):
            if task not in ids:
                raise UsageError(f"unknown task {task!r}; tasks: {', '.join(ids)}")
        self._fed = {*feed, *ids[: self.plan.source_count]}
        if only is not None:
            self._fed |= set(ids) - set(only)
        self._tolerance = tolerance or Tolerance()
        self._tolerance.check([slot.message_type for slot in self.plan.slots])
        self._topics = {
            name for name, topic in log.topics.items() if topic.metadata.get(PAYLOAD) != NO_PAYLOAD
        }
        self._check_topics()
        self._time = CycleTime()
        self._instances = make_instances(self.plan, self._time, broadcasts={}, hooks=None)
        self._active = [made for id_, made in self._instances.items() if id_ not in self._fed]
        self._background: dict[str, ReplayedBackground] = {}
        self._noted: list[Event] = []
        self._policies = policies_of(
            self._active, self._time, note=self._noted.append, secrets=spec.secrets
        )
        inputs = self._recorded_inputs()
        for step in self.plan.steps:
            made = self._instances[step.task.id]
            if step.task.spec.background and made.id not in self._fed:
                self._background[made.id] = ReplayedBackground(step, made, inputs[made.id])
        self._rates = {step.task.id: rate_of(step) for step in self.plan.steps}
        self._recorded: dict[str, Recorded] = {}
        self._record = make_record(self.plan, self._time, self._bind_step)
        self._calls = self._record.sources + self._record.steps
        self._outputs = [
            [(slot, self._record.messages[slot.index]) for slot in self.plan.slots
             if slot.task_id == step.task.id]
            for step in self.plan.steps
        ]  # fmt: skip
        self._interval = _interval(log) if keyframes else 0
        self._cycles: Iterator[CycleRecord] = iter(())
        self._next: CycleRecord | None = None
        self._walk: Iterator[int] | None = None
        self._step = 0
        self._must_seek = False
        self._silent = False
        self._has_begun = False
        """Whether a cycle has run, or a keyframe was taken up, since the tasks were made."""

    def _check_topics(self) -> None:
        recorded = [name for name in self.log.topics if name in self._topics]
        for slot in self.plan.slots:
            if slot.task_id in self._fed and slot.topic not in recorded:
                raise ReplayError(
                    f"{self.log.path}: nothing was recorded of {slot.topic}, which replay must "
                    f"feed; recorded: {', '.join(t for t in recorded if not _is_own(t)) or 'none'}"
                )

    def _recorded_inputs(self) -> dict[str, dict[int, bool]]:
        """By background task, the cycles whose inputs gave a result that appeared later, and
        whether the task was restarted before it made it."""
        inputs: dict[str, dict[int, bool]] = {
            step.task.id: {} for step in self.plan.steps if step.task.spec.background
        }
        if inputs:
            for message in self.log.messages(CONTROL_TOPIC):
                control = message.fields
                if control["kind"] == "completion" and control["task"] in inputs:
                    inputs[control["task"]][control["input_cycle"]] = bool(control["value"])
        return inputs

    # -- running -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the tasks that run, and go to the first cycle that can be run. `TaskError` if one
        raises."""
        start_all(self._active)
        try:
            self._rewind()
        except BaseException:
            stop_all(self._active)
            raise

    def stop(self) -> None:
        """Stop the tasks."""
        stop_all(self._active)

    def run(
        self,
        *,
        start: int | None = None,
        to: int | None = None,
        progress: Callable[[int], None] | None = None,
        pace: Callable[[int], None] | None = None,
    ) -> ReplayReport:
        """Start the tasks, run the recorded cycles, stop the tasks; differences are counted, not
        raised.

        start, to: the first and the last cycle to compare; all if not given. progress: called with
        the number of cycles done, once a cycle. pace: called with each cycle's time before it runs.
        Raises `TaskError` for an error that the recording does not have.
        """
        with self:
            if start is not None:
                self.seek(start)
            while self._next is not None and (to is None or self._next.cycle <= to):
                if pace is not None:
                    pace(self._next.time_ns)
                self.next_cycle()
                if progress is not None:
                    progress(self.report.cycles)
        return self.report

    # -- stepping ------------------------------------------------------------------------------

    @property
    def cycle(self) -> int | None:
        """The cycle that runs, or the one that runs next; None behind the last one."""
        return None if self._next is None else self._next.cycle

    @property
    def time_ns(self) -> int | None:
        """The time of `cycle`."""
        return None if self._next is None else self._next.time_ns

    @property
    def next_task(self) -> str | None:
        """The task whose turn is next in the cycle that runs; None between two cycles."""
        return None if self._walk is None else self.plan.steps[self._step].task.id

    @property
    def fed(self) -> frozenset[str]:
        """The tasks that are not run: their messages come from the log."""
        return frozenset(self._fed)

    def task(self, task_id: str) -> Task:
        """The task itself, to look at; `UsageError` for an unknown id."""
        if task_id not in self._instances:
            ids = list(self._instances)
            raise UsageError(
                f"unknown task {task_id!r}; tasks: {listed(ids)}{nearest(task_id, ids)}"
            )
        return self._instances[task_id].task

    def message(self, output: str) -> Message | None:
        """What `task.port`, or the one output of `task`, has published in the cycle that runs, or
        ran last; None if nothing. A read-only view, valid until the next cycle begins."""
        message = self._record.messages[self._slot_of(output)]
        return message.view() if message.present else None

    def recorded(self, output: str) -> Message | None:
        """As `message`, as it was recorded; a copy. None if the log does not hold it."""
        slot = self.plan.slots[self._slot_of(output)]
        found = self._recorded.get(slot.topic)
        if found is None:
            return None
        message = slot.message_type()
        message.load(found[1])
        message.publish(tov_ns=found[0])
        return message

    def step(self) -> str | None:
        """Run the next task of the cycle; its id, or None where the cycle has ended: behind its
        last task, and where an error ended it. The first call in a cycle begins it.

        A task of which the cycle has no input is passed over. Raises `TaskError` for an error that
        the recording does not have; go on with `seek` then.
        """
        walk = self._begun()
        if walk is None:
            return None
        while True:
            ran = self.plan.steps[self._step].task.id
            is_open = self._calls[self._step][0].present
            if not self._advance(walk):
                return ran if is_open else None
            if is_open:
                return ran

    def next_cycle(self) -> bool:
        """Run the cycle to its end; False behind the last one. Raises as `step` does."""
        walk = self._begun()
        if walk is None:
            return False
        while self._advance(walk):
            pass
        return True

    def seek(self, cycle: int) -> None:
        """Go to `cycle`, forwards or back: what the tasks remember is then as in front of it.

        Begins at the nearest keyframe and runs the cycles from there on, without comparing them;
        `report` begins anew. `UsageError` for a cycle that the log does not have.
        """
        self._find(cycle)
        here = None if self._must_seek or self._walk is not None else self.cycle
        found = self._keyframe_before(cycle)
        if here is None or here > cycle or (found is not None and found[0] > here):
            if found is not None:
                self._thaw(*found)
            else:
                self._rewind()
        silent, self._silent = self._silent, True
        try:
            while self._next is not None and self._next.cycle < cycle:
                self.next_cycle()
        finally:
            self._silent = silent
        self.report = ReplayReport()
        self.differences = []

    @property
    def first(self) -> int:
        """The first cycle that can be run: where a log begins in the middle of its run, that of its
        first keyframe. `ReplayError` where there is no cycle at all."""
        first: int | None = next((c.cycle for c in self.log.cycles() if _has_run(c)), None)
        if first is None:
            raise ReplayError(f"{self.log.path}: the log holds no cycle")
        if first == 0 or not self._interval:
            return first
        for message in self.log.messages(KEYFRAME_TOPIC):
            return message.cycle
        return first

    # -- inside: where the replay is ---------------------------------------------------------------

    def _begun(self) -> Iterator[int] | None:
        if self._must_seek:
            raise ReplayError("the replay ended with an error; seek a cycle to go on")
        if self._walk is None and self._next is not None:
            walk = self._run_cycle(self._next)
            self._walk, self._has_begun = walk, True
            if not self._advance(walk):
                return iter(())
        return self._walk

    def _advance(self, walk: Iterator[int]) -> bool:
        """Run one step; False at the end of the cycle."""
        try:
            step = next(walk, None)
        except BaseException:
            self._must_seek, self._walk = True, None
            raise
        if step is not None:
            self._step = step
            return True
        self._walk = None
        if self.report.recorded_error is not None:
            self._next = None
        else:
            self._next = next(self._cycles, None)
        return False

    def _go_to(self, cycle: int) -> None:
        self._cycles = filter(_has_run, self.log.cycles(cycle))
        self._next = next(self._cycles, None)
        self._walk, self._step, self._must_seek = None, 0, False

    def _find(self, cycle: int) -> None:
        try:
            self.log[cycle]
        except LogError:
            cycles = [c.cycle for c in self.log.cycles() if _has_run(c)]
            what = f"cycles {cycles[0]} to {cycles[-1]}" if cycles else "none"
            raise UsageError(f"cycle {cycle} is not in the log; there are: {what}") from None

    def _rewind(self) -> None:
        """To the first cycle that can be run, with what the tasks remembered then."""
        first = self.first
        found = self._keyframe_before(first) if first else None
        if found is not None:
            self._note_skipped(found[0])
            self._thaw(*found)
            return
        if first:
            self._note(
                f"the log begins at cycle {first} and holds no keyframe to begin at: the tasks begin "
                "as if nothing had been before"
            )
        if self._has_begun:
            self._remake()
        self._go_to(first)

    def _note_skipped(self, cycle: int) -> None:
        begin = next(c.cycle for c in self.log.cycles() if _has_run(c))
        if cycle > begin:
            self._note(
                f"the log begins in the middle of its run: cycles {begin} to {cycle - 1}, in front of "
                "its first keyframe, are left out"
            )

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _remake(self) -> None:
        """All tasks as they were before the first cycle."""
        for made in self._active:
            made.task.config = made.bound.config
            made.ctx.thaw_rng(None)
            self._guard(made, "start", partial(restart_task, made.task, made.ctx))
            self._rates[made.id].due_ns = None
            if made.id in self._policies:
                self._policies[made.id].thaw({})
            if made.id in self._background:
                self._background[made.id].reset()
        self._has_begun = False

    def _keyframe_before(self, cycle: int) -> tuple[int, dict[str, dict[str, Any]]] | None:
        """The cycle and the parts of the last keyframe at or in front of `cycle`; None where the
        tasks have to begin at the beginning."""
        if not self._interval:
            return None
        candidates = [*range(cycle - cycle % self._interval, -1, -self._interval)]
        first = next((c.cycle for c in self.log.cycles() if _has_run(c)), 0)
        candidates = [it for it in candidates if it > first] + [first]
        for candidate in candidates:
            if candidate > cycle:
                continue
            try:
                entries = self.log[candidate].entries
            except LogError:
                continue
            for topic, _, payload in entries:
                if topic == KEYFRAME_TOPIC:
                    tasks = self._read_keyframe(candidate, payload)
                    if tasks is not None:
                        return candidate, tasks
        return None

    def _read_keyframe(self, cycle: int, payload: memoryview) -> dict[str, dict[str, Any]] | None:
        try:
            tasks = unpack_keyframe(payload)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            self._note(f"the keyframe of cycle {cycle} cannot be read: {error}")
            return None
        tasks = {id_: frozen for id_, frozen in tasks.items() if id_ not in self._fed}
        failed = first_error(tasks)
        if failed is not None:
            self._note(
                f"no replay can begin at the keyframe of cycle {cycle}: freeze of task "
                f"{failed[0]!r} failed: {failed[1]}"
            )
            return None
        return tasks

    def _thaw(self, cycle: int, tasks: Mapping[str, Mapping[str, Any]]) -> None:
        """To `cycle`, with what the tasks remembered in front of it."""
        self._has_begun = True
        for made in self._active:
            frozen = tasks.get(made.id)
            if frozen is None:
                self._note(f"task {made.id!r} is in no keyframe: what it remembers stays")
                continue
            policy = self._policies.get(made.id)
            if policy is not None and policy.is_down:
                made.task.config = made.bound.config
                self._guard(made, "start", partial(restart_task, made.task, made.ctx))
            background = self._background.get(made.id)
            if background is not None:
                thaw = partial(background.thaw, frozen, partial(self._inputs_at, made.id))
            else:
                config = restored_config(made.bound, frozen.get("live", {}))
                thaw = partial(thaw_task, made, config, frozen)
            self._guard(made, f"taking up the keyframe of cycle {cycle}", thaw)
            if policy is not None:
                policy.thaw(frozen)
            self._rates[made.id].due_ns = frozen.get("due_ns")
        self._go_to(cycle)

    def _guard(self, made: Instance, phase: str, call: Callable[[], None]) -> None:
        self._must_seek = True
        try:
            call()
        except FlowrunError:
            raise
        except Exception as error:
            raise TaskError(made.id, cycle=None, phase=phase, cause=error) from error
        self._must_seek = False

    def _inputs_at(self, task_id: str, cycle: int) -> tuple[int, Sequence[Message]] | None:
        """Time and messages of a cycle for a background task, its inputs taken from the log."""
        try:
            record = self.log[cycle]
        except LogError:
            return None
        self._record.clear()
        self._time.cycle, self._time.now_ns = record.cycle, record.time_ns
        self._recorded = self._read(record)[0]
        step = next(step for step in self.plan.steps if step.task.id == task_id)
        for argument in step.arguments:
            if argument.slot is not None and argument.port.direction == "input":
                slot = self.plan.slots[argument.slot]
                if slot.topic not in self._topics:
                    self._note(
                        f"task {task_id!r}: the log does not hold {slot.topic}: results that were "
                        "being made at a keyframe are taken from the log"
                    )
                    return None
                self._feed([(slot.topic, self._record.messages[slot.index])])
        return record.time_ns, self._record.messages

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

    # -- inside: a cycle ---------------------------------------------------------------------------

    def _read(self, cycle: CycleRecord) -> tuple[dict[str, Recorded], list[dict[str, Any]]]:
        """The recorded messages of a cycle by topic, and its control records."""
        recorded: dict[str, Recorded] = {}
        controls = []
        for topic, tov_ns, payload in cycle.entries:
            if topic == CONTROL_TOPIC:
                controls.append(msgpack.unpackb(payload))
            elif topic in self._topics and not _is_own(topic):
                recorded[topic] = (tov_ns, self.log.raw_payload(cycle, (topic, tov_ns, payload)))
        return recorded, controls

    def _run_cycle(self, cycle: CycleRecord) -> Iterator[int]:
        """Run a cycle; gives the index of each step before it is run."""
        report = self.report
        self._recorded, controls = self._read(cycle)
        self._record.clear()
        self._time.cycle, self._time.now_ns = cycle.cycle, cycle.time_ns
        self.differences = []
        # A task that is fed does not raise again: what its error did to the cycle is done here.
        ended_by = {
            item["task"]: (item["key"], item["value"])
            for item in controls
            if item["kind"] == "error" and item["key"] in ("stop", "skip_cycle")
        }
        expected_error = self._apply(controls, report)
        if report.recorded_error is not None:
            return
        steps = zip(self.plan.steps, self._calls, self._outputs, strict=True)
        for index, (step, (gate, call), outputs) in enumerate(steps):
            yield index
            task_id = step.task.id
            try:
                if gate.present:
                    if self.around is None or task_id in self._fed:
                        call()
                    else:
                        self.around(task_id, call)
            except SkipCycle:
                break
            except ReplayError:
                raise
            except Exception as error:
                text = error_text(error, self.plan.graph.spec.secrets)
                if expected_error == (task_id, text):
                    report.recorded_error = f"task {task_id!r}, cycle {cycle.cycle}: {text}"
                    return
                raise TaskError(task_id, cycle=cycle.cycle, phase="process", cause=error) from error
            is_expected = expected_error is not None and expected_error[0] == task_id
            if expected_error is not None and is_expected and task_id not in self._fed:
                raise ReplayError(
                    f"cycle {cycle.cycle}: task {task_id!r} raised {expected_error[1]} when it was "
                    "recorded, and did not now"
                )
            if task_id in self._fed:
                report.fed += sum(message.present for _, message in outputs)
                ended = ended_by.get(task_id)
                if ended is None:
                    continue
                if ended[0] == "skip_cycle":
                    break
                report.recorded_error = f"task {task_id!r}, cycle {cycle.cycle}: {ended[1]}"
                return
            background = self._background.get(task_id)
            if background is not None and background.is_fed:
                background.is_fed = False
                report.fed += sum(message.present for _, message in outputs)
                continue
            for slot, message in outputs:
                self._compare(slot.topic, slot.task_id, slot.port, message, report)
        self._compare_errors(controls, report)
        report.cycles += 1

    def _compare_errors(self, controls: list[dict[str, Any]], report: ReplayReport) -> None:
        """Errors after which the run went on must come again, with the same text."""
        made = {item["task"]: item["value"] for item in self._noted if item["kind"] == "error"}
        self._noted.clear()
        recorded = {
            item["task"]: item["value"]
            for item in controls
            if item["kind"] == "error" and item["task"] in self._policies
        }
        for task in sorted(made.keys() | recorded.keys()):
            before, now = recorded.get(task, "no error"), made.get(task, "no error")
            if before != now:
                self._differs(Difference(self._time.cycle, task, "", "error", before, now), report)

    def _differs(self, difference: Difference, report: ReplayReport) -> None:
        report.differing += 1
        report.first = report.first or difference
        self.differences.append(difference)

    def _apply(
        self, controls: list[dict[str, Any]], report: ReplayReport
    ) -> tuple[str, str] | None:
        """Apply the cycle's control records; the error it ended with, if it did."""
        error = next(
            (
                (item["task"], item["value"])
                for item in controls
                if item["kind"] == "error" and item["key"] == "stop"
            ),
            None,
        )
        for control in controls:
            kind, task_id = control["kind"], control["task"]
            if kind == "completion" and task_id in self._background:
                self._background[task_id].take_from(control["input_cycle"])
            elif kind == "set" and task_id in self._instances:
                text = self._set(self._instances[task_id], control["value"], error)
                if text is not None:
                    cycle = self._time.cycle
                    report.recorded_error = f"task {task_id!r}, cycle {cycle}: {text}"
        return error

    def _set(
        self, made: Instance, values: dict[str, Any], expected: tuple[str, str] | None
    ) -> str | None:
        """Change live values; the text of the error that ended the run, if `configure` raised it."""
        if made.id in self._fed:
            return None
        background = self._background.get(made.id)
        if background is not None:
            background.config = changed_config(made.bound, background.config, values)
            return None
        new = changed_config(made.bound, made.task.config, values)
        policy = self._policies.get(made.id)
        secrets = self.plan.graph.spec.secrets
        try:
            reconfigure(made, new, policy)
        except Exception as error:
            text = error_text(error, secrets)
            if expected == (made.id, text):
                return text
            raise TaskError(
                made.id, cycle=self._time.cycle, phase="configure", cause=error
            ) from error
        return None

    def _bind_step(self, step: Step, messages: tuple[Message, ...]) -> StepCall:
        task_id = step.task.id
        slots = [slot for slot in self.plan.slots if slot.task_id == task_id]
        feed = partial(self._feed, [(slot.topic, messages[slot.index]) for slot in slots])
        if task_id in self._fed:
            return ALWAYS, feed
        background = self._background.get(task_id)
        if background is not None:
            call = partial(background.call, messages, self._time, feed)
            return ALWAYS, guarded(self._policies, step, call, messages)
        made = self._instances[task_id]
        gate, plain_call = call_process(step, messages, made.task, made.ctx)
        if is_rated(step):
            gate = RatedGate(gate, self._rates[task_id], self._time)
        return gate, guarded(self._policies, step, plain_call, messages)

    def _feed(self, outputs: Sequence[tuple[str, Message]]) -> None:
        for topic, message in outputs:
            recorded = self._recorded.get(topic)
            if recorded is not None:
                tov_ns, payload = recorded
                try:
                    message.load(payload)
                except ValueError as error:
                    raise ReplayError(
                        f"cycle {self._time.cycle}: {topic}: cannot be read as "
                        f"{type(message).__name__}: {error}"
                    ) from error
                message.publish(tov_ns=tov_ns)

    def _compare(
        self, topic: str, task: str, port: str, message: Message, report: ReplayReport
    ) -> None:
        recorded = self._recorded.get(topic)
        if recorded is None and not message.present:
            return
        if recorded is None and topic not in self._topics:
            return  # its logging was off, or without payloads
        report.compared += 1
        report.per_task[task] = report.per_task.get(task, 0) + 1
        found = compare(recorded, message, self._tolerance)
        if found is True:
            return
        if found is False:
            report.tolerated += 1
            return
        difference = Difference(
            self._time.cycle, task, port, found.name, found.before, found.now, found.array
        )
        self._differs(difference, report)
        if self.on_difference is not None and not self._silent:
            self.on_difference(difference, recorded, message)
        if self.isolate:
            message.clear()
            if recorded is not None:
                message.load(recorded[1])
                message.publish(tov_ns=recorded[0])


def _interval(log: Log) -> int:
    text = log.metadata.get(KEYFRAME_INTERVAL, "0")
    return int(text) if text.isdigit() else 0


def _has_run(cycle: CycleRecord) -> bool:
    """Whether it is a cycle: log lines behind the last one stand in one without a step table."""
    return any(topic == STEPS_TOPIC for topic, _, _ in cycle.entries)


def _is_own(topic: str) -> bool:
    return topic.startswith("/flowrun/")
