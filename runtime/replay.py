"""A log -> the same cycles again, each message compared with the recorded one, byte for byte.

What came from outside is fed back from the log: the sources' messages, the cycles' times, control
messages, and in which cycle a background task's result of which cycle appeared. All other tasks run
as they did. Sources are neither started nor called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgpack

from flowrun.msgs.message import Message, MessageTypeError
from flowrun.runtime.background import Job, deliver, prepare_job, run_job, submits
from flowrun.runtime.bind import bind
from flowrun.runtime.difference import differing_field
from flowrun.runtime.errors import ReplayError, TaskError, UsageError
from flowrun.runtime.events import Event
from flowrun.runtime.graph import GraphSpec, load_graph, parse_graph
from flowrun.runtime.instances import (
    Instance,
    changed_config,
    make_instances,
    start_all,
    stop_all,
)
from flowrun.runtime.log_format import CONTROL_TOPIC, GRAPH_SOURCE, NO_PAYLOAD, PAYLOAD, STEPS_TOPIC
from flowrun.runtime.log_reader import CycleRecord, Log
from flowrun.runtime.plan import Plan, Step, plan_graph
from flowrun.runtime.policy import SkipCycle, error_text, guarded, policies_of, reconfigure
from flowrun.runtime.rates import RatedGate, is_rated, rate_of
from flowrun.runtime.ring import ALWAYS, StepCall, call_process, make_record
from flowrun.runtime.task import CycleTime, TaskConfig

__all__ = ["Difference", "Replay", "ReplayReport", "recorded_graph"]

Recorded = tuple[int, memoryview]
"""tov_ns and bytes of a recorded message."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A message that replay did not make as it was recorded.

    field: which field of it, "tov_ns", or "" for the message as a whole.
    recorded, replayed: both values, as text.
    """

    cycle: int
    task: str
    port: str
    field: str
    recorded: str
    replayed: str

    def __str__(self) -> str:
        where = f"cycle {self.cycle}, task {self.task!r}, port {self.port!r}"
        what = f", field {self.field!r}" if self.field else ""
        return f"{where}{what}:\n  recorded: {self.recorded}\n  replayed: {self.replayed}"


@dataclass(slots=True)
class ReplayReport:
    """What a replay found.

    compared: messages made again and compared. fed: messages taken from the log.
    differing: how many of the compared ones were not identical; first: the first of them.
    recorded_error: the error that ended the recorded run, and that came again.
    """

    cycles: int = 0
    compared: int = 0
    fed: int = 0
    differing: int = 0
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
    config: "task.key" -> value in place of the recorded one: what if it had been so?
    env: environment variables for `${NAME}` in the graph.
    """

    def __init__(
        self,
        log: Log,
        *,
        graph: Path | None = None,
        feed: Collection[str] = (),
        config: Mapping[str, Any] | None = None,
        env: Mapping[str, str],
    ) -> None:
        self.log = log
        spec = recorded_graph(log, env) if graph is None else load_graph(graph, env=env)
        spec = _with_config(spec, config or {})
        self.plan: Plan = plan_graph(bind(spec, ready=False))
        ids = [step.task.id for step in self.plan.steps]
        unknown = [task for task in feed if task not in ids]
        if unknown:
            raise UsageError(f"unknown task {unknown[0]!r}; tasks: {', '.join(ids)}")
        self._fed = {*feed, *ids[: self.plan.source_count], *_external(self.plan)}
        self._topics = {
            name for name, topic in log.topics.items() if topic.metadata.get(PAYLOAD) != NO_PAYLOAD
        }
        self._check_topics()
        self._time = CycleTime()
        self._instances = make_instances(self.plan, self._time, broadcasts={}, hooks=None)
        self._background: dict[str, _ReplayedBackground] = {}
        self._noted: list[Event] = []
        self._policies = policies_of(
            [made for id_, made in self._instances.items() if id_ not in self._fed], self._time,
            note=self._noted.append, secrets=spec.secrets,
        )  # fmt: skip
        inputs = self._recorded_inputs()
        for step in self.plan.steps:
            made = self._instances[step.task.id]
            if step.task.spec.background and made.id not in self._fed:
                self._background[made.id] = _ReplayedBackground(step, made, inputs[made.id])
        self._rates = {step.task.id: rate_of(step) for step in self.plan.steps}
        self._recorded: dict[str, Recorded] = {}
        self._record = make_record(self.plan, self._time, self._bind_step)
        self._outputs = [
            [(slot, self._record.messages[slot.index]) for slot in self.plan.slots
             if slot.task_id == step.task.id]
            for step in self.plan.steps
        ]  # fmt: skip

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

    def run(
        self, *, to: int | None = None, progress: Callable[[int], None] | None = None
    ) -> ReplayReport:
        """Run the recorded cycles; differences are counted, not raised.

        to: the last cycle to run; all if not given. progress: called with the number of cycles
        done, once a cycle.
        Raises `TaskError` for an error that the recording does not have.
        """
        report = ReplayReport()
        active = [made for id_, made in self._instances.items() if id_ not in self._fed]
        start_all(active)
        try:
            for cycle in self.log.cycles():
                if to is not None and cycle.cycle > to:
                    break
                self._run_cycle(cycle, report)
                if progress is not None:
                    progress(report.cycles)
                if report.recorded_error is not None:
                    break
        finally:
            stop_all(active)
        return report

    def _run_cycle(self, cycle: CycleRecord, report: ReplayReport) -> None:
        recorded: dict[str, Recorded] = {}
        controls = []
        has_steps = False
        for topic, tov_ns, payload in cycle.entries:
            if topic == CONTROL_TOPIC:
                controls.append(msgpack.unpackb(payload))
            elif topic == STEPS_TOPIC:
                has_steps = True
            elif topic in self._topics:
                recorded[topic] = (tov_ns, self.log.raw_payload(cycle, (topic, tov_ns, payload)))
        if not has_steps:
            return  # log lines behind the last cycle
        self._recorded = recorded
        self._record.clear()
        self._time.cycle, self._time.now_ns = cycle.cycle, cycle.time_ns
        # A task that is fed does not raise again: what its error did to the cycle is done here.
        ended_by = {
            item["task"]: (item["key"], item["value"])
            for item in controls
            if item["kind"] == "error" and item["key"] in ("stop", "skip_cycle")
        }
        expected_error = self._apply(controls, report)
        if report.recorded_error is not None:
            return
        calls = self._record.sources + self._record.steps
        for step, (gate, call), outputs in zip(self.plan.steps, calls, self._outputs, strict=True):
            task_id = step.task.id
            try:
                if gate.present:
                    call()
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
                report.differing += 1
                where = self._time.cycle
                report.first = report.first or Difference(where, task, "", "error", before, now)

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

    # -- comparing -----------------------------------------------------------------------------

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
        found = _difference(recorded, message)
        if found is None:
            return
        report.differing += 1
        if report.first is None:
            report.first = Difference(self._time.cycle, task, port, *found)


