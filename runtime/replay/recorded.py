"""A log as the outside of a graph: times, live values, completions, and the messages of tasks that do
not run come from the log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgpack

from flowrun.msgs.fields import MessageTypeError
from flowrun.msgs.message import Message
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.instances import Instance
from flowrun.runtime.engine.policy import FailedInPhase, SkipCycle, restart_task
from flowrun.runtime.engine.record import ALWAYS, Gate, StepCall
from flowrun.runtime.errors import LogDamaged, LogError, RecordedError, ReplayError
from flowrun.runtime.events import (
    OUTSIDE,
    Completion,
    Event,
    Failed,
    Injected,
    Replaced,
    Restarted,
    Set,
    unpack,
)
from flowrun.runtime.graph.bind import live_keys
from flowrun.runtime.graph.plan import Plan, Slot, Step
from flowrun.runtime.log.message import LoggedCycle
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.cycles import Entry
from flowrun.runtime.log.slab.format import CODEC, CONTROL_TOPIC, NO_PAYLOAD, PAYLOAD
from flowrun.runtime.replay.background import RecordedBackground
from flowrun.runtime.replay.compare import Recorded
from flowrun.runtime.replay.migrate import Migration, migration_of, recorded_fields

__all__ = ["RecordedOutside"]


class RecordedOutside:
    """What came from outside according to `log`, cycle by cycle; `show` sets the next cycle.

    fed: ids of the tasks that do not run, including all sources; their messages come from the log.
    instances: all tasks, by id.
    time: the time of the running cycle.
    config: "task.key" of each config value that differs from the recorded one; what the run set such
        a key to is left out.
    note: called with a sentence on each part of the log that cannot be used.
    """

    def __init__(
        self,
        log: Log,
        plan: Plan,
        *,
        fed: frozenset[str],
        instances: Mapping[str, Instance],
        time: CycleTime,
        config: Collection[str],
        note: Callable[[str], None],
    ) -> None:
        self.log = log
        self.recorded: dict[str, Recorded] = {}
        """What the log holds of the cycle, by topic."""
        self.bare: dict[str, int] = {}
        """The times of validity of the cycle's messages that were logged without payload, by topic."""
        self.events: list[Event] = []
        """What was recorded of the cycle besides its messages."""
        self.bare_topics = frozenset(
            name for name, topic in log.topics.items() if topic.metadata.get(PAYLOAD) == NO_PAYLOAD
        )
        """The topics whose messages the log holds without their payloads."""
        self.compared_topics = frozenset(log.topics) - self.bare_topics
        """The topics whose messages the log holds with their payloads."""
        self.note_event: Callable[[Event], None] = lambda _: None
        """Takes the events of a task that is fed, when its step is reached."""
        self.missing: dict[str, str] = {}
        """Pictures of the cycle that the log does not give back, by topic, and why."""
        self._unknown: set[str] = set()
        """Topics whose message of the cycle nobody knows: its task did not run, as it lacked an input,
        and the log does not hold it either."""
        self.fed = fed
        self.fed_packets = [
            slot.topic
            for slot in plan.slots
            if slot.task_id in fed
            and slot.topic in log.topics
            and log.topics[slot.topic].metadata.get(CODEC) == "packets"
        ]
        """The topics whose pictures are fed, from compressed packets."""
        self._plan = plan
        self._config = config
        self._live_keys = {id_: live_keys(type(made.task)) for id_, made in instances.items()}
        self._note = note
        self._time = time
        self._time_ns = 0
        self.reported: list[Event] = []
        self._sources = {step.task.id for step in plan.steps[: plan.source_count]}
        self._coded = {name for name, topic in log.topics.items() if CODEC in topic.metadata}
        self._check_topics()
        self._migrations = self._find_migrations()
        self._injected: dict[str, Migration | None] = {}
        """How messages that somebody published are made to fit, by topic."""
        inputs = self._input_cycles()
        self.background = {
            step.task.id: RecordedBackground(
                step,
                instances[step.task.id],
                time,
                inputs[step.task.id],
                secrets=plan.graph.spec.secrets,
            )
            for step in plan.steps
            if step.task.spec.background and step.task.id not in fed
        }

    # -- the next cycle --------------------------------------------------------------------------

    def show(self, cycle: LoggedCycle) -> None:
        """Make `cycle` the next one."""
        self._time_ns = cycle.time_ns
        self.missing = {}
        self._unknown = set()
        self.recorded = self._messages(cycle)
        self.bare = {
            topic: tov_ns for topic, tov_ns, _ in cycle.entries if topic in self.bare_topics
        }
        self.events = []
        for topic, _, payload in cycle.entries:
            if topic == CONTROL_TOPIC:
                event = _event(payload, cycle.cycle)
                if type(event) is Set and event.task not in self.fed:
                    recorded = f"cycle {cycle.cycle} had set"
                    values = self.as_asked(event.task, event.values, recorded)
                    if not values:
                        continue
                    event = Set(event.task, values)
                elif type(event) is Injected and event.task not in self.fed:
                    fitting = self._fitting(event, cycle.cycle)
                    if fitting is None:
                        continue
                    event = fitting
                self.events.append(event)

    def clear(self) -> None:
        """Forget the cycle."""
        self.recorded, self.bare, self.events = {}, {}, []

    @property
    def ended_by(self) -> dict[str, Failed]:
        """The errors that ended the recorded run in this cycle, by task; the first one ended it."""
        return {
            event.task: event
            for event in self.events
            if type(event) is Failed and event.policy == "stop"
        }

    def as_asked(self, task_id: str, values: Mapping[str, Any], recorded: str) -> dict[str, Any]:
        """The values that the run set, without those for which the replay was asked to use another
        value from beginning to end, and those of keys that the task has no more.

        task_id: the task whose values these are.
        values: the values that the run set.
        recorded: the beginning of a note, which says when they were set.
        """
        kept = {}
        for key, value in values.items():
            if f"{task_id}.{key}" in self._config:
                self._note(f"{recorded} {task_id}.{key}: left out, as another value was asked for")
            elif key not in self._live_keys.get(task_id, (key,)):
                self._note(
                    f"{recorded} {task_id}.{key}: left out, as the task of today has no such key that "
                    "can change"
                )
            else:
                kept[key] = value
        return kept

    def inputs_at(self, task_id: str, cycle: int) -> tuple[int, Sequence[Message]] | None:
        """The time of a cycle, and messages in which the task's inputs are loaded from the log; None
        if the log does not hold them."""
        try:
            record = self.log[cycle]
        except LogError:
            return None
        recorded = self._messages(record)
        messages = [slot.message_type() for slot in self._plan.slots]
        for slot in self.inputs_of(task_id):
            if slot.topic not in self.compared_topics:
                self._note(
                    f"task {task_id!r}: the log does not hold {slot.topic}: results that were "
                    "being made at a keyframe are taken from the log"
                )
                return None
            try:
                self._load(recorded, messages[slot.index], slot)
            except LogDamaged:
                return None
        return record.time_ns, messages

    def outputs_of(self, task_id: str) -> list[Slot]:
        """The slots that a task publishes on."""
        return [slot for slot in self._plan.slots if slot.task_id == task_id]

    def inputs_of(self, task_id: str) -> list[Slot]:
        """The slots that a task reads."""
        return [
            self._plan.slots[argument.slot]
            for step in self._plan.steps
            if step.task.id == task_id
            for argument in step.arguments
            if argument.slot is not None and argument.port.is_input
        ]

    # -- as an `Outside` -------------------------------------------------------------------------

    def begin(self, time: CycleTime, start_ns: int) -> Sequence[Event]:  # noqa: ARG002
        time.now_ns = self._time_ns
        came: list[Event] = []
        self.reported = []
        sources_have_run = False
        for event in self.events:
            if type(event) is Completion and event.task in self.background:
                self.background[event.task].take(event.input_cycle)
            if type(event) is Replaced and event.task in self.background:
                self.background[event.task].replaced = event.input_cycle
            elif self._comes_with_step(event):
                sources_have_run = sources_have_run or event.task in self._sources
            else:
                (self.reported if sources_have_run else came).append(event)
        for task_id, background in self.background.items():
            if background.is_fed:
                self._leave_unknown(task_id)
                failed = (it for it in self.events if type(it) is Failed and it.task == task_id)
                background.fill(feed=self._feed_slot, failed=next(failed, None))
        return came

    def after_sources(self, runs: bool) -> Sequence[Event]:  # noqa: ARG002, FBT001
        return self.reported

    def bind(self, step: Step, messages: Sequence[Message]) -> StepCall | None:
        if step.task.id not in self.fed:
            return None
        slots = self.outputs_of(step.task.id)
        outputs = [(messages[slot.index], slot) for slot in slots]
        return _FedGate(self, step.task.id, slots), partial(self._feed, step.task.id, outputs)

    def gate(self, task_id: str) -> Gate:  # noqa: ARG002
        return ALWAYS  # sources do not run

    def restart(self, made: Instance) -> bool:
        restart_task(made)
        return True

    def _feed_slot(self, message: Message, slot: int) -> None:
        self._give(message, self._plan.slots[slot])

    def _comes_with_step(self, event: Event) -> bool:
        """Whether the event belongs to the task's step: it comes again when the step is reached."""
        if type(event) is Failed and event.phase == OUTSIDE:
            return False  # it came from another thread, before the cycle
        if type(event) is Failed and event.phase == "configure":
            return event.task not in self.fed
        return type(event) in (Failed, Restarted, Replaced)

    def _feed(self, task_id: str, outputs: Sequence[tuple[Message, Slot]]) -> None:
        for message, slot in outputs:
            self._give(message, slot)
        for event in self.of_step(task_id):
            if type(event) is not Failed:
                self.note_event(event)
            elif event.policy != "stop":
                self.note_event(event)
                if event.policy == "skip_cycle":
                    raise SkipCycle
            else:
                raise FailedInPhase(event.phase) from RecordedError(event.text, event.place)

    def of_step(self, task_id: str) -> list[Event]:
        """The recorded events of the step of a task that is fed."""
        return [it for it in self.events if it.task == task_id and self._comes_with_step(it)]

    def instead_of(self, step: Step, messages: Sequence[Message]) -> Callable[[], None] | None:
        """What to call in place of a step's task, because the cycle lacks one of its inputs: it takes
        the task's messages from the log. None for other steps, and for background tasks."""
        task_id = step.task.id
        topics = {slot.topic for slot in self.inputs_of(task_id)}
        lacks_picture = not topics.isdisjoint(self.missing)
        lacks_inputs = task_id not in self.fed and (
            lacks_picture or not topics.isdisjoint(self._unknown)
        )
        background = self.background.get(task_id)
        if background is not None:
            background.lacks_inputs = lacks_inputs
        if not lacks_inputs or background is not None:
            return None
        lacking = (
            "on pictures that the log does not give back"
            if lacks_picture
            else "where a task before it did not run, whose messages the log does not hold"
        )
        self._note(
            f"task {task_id!r} did not run {lacking}: its messages of those cycles are taken from the "
            "log, and what it remembers lacks them"
        )
        self._leave_unknown(task_id)
        outputs = [(messages[slot.index], slot) for slot in self.outputs_of(task_id)]
        return partial(self._feed, task_id, outputs)

    def _leave_unknown(self, task_id: str) -> None:
        """Leave unknown what a task that did not run made, and the log does not hold."""
        for slot in self.outputs_of(task_id):
            is_absent = slot.topic in self.bare_topics and slot.topic not in self.bare
            if slot.topic not in self.compared_topics and not is_absent:
                self._unknown.add(slot.topic)

    def _give(self, message: Message, slot: Slot) -> None:
        """Load the message of the cycle. A picture that the log does not give back is missing."""
        try:
            self._load(self.recorded, message, slot)
        except LogDamaged as error:
            if slot.topic not in self._coded:
                raise
            self.missing[slot.topic] = str(error)

    def _load(self, recorded: Mapping[str, Recorded], message: Message, slot: Slot) -> None:
        found = recorded.get(slot.topic)
        if found is None:
            return
        try:
            found.load_into(message)
        except MessageTypeError as error:
            raise ReplayError(
                f"cycle {self._time.cycle}: {slot.topic}: the recorded message does not fit the class "
                f"of today: {error}; {type(message).__name__}.migrate can say how it comes to fit"
            ) from error
        except ValueError as error:
            raise ReplayError(
                f"cycle {self._time.cycle}: {slot.topic}: the message cannot be read as "
                f"{type(message).__name__}: {error}"
            ) from error

    def _fitting(self, event: Injected, cycle: int) -> Injected | None:
        """The message that somebody published on a port of a task that runs, as its class is today; None
        where the graph has no such port."""
        where = f"/{event.task}/{event.port}"
        slot = next((slot for slot in self._plan.slots if slot.topic == where), None)
        if slot is None:
            self._note(
                f"cycle {cycle} had a message published on {where}, which the graph does not have: "
                "left out"
            )
            return None
        kind, topic = slot.message_type, self.log.topics.get(where)
        if where not in self._injected:
            schema = None if topic is None else recorded_fields(topic.schema, topic.schema_encoding)
            self._injected[where] = (
                None if schema is None else migration_of(where, kind, schema, note=self._note)
            )
        migrate = self._injected[where]
        message = kind()
        try:
            fields = message.decode_fields(event.data)
            message.restore(fields if migrate is None else migrate(fields), tov_ns=0)
        except (MessageTypeError, ValueError) as error:
            raise ReplayError(
                f"cycle {cycle}: the message that somebody published on {where} does not fit the class "
                f"of today: {error}; {kind.__name__}.migrate can say how it comes to fit"
            ) from error
        if migrate is None:
            return event
        return replace(event, data=b"".join(message.view().encode()))

    # -- reading the log -------------------------------------------------------------------------

    def _messages(self, cycle: LoggedCycle) -> dict[str, Recorded]:
        recorded: dict[str, Recorded] = {}
        for topic, tov_ns, payload in cycle.entries:
            if topic in self.compared_topics and not _is_own(topic):
                entry = topic, tov_ns, payload
                recorded[topic] = Recorded(
                    tov_ns,
                    partial(self.log.raw_payload, cycle, entry),
                    partial(self._fields, cycle, entry)
                    if topic in self._coded or topic in self._migrations
                    else None,
                )
        return recorded

    def _fields(self, cycle: LoggedCycle, entry: Entry) -> dict[str, Any]:
        message = self.log.message(cycle, entry)
        migrate = self._migrations.get(entry[0])
        return message.deferred if migrate is None else migrate(message.fields)

    def _input_cycles(self) -> dict[str, dict[int, bool]]:
        """For each background task, the cycles whose inputs gave a result that appeared later, and
        whether the task was restarted before it made the result."""
        inputs: dict[str, dict[int, bool]] = {
            step.task.id: {} for step in self._plan.steps if step.task.spec.background
        }
        if inputs:
            for message in self.log.messages(CONTROL_TOPIC):
                event = _event(message.payload, message.cycle)
                if type(event) is Completion and event.task in inputs:
                    inputs[event.task][event.input_cycle] = event.restarted
        return inputs

    def _find_migrations(self) -> dict[str, Migration]:
        """How the fed messages whose class has changed since the recording are made to fit, by topic.
        Notes what has changed, and the fields that were added to the messages of running tasks."""
        migrations: dict[str, Migration] = {}
        for slot in self._plan.slots:
            topic = self.log.topics.get(slot.topic)
            if topic is None or slot.topic not in self.compared_topics:
                continue
            recorded = recorded_fields(topic.schema, topic.schema_encoding)
            if recorded is None:
                continue
            if slot.task_id in self.fed:
                found = migration_of(slot.topic, slot.message_type, recorded, note=self._note)
                if found is not None:
                    migrations[slot.topic] = found
                continue
            new = [name for name in slot.message_type.defaults if name not in recorded]
            if new:
                self._note(f"{slot.topic} was recorded without {', '.join(new)}: not compared")
        return migrations

    def _check_topics(self) -> None:
        recorded = [name for name in self.log.topics if name in self.compared_topics]
        running = [step.task.id for step in self._plan.steps if step.task.id not in self.fed]
        for slot in dict.fromkeys(slot for id_ in running for slot in self.inputs_of(id_)):
            if slot.task_id in self.fed and slot.topic not in recorded:
                raise ReplayError(
                    f"{self.log.path}: the log holds no messages of {slot.topic}, which the replay "
                    f"must feed; it holds: {', '.join(t for t in recorded if not _is_own(t)) or 'none'}"
                )


class _FedGate:
    """The gate of a task that is fed: open if the log has a message or an event of its step."""

    def __init__(self, outside: RecordedOutside, task_id: str, slots: Sequence[Slot]) -> None:
        self._outside = outside
        self._task_id = task_id
        self._topics = [slot.topic for slot in slots]

    @property
    def present(self) -> bool:
        outside = self._outside
        return any(topic in outside.recorded for topic in self._topics) or (
            bool(outside.events) and bool(outside.of_step(self._task_id))
        )


def _event(payload: memoryview, cycle: int) -> Event:
    try:
        return unpack(msgpack.unpackb(payload))
    except (ValueError, TypeError) as error:
        raise ReplayError(f"cycle {cycle}: {CONTROL_TOPIC}: {error}") from error


def _is_own(topic: str) -> bool:
    return topic.startswith("/flowrun/")
