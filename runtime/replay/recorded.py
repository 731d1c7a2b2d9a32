"""A graph whose sources are a log: it runs recorded cycles, and compares what its tasks make of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgpack

from flowrun.msgs.message import Message
from flowrun.runtime.engine.instances import Instance, changed_config, make_instances
from flowrun.runtime.engine.keyframes import Keyframes, restored_config, thaw_task
from flowrun.runtime.engine.policy import (
    SkipCycle,
    error_text,
    guarded,
    policies_of,
    reconfigure,
    refusal,
    restart_task,
)
from flowrun.runtime.engine.rates import RatedGate, is_rated, rate_of
from flowrun.runtime.engine.record import StepCall, call_process, make_record
from flowrun.runtime.errors import (
    RAISED_BY_TASKS,
    FlowrunError,
    LogError,
    ReplayError,
    TaskError,
)
from flowrun.runtime.events import Event
from flowrun.runtime.graph.plan import Plan, Slot, Step
from flowrun.runtime.log.reader import CycleRecord, Log
from flowrun.runtime.log.slab.format import CODEC, CONTROL_TOPIC, NO_PAYLOAD, PAYLOAD
from flowrun.runtime.log.slab.reader import Entry
from flowrun.runtime.replay.background import ReplayedBackground
from flowrun.runtime.replay.compare import (
    Difference,
    OnDifference,
    Recorded,
    Tolerance,
    compare,
)
from flowrun.runtime.task import CycleTime

__all__ = ["CycleReplay", "ReplayReport"]


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


class CycleReplay:
    """The tasks of `plan`, run on what `log` holds.

    fed: ids of the tasks that are not run, their messages being taken from the log; the sources
    among them. config: "task.key" of values that are others than recorded. note: told what of the
    log cannot be used as one would expect.
    """

    def __init__(
        self,
        log: Log,
        plan: Plan,
        *,
        fed: Collection[str],
        tolerance: Tolerance,
        config: Collection[str],
        note: Callable[[str], None],
    ) -> None:
        self.log = log
        self.plan = plan
        self.fed = frozenset(fed)
        self.report = ReplayReport()
        self.differences: list[Difference] = []
        """Those of the cycle that runs, or ran last."""
        self.around: Callable[[str, Callable[[], None]], None] | None = None
        self.on_difference: OnDifference | None = None
        self.isolate = False
        self.ran: str | None = None
        """The task of the step that was passed last; None if it had no input."""
        self.recorded: dict[str, Recorded] = {}
        """What the log holds of the cycle, by topic."""
        self.events: list[Event] = []
        """What happens in the cycle beside its messages, as a log of the replay holds it."""
        self._note = note
        self._config = config
        self._tolerance = tolerance
        self._topics = {
            name for name, topic in log.topics.items() if topic.metadata.get(PAYLOAD) != NO_PAYLOAD
        }
        self._coded = {name for name, topic in log.topics.items() if CODEC in topic.metadata}
        self._check_topics()
        self._note_new_fields()
        self._time = CycleTime()
        self.instances = make_instances(plan, self._time, broadcasts={}, hooks=None)
        self.active = [made for id_, made in self.instances.items() if id_ not in self.fed]
        """The tasks that run."""
        self._background: dict[str, ReplayedBackground] = {}
        self._noted: list[Event] = []
        self._policies = policies_of(
            self.active, self._time, note=self._noted.append, secrets=plan.graph.spec.secrets
        )
        inputs = self._recorded_inputs()
        for step in plan.steps:
            made = self.instances[step.task.id]
            if step.task.spec.background and made.id not in self.fed:
                self._background[made.id] = ReplayedBackground(
                    step, made, self._time, inputs[made.id], secrets=plan.graph.spec.secrets
                )
        self._rates = {step.task.id: rate_of(step) for step in plan.steps}
        self.keyframes = Keyframes(
            self.active, policies=self._policies, rates=self._rates, background=self._background,
            secrets=plan.graph.spec.secrets,
        )  # fmt: skip
        self._record = make_record(plan, self._time, self._bind_step)
        self.messages = self._record.messages
        """By slot index, as the cycle that ran last left them."""
        self._outputs = [
            [(slot, self.messages[slot.index]) for slot in plan.slots
             if slot.task_id == step.task.id]
            for step in plan.steps
        ]  # fmt: skip

    def _note_new_fields(self) -> None:
        """Of message classes that have got fields since they were recorded."""
        for slot in self.plan.slots:
            topic = self.log.topics.get(slot.topic)
            if topic is None or slot.task_id in self.fed or topic.schema_encoding != "jsonschema":
                continue
            try:
                known = json.loads(topic.schema)["properties"].keys()
            except (ValueError, KeyError, AttributeError, TypeError):
                continue  # another writer's schema
            new = [name for name in slot.message_type.defaults if name not in known]
            if new:
                self._note(f"{slot.topic} was recorded without {', '.join(new)}: not compared")

    def _check_topics(self) -> None:
        recorded = [name for name in self.log.topics if name in self._topics]
        for slot in self.plan.slots:
            if slot.task_id in self.fed and slot.topic not in recorded:
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

    # -- what the tasks remember -------------------------------------------------------------------

    def clear(self) -> None:
        """No messages: none of a cycle that ran before is seen."""
        self._record.clear()
        self.recorded = {}
        self.differences = []
        self._noted.clear()

    def remake(self) -> None:
        """All tasks as they were before the first cycle."""
        for made in self.active:
            made.task.config = made.bound.config
            made.ctx.thaw_rng(None)
            self._guard(made, "start", partial(restart_task, made.task, made.ctx))
            self._rates[made.id].due_ns = None
            if made.id in self._policies:
                self._policies[made.id].thaw({})
            if made.id in self._background:
                self._background[made.id].reset()

    def thaw(self, cycle: int, tasks: Mapping[str, Mapping[str, Any]]) -> None:
        """Give the tasks back what they remembered in front of `cycle`: `tasks` is its keyframe."""
        for made in self.active:
            frozen = tasks.get(made.id)
            if frozen is None:
                self._note(f"task {made.id!r} is in no keyframe: what it remembers stays")
                continue
            frozen = self._frozen_as_asked(made.id, frozen)
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

    def _as_asked(self, task_id: str, values: Mapping[str, Any], recorded: str) -> dict[str, Any]:
        """`values` that were set while the run went on, without those in whose place the replay was
        asked for others: these hold all along. recorded: says when they were set."""
        kept = {}
        for key, value in values.items():
            if f"{task_id}.{key}" in self._config:
                self._note(f"{recorded} {task_id}.{key}: left out, as another value was asked for")
            else:
                kept[key] = value
        return kept

    def _frozen_as_asked(self, task_id: str, frozen: Mapping[str, Any]) -> dict[str, Any]:
        recorded = "the run had set"
        asked: dict[str, Any] = dict(frozen)
        for name in {"live", "config"} & frozen.keys():
            asked[name] = self._as_asked(task_id, frozen[name], recorded)
        if "jobs" in frozen:
            asked["jobs"] = [
                [cycle, self._as_asked(task_id, live, recorded), taken]
                for cycle, live, taken in frozen["jobs"]
            ]
        return asked

    @staticmethod
    def _guard(made: Instance, phase: str, call: Callable[[], None]) -> None:
        try:
            call()
        except FlowrunError:
            raise
        except RAISED_BY_TASKS as error:
            raise TaskError(made.id, cycle=None, phase=phase, cause=error) from error

    def _inputs_at(self, task_id: str, cycle: int) -> tuple[int, Sequence[Message]] | None:
        """Time and messages of a cycle for a background task, its inputs taken from the log."""
        try:
            record = self.log[cycle]
        except LogError:
            return None
        self._record.clear()
        self._time.cycle, self._time.now_ns = record.cycle, record.time_ns
        self.recorded = self._read(record)[0]
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

    # -- a cycle -----------------------------------------------------------------------------------

    def _read(self, cycle: CycleRecord) -> tuple[dict[str, Recorded], list[dict[str, Any]]]:
        """The recorded messages of a cycle by topic, and its control records."""
        recorded: dict[str, Recorded] = {}
        controls = []
        for topic, tov_ns, payload in cycle.entries:
            if topic == CONTROL_TOPIC:
                controls.append(msgpack.unpackb(payload))
            elif topic in self._topics and not _is_own(topic):
                entry = topic, tov_ns, payload
                recorded[topic] = Recorded(
                    tov_ns,
                    partial(self.log.raw_payload, cycle, entry),
                    partial(self._picture, cycle, entry) if topic in self._coded else None,
                )
        return recorded, controls

    def _picture(self, cycle: CycleRecord, entry: Entry) -> dict[str, Any]:
        return self.log.message(cycle, entry).fields

    def run(self, cycle: CycleRecord) -> Iterator[int]:
        """Run a cycle; gives the index of each step before it is run, and once more their number."""
        report = self.report
        self.recorded, controls = self._read(cycle)
        self._record.clear()
        self._time.cycle, self._time.now_ns = cycle.cycle, cycle.time_ns
        self.differences = []
        # A task that is fed does not raise again: what its error did to the cycle is done here.
        ended_by = {
            item["task"]: (item["key"], item["value"])
            for item in controls
            if item["kind"] == "error" and item["key"] in ("stop", "skip_cycle")
        }
        for item in controls:
            if item["kind"] == "set" and item["task"] not in self.fed:
                recorded = f"cycle {cycle.cycle} had set"
                item["value"] = self._as_asked(item["task"], item["value"], recorded)
        self.events = [
            item for item in controls
            if not self._comes_again(item) and (item["kind"] != "set" or item["value"])
        ]  # fmt: skip
        expected_error = self._apply(controls, report)
        if report.recorded_error is not None:
            return
        refused: list[Message] = []
        calls = self._record.sources + self._record.steps
        steps = zip(self.plan.steps, calls, self._outputs, strict=True)
        for index, (step, (gate, call), outputs) in enumerate(steps):
            yield index
            task_id = step.task.id
            try:
                self.ran = task_id if gate.present else None
                if self.ran:
                    if self.around is None or task_id in self.fed:
                        call()
                    else:
                        self.around(task_id, call)
            except SkipCycle:
                break
            except (ReplayError, LogError):
                raise
            except RAISED_BY_TASKS as error:
                text = error_text(error, self.plan.graph.spec.secrets)
                if expected_error == (task_id, text):
                    report.recorded_error = f"task {task_id!r}, cycle {cycle.cycle}: {text}"
                    _clear(refused)
                    return
                raise TaskError(task_id, cycle=cycle.cycle, phase="process", cause=error) from error
            if task_id not in self.fed and self._refuses_again(ended_by.get(task_id), outputs):
                # As recorded: the tasks behind see it, and the cycle ends without it.
                refused += [message for _, message in outputs]
                continue
            is_expected = expected_error is not None and expected_error[0] == task_id
            if expected_error is not None and is_expected and task_id not in self.fed:
                raise ReplayError(
                    f"cycle {cycle.cycle}: task {task_id!r} raised {expected_error[1]} when it was "
                    "recorded, and did not now"
                )
            if task_id in self.fed:
                report.fed += sum(message.present for _, message in outputs)
                ended = ended_by.get(task_id)
                if ended is None:
                    continue
                if ended[0] == "skip_cycle":
                    break
                report.recorded_error = f"task {task_id!r}, cycle {cycle.cycle}: {ended[1]}"
                _clear(refused)
                return
            background = self._background.get(task_id)
            if background is not None and background.is_fed:
                background.is_fed = False
                report.fed += sum(message.present for _, message in outputs)
                continue
            for slot, message in outputs:
                self._compare(slot.topic, slot.task_id, slot.port, message, report)
        yield len(self.plan.steps)
        self.events += self._noted
        self._compare_errors(controls, report)
        if refused and expected_error is not None:
            _clear(refused)
            task_id, text = expected_error
            report.recorded_error = f"task {task_id!r}, cycle {cycle.cycle}: {text}"
            return
        report.cycles += 1

    def will_run(self, step: int) -> bool:
        """Whether the step runs if its turn comes now: its inputs are there."""
        gate = (self._record.sources + self._record.steps)[step][0]
        return gate.would_open() if isinstance(gate, RatedGate) else gate.present

    def _refuses_again(
        self, ended: tuple[str, str] | None, outputs: Sequence[tuple[Slot, Message]]
    ) -> bool:
        """Whether the run ended with a message that the log refused, and this is such a one."""
        if ended is None or ended[0] != "stop":
            return False
        errors = (refusal(slot, message) for slot, message in outputs)
        secrets = self.plan.graph.spec.secrets
        return any(e is not None and error_text(e, secrets) == ended[1] for e in errors)

    def _comes_again(self, control: dict[str, Any]) -> bool:
        """Whether a task that runs notes it itself, if it happens."""
        kind, task_id = control["kind"], control["task"]
        return task_id not in self.fed and (
            kind == "restart" or (kind == "error" and control["key"] != "stop")
        )

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

    def _differs(
        self,
        difference: Difference,
        report: ReplayReport,
        recorded: Recorded | None = None,
        made: Message | None = None,
    ) -> None:
        report.differing += 1
        report.first = report.first or difference
        self.differences.append(difference)
        if self.on_difference is not None:
            self.on_difference(difference, recorded, made)

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
            elif kind == "set" and task_id in self.instances:
                text = self._set(self.instances[task_id], control["value"], error)
                if text is not None:
                    cycle = self._time.cycle
                    report.recorded_error = f"task {task_id!r}, cycle {cycle}: {text}"
        return error

    def _set(
        self, made: Instance, values: dict[str, Any], expected: tuple[str, str] | None
    ) -> str | None:
        """Change live values; the text of the error that ended the run, if `configure` raised it."""
        if made.id in self.fed:
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
        except RAISED_BY_TASKS as error:
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
        if task_id in self.fed:
            return _Recorded(self, [slot.topic for slot in slots]), feed
        background = self._background.get(task_id)
        if background is not None:
            call = partial(background.call, messages, feed)
            return background, guarded(self._policies, step, call, messages)
        made = self.instances[task_id]
        gate, plain_call = call_process(step, messages, made.task, made.ctx)
        if is_rated(step):
            gate = RatedGate(gate, self._rates[task_id], self._time)
        return gate, guarded(self._policies, step, plain_call, messages)

    def _feed(self, outputs: Sequence[tuple[str, Message]]) -> None:
        for topic, message in outputs:
            recorded = self.recorded.get(topic)
            if recorded is not None:
                try:
                    recorded.load_into(message)
                except ValueError as error:
                    raise ReplayError(
                        f"cycle {self._time.cycle}: {topic}: cannot be read as "
                        f"{type(message).__name__}: {error}"
                    ) from error

    def _compare(
        self, topic: str, task: str, port: str, message: Message, report: ReplayReport
    ) -> None:
        recorded = self.recorded.get(topic)
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
        self._differs(difference, report, recorded, message)
        if self.isolate:
            message.clear()
            if recorded is not None:
                recorded.load_into(message)


class _Recorded:
    """The gate of a task that is fed: open where the log has a message of it."""

    def __init__(self, replay: CycleReplay, topics: Sequence[str]) -> None:
        self._replay = replay
        self._topics = topics

    @property
    def present(self) -> bool:
        return any(topic in self._replay.recorded for topic in self._topics)


def _clear(messages: Sequence[Message]) -> None:
    for message in messages:
        message.clear()


def _is_own(topic: str) -> bool:
    return topic.startswith("/flowrun/")