def _external(plan: Plan) -> set[str]:
    """The tasks whose outputs come from outside, as their configuration says."""
    tasks = [step.task for step in plan.steps]
    return {task.id for task in tasks if task.task_class.is_external(task.config)}


@dataclass(slots=True)
class _ReplayedBackground:
    """A background task in a replay: it runs in the cycle of its input, at once, and its result
    waits for the cycle in which it appeared."""

    step: Step
    made: Instance
    input_cycles: dict[int, bool]
    config: TaskConfig = field(init=False)
    _done: dict[int, Job] = field(default_factory=dict)
    _delivering: Job | None = None
    is_fed: bool = False
    """Whether the result of this cycle comes from the log: its inputs are not in it (a log of mode
    `ring` begins in the middle)."""

    def __post_init__(self) -> None:
        self.config = self.made.task.config

    def take_from(self, input_cycle: int) -> None:
        """The result of `input_cycle` appears in the cycle that runs next."""
        self._delivering = self._done.pop(input_cycle, None)
        self.is_fed = self._delivering is None

    def call(self, messages: Sequence[Message], time: CycleTime, feed: Callable[[], None]) -> None:
        if time.cycle in self.input_cycles:
            self._run(messages, time)
        if self._delivering is not None:
            job, self._delivering = self._delivering, None
            deliver(job, self.step, messages)
        elif self.is_fed:
            feed()

    def _run(self, messages: Sequence[Message], time: CycleTime) -> None:
        inputs = [
            (messages[argument.slot], argument.port.required)
            for argument in self.step.arguments
            if argument.slot is not None and argument.port.direction == "input"
        ]
        if submits(inputs):
            job = prepare_job(self.step, messages, time=time, config=self.config)
            job.restarts = self.input_cycles[time.cycle]
            run_job(job, self.step, self.made.task, self.made.ctx, self.made.time)
            self._done[time.cycle] = job


def _difference(recorded: Recorded | None, message: Message) -> tuple[str, str, str] | None:
    """Field, recorded and replayed value of the first difference, or None. Measurements are not
    compared: the message takes the recorded ones, so that the tasks behind it see the same."""
    if recorded is None:
        return "", "no message", repr(message)
    tov_ns, payload = recorded
    if not message.present:
        return "", f"a message of {len(payload)} bytes", "no message"
    try:
        fields = message.decode_fields(payload)
    except ValueError as error:
        return (
            "",
            f"{len(payload)} bytes that are no {type(message).__name__} ({error})",
            repr(message),
        )
    for name in message.measured_fields & fields.keys():
        setattr(message, name, fields[name])
    if tov_ns != message.tov_ns:
        return "tov_ns", str(tov_ns), str(message.tov_ns)
    try:
        replayed = b"".join(message.encode())
    except MessageTypeError as error:
        return "", repr(fields), str(error)
    if replayed == payload:
        return None
    same = "", "the same fields in other bytes", "(encoded differently)"
    return differing_field(fields, message.__dict__) or same


def _is_own(topic: str) -> bool:
    return topic.startswith("/flowrun/")
