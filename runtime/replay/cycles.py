"""Runs the tasks of a graph on recorded cycles, and compares each message when it is made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from typing import Any, TypeGuard

from flowrun.msgs.difference import FieldDifference
from flowrun.msgs.display import html_fields, html_table
from flowrun.msgs.message import Message
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.cycle import Cycle
from flowrun.runtime.engine.instances import Instance, make_instances
from flowrun.runtime.engine.keyframes import THAW, restored_config, thaw_task
from flowrun.runtime.engine.policy import restart_task
from flowrun.runtime.engine.rates import RatedGate
from flowrun.runtime.engine.watch import MessageWatch
from flowrun.runtime.errors import (
    FlowrunError,
    LogDamaged,
    LogError,
    RecordedError,
    ReplayError,
    TaskError,
)
from flowrun.runtime.events import OUTSIDE, Failed
from flowrun.runtime.graph.plan import Plan, Slot, Step
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.log.message import LoggedCycle
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import KEYFRAME_INTERVAL
from flowrun.runtime.replay.compare import (
    Difference,
    OnDifference,
    OnMessage,
    Recorded,
    Tolerance,
    compare,
    compare_bare,
    is_same_error,
    says_the_same,
)
from flowrun.runtime.replay.faults import Changes
from flowrun.runtime.replay.hints import hint_of, says_another_address
from flowrun.runtime.replay.recorded import RecordedOutside
from flowrun.runtime.task import Task

__all__ = ["CycleReplay", "ReplayReport"]

_MOST_NAMED = 10
"""Pictures that are named, of those that the log does not give back."""


@dataclass(slots=True)
class ReplayReport:
    """What a replay found.

    cycles: number of cycles run to their end.
    compared: number of messages made again and compared.
    bare: number of those that were logged without payload: only whether and when they came is compared.
    fed: number of messages taken from the log.
    differing: number of compared messages that differ by more than the tolerance.
    tolerated: number of compared messages that differ within the tolerance.
    first: the first difference.
    recorded_error: the error that ended the recorded run, if it came again.
    per_task: number of compared messages of each task.
    errors: number of errors compared, after which the run went on.
    missing: number of pictures that the log does not give back; the tasks that read them did not run
        in their cycles.
    """

    cycles: int = 0
    compared: int = 0
    fed: int = 0
    differing: int = 0
    tolerated: int = 0
    first: Difference | None = None
    recorded_error: str | None = None
    per_task: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    missing: int = 0
    bare: int = 0

    @property
    def identical(self) -> bool:
        """Whether everything was given back, and no message differs."""
        return self.differing == 0 and self.missing == 0

    def _repr_html_(self) -> str:
        shown = {
            "cycles": self.cycles,
            "compared": self.compared,
            "differing": self.differing,
            "fed": self.fed,
            "first difference": "" if self.first is None else str(self.first),
            "recorded error": self.recorded_error or "",
        }
        title = "replayed, identical" if self.identical else "replayed, with differences"
        fields = {name: value for name, value in shown.items() if value != ""}
        rows = self.per_task.items()
        return html_fields(title, fields) + html_table("", ["task", "compared"], rows)


class CycleReplay:
    """The tasks of `plan`, run on what `log` holds.

    fed: ids of the tasks that are not run, including all sources; their messages come from the log.
    tolerance: how far messages may be from the recorded ones.
    config: "task.key" of each config value that differs from the recorded one.
    note: called with a sentence on each part of the log that cannot be used.
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
        debug_messages: bool = False,
    ) -> None:
        self.log = log
        self.plan = plan
        self.fed = frozenset(fed)
        self.report = ReplayReport()
        self.differences: list[Difference] = []
        """The differences of the cycle that runs, or ran last."""
        self.on_difference: OnDifference | None = None
        self.on_message: OnMessage | None = None
        self.isolate = False
        """Whether each task gets the recorded inputs, whatever the tasks before it made."""
        self.faults: Changes | None = None
        """What happens to the messages of tasks after their steps."""
        self.ran: str | None = None
        """The task of the last step; None if it had nothing to do."""
        self._note = note
        self._reworded: set[str] = set()
        self._tolerance = tolerance
        time = CycleTime()
        self.instances = make_instances(plan, time)
        self.active = [made for id_, made in self.instances.items() if id_ not in self.fed]
        """The tasks that run."""
        self.outside = RecordedOutside(
            log,
            plan,
            fed=self.fed,
            instances=self.instances,
            time=time,
            config=config,
            note=note,
        )
        self.cycle = Cycle(
            plan,
            self.outside,
            instances=self.instances,
            running=frozenset(made.id for made in self.active),
            time=time,
            watch=MessageWatch(plan) if debug_messages else None,
        )
        self._kept: dict[str, str] = {}
        """What each task that keeps an input keeps, in words."""
        self._thawed_at: int | None = None
        """The cycle of the keyframe at which the tasks last began."""
        self._refusing: set[str] = set()
        self._hints: dict[str, str] = {}
        self.outside.note_event = self.cycle.note
        self._slots = {
            step.task.id: [slot for slot in plan.slots if slot.task_id == step.task.id]
            for step in plan.steps
        }

    @property
    def messages(self) -> Sequence[Message]:
        """By slot index, as the cycle that ran last left them."""
        return self.cycle.messages

    @property
    def recorded(self) -> Mapping[str, Recorded]:
        """What the log holds of the cycle, by topic."""
        return self.outside.recorded

    # -- what the tasks remember -------------------------------------------------------------------

    def clear(self) -> None:
        """Forget all messages of the cycle that ran last."""
        for message in self.messages:
            message.clear()
        self.outside.clear()
        self.differences = []

    def remake(self) -> None:
        """Make all tasks as they were before the first cycle."""
        cycle = self.cycle
        for made in self.active:
            made.task.config = made.bound.config
            made.ctx.thaw_rng(None)
            _guard(made, "start", partial(restart_task, made))
            cycle.rates[made.id].due_ns = None
            if made.id in cycle.policies:
                cycle.policies[made.id].thaw({})
            if made.id in self.outside.background:
                self.outside.background[made.id].reset()

    def thaw(self, cycle: int, tasks: Mapping[str, Mapping[str, Any]]) -> None:
        """Give the tasks what they remembered before `cycle`: `tasks` is its keyframe.

        Raises `TaskError`, of phase `THAW` if it is a `thaw` that refuses it.
        """
        self._thawed_at = cycle
        # Those that refused an earlier try first: the jobs of others need not run again to no end.
        for made in sorted(self.active, key=lambda it: it.id not in self._refusing):
            frozen = tasks.get(made.id)
            if frozen is None:
                self._note(f"task {made.id!r} is in no keyframe: what it remembers stays")
                continue
            frozen = self._frozen_as_asked(made.id, frozen)
            policy = self.cycle.policies.get(made.id)
            if policy is not None and policy.is_down:
                made.task.config = made.bound.config
                _guard(made, "start", partial(restart_task, made))
            background = self.outside.background.get(made.id)
            if background is not None:
                inputs = partial(self.outside.inputs_at, made.id)
                thaw = partial(background.thaw, frozen, inputs)
            else:
                config = restored_config(made.bound, frozen.get("live", {}))
                thaw = partial(thaw_task, made, config, frozen)
            try:
                _guard(made, f"taking up the keyframe of cycle {cycle}", thaw)
            except TaskError as error:
                if error.phase == THAW:
                    self._refusing.add(made.id)
                raise
            if policy is not None:
                policy.thaw(frozen)
            self.cycle.rates[made.id].due_ns = frozen.get("due_ns")

    def _frozen_as_asked(self, task_id: str, frozen: Mapping[str, Any]) -> dict[str, Any]:
        recorded = "the run had set"
        asked: dict[str, Any] = dict(frozen)
        for name in {"live", "config"} & frozen.keys():
            asked[name] = self.outside.as_asked(task_id, frozen[name], recorded)
        if "jobs" in frozen:
            asked["jobs"] = [
                [cycle, self.outside.as_asked(task_id, live, recorded), taken, restarts]
                for cycle, live, taken, restarts in frozen["jobs"]
            ]
        return asked

    # -- a cycle -----------------------------------------------------------------------------------

    def begin(self, recorded: LoggedCycle) -> bool:
        """Begin a recorded cycle; False if an error that was recorded ends it at once."""
        self.outside.show(recorded)
        self.differences = []
        self.ran = None
        self.cycle.time.cycle = recorded.cycle
        for kept in self.cycle.kept_inputs():
            for task in kept.tasks:
                self._kept.setdefault(task, str(kept))
        self.cycle.begin()
        return not self._has_failed()

    @property
    def next_step(self) -> int | None:
        """The index of the step that runs next in the cycle; None at its end."""
        return self.cycle.next_step

    def will_run(self, step: int) -> bool:
        """Whether the step has something to do if it is next: its inputs are there."""
        background = self.outside.background.get(self.plan.steps[step].task.id)
        if background is not None:
            return background.has_work
        gate = self.cycle.calls[step][0]
        return gate.would_open() if isinstance(gate, RatedGate) else gate.present

    def step(self) -> bool:
        """Run the next step of the cycle and compare what it makes; False at the end of the cycle, or
        if an error that was recorded ends it.

        Raises `TaskError` for an error that was not recorded, and `ReplayError` if the replay cannot
        go on.
        """
        at = self.cycle.next_step
        if at is None:
            return False
        step = self.plan.steps[at]
        if not self._step(at, step):
            return False
        if self.faults is not None:
            time = self.cycle.time
            slots = self._slots[step.task.id]
            self.faults.apply(slots, self.messages, time.cycle, time.now_ns)
        return True

    def _step(self, at: int, step: Step) -> bool:
        self.ran = step.task.id if self.will_run(at) else None
        missing = len(self.outside.missing)
        instead = self.outside.instead_of(step, self.messages)
        if instead is not None:
            self.ran = None
        self.cycle.step(instead)
        for why in list(self.outside.missing.values())[missing:]:
            self._not_given(why)
        if self._has_failed():
            return False
        if instead is not None:
            self.report.fed += sum(
                self.messages[it.index].present for it in self._slots[step.task.id]
            )
            return True
        expected = self.outside.ended_by.get(step.task.id)
        if expected is not None and step.task.id not in self.fed and self.faults is None:
            raise ReplayError(
                f"cycle {self.cycle.time.cycle}: task {expected.task!r} raised {expected.text} in the "
                "recorded run, and did not raise in the replay"
            )
        self._compare_step(step)
        return True

    def end(self) -> None:
        """End the cycle: all steps have run, or an error that was recorded has ended it."""
        self._compare_errors()
        self.cycle.check_messages()
        if self.cycle.failure is not None and self.cycle.failure.phase == OUTSIDE:
            self._has_failed()
        if self.cycle.failure is None:
            self.report.cycles += 1
        if self.cycle.log is not None:
            self.cycle.commit()

    def _has_failed(self) -> bool:
        """Whether the error that ended the cycle when it was recorded has ended it again."""
        failure = self.cycle.failure
        if failure is None:
            return False
        expected = self.outside.ended_by.get(failure.task_id)
        event = self.cycle.event_of(failure)
        if expected is None or not is_same_error(expected, event):
            if self.cycle.log is not None:
                self.cycle.commit()
            if isinstance(failure.cause, (ReplayError, LogError)):
                raise failure.cause
            raise failure.error from failure.cause
        self._note_other_text(expected, event)
        self.cycle.failure = replace(failure, cause=RecordedError(expected.text, expected.place))
        self._note_end(expected)
        return True

    def _note_end(self, expected: Failed) -> None:
        where = f"task {expected.task!r}, cycle {self.cycle.time.cycle}"
        self.report.recorded_error = f"{where}: {expected.text}"

    # -- comparing -------------------------------------------------------------------------------

    def _compare_step(self, step: Step) -> None:
        task_id, report = step.task.id, self.report
        slots = self._slots[task_id]
        background = self.outside.background.get(task_id)
        if task_id in self.fed or (background is not None and background.is_fed):
            report.fed += sum(self.messages[slot.index].present for slot in slots)
            if background is not None:
                background.is_fed = False
            return
        for slot in slots:
            self._compare(slot, self.messages[slot.index])

    def _compare(self, slot: Slot, message: Message) -> None:
        outside, report, task = self.outside, self.report, slot.task_id
        recorded, bare_ns = outside.recorded.get(slot.topic), outside.bare.get(slot.topic)
        if recorded is None and bare_ns is None and not message.present:
            return
        found: FieldDifference | bool
        if slot.topic in outside.bare_topics:
            found = compare_bare(bare_ns, message) or True
            report.bare += 1
        elif slot.topic in outside.compared_topics:
            try:
                found = compare(recorded, message, self._tolerance)
            except LogDamaged as error:  # a picture that a codec stored
                self._not_given(str(error))
                return
        else:
            self._tell(slot, None, message, None)
            return  # it was not logged
        report.compared += 1
        report.per_task[task] = report.per_task.get(task, 0) + 1
        if found is True or found is False:
            report.tolerated += not found
            self._tell(slot, recorded, message, None)
            return
        difference = Difference(
            self.cycle.time.cycle,
            task,
            slot.port,
            found.name,
            found.before,
            found.now,
            found.array,
            self._hint(task, found),
        )
        self._tell(slot, recorded, message, difference)
        self._differs(difference, recorded, message.view())
        if self.isolate:
            self._correct(message, recorded, bare_ns)

    def _tell(
        self,
        slot: Slot,
        recorded: Recorded | None,
        message: Message,
        difference: Difference | None,
    ) -> None:
        if self.on_message is not None:
            self.on_message(slot.task_id, slot.port, recorded, message.view(), difference)

    def _correct(self, message: Message, recorded: Recorded | None, bare_ns: int | None) -> None:
        """Make a message the recorded one, or as much of it as the log holds.

        bare_ns: the time of validity of a recorded message without payload.
        """
        if bare_ns is not None:
            if message.present:
                message.restore({}, tov_ns=bare_ns)
            return
        message.clear()
        if recorded is not None:
            recorded.load_into(message)

    def _hint(self, task: str, found: FieldDifference) -> str:
        """What may be why the task made something else."""
        if found.array is None and says_another_address(found.before, found.now):
            return "the values differ in the address of an object, as its `repr` has it"
        if task not in self._hints:
            kind = type(self.instances[task].task)
            self._hints[task] = hint_of(kind) or (
                "the run took a keyframe before this cycle; `freeze` must leave the task as it was"
                if kind.freeze is not Task.freeze and self._is_after_keyframe()
                else ""
            )
        return self._kept.get(task, "") or self._hints[task]

    def _is_after_keyframe(self) -> bool:
        """Whether the run took a keyframe before this cycle, at which the replay did not begin."""
        cycle, interval = self.cycle.time.cycle, int(self.log.metadata.get(KEYFRAME_INTERVAL, "0"))
        return cycle not in (0, self._thawed_at) and interval > 0 and cycle % interval == 0

    def _not_given(self, why: str) -> None:
        self.report.missing += 1
        if self.report.missing <= _MOST_NAMED:
            self._note(f"not given back: {why}")

    def _compare_errors(self) -> None:
        """Compare the errors after which the run went on: they must come again. One that does is noted
        as it was recorded."""
        events = self.cycle.events
        for task in self.cycle.policies:
            made = [at for at, it in enumerate(events) if _is_handled(it) and it.task == task]
            recorded = [it for it in self.outside.events if _is_handled(it) and it.task == task]
            for before, at in zip_longest(recorded, made):
                now = None if at is None else events[at]
                assert now is None or isinstance(now, Failed)
                self.report.errors += 1
                if before is None or now is None or not is_same_error(before, now):
                    self._differs(
                        Difference(
                            self.cycle.time.cycle,
                            task,
                            "",
                            "error",
                            _shown(before, but=now),
                            _shown(now, but=before),
                        )
                    )
                else:
                    self._note_other_text(before, now)
                    events[at] = before

    def _note_other_text(self, recorded: Failed, replayed: Failed) -> None:
        if not says_the_same(recorded, replayed) and recorded.task not in self._reworded:
            self._reworded.add(recorded.task)
            self._note(
                f"task {recorded.task!r} raised the same error with another text, first in cycle "
                f"{self.cycle.time.cycle}: {replayed.text}; recorded: {recorded.text}"
            )

    def _differs(
        self,
        difference: Difference,
        recorded: Recorded | None = None,
        made: Message | None = None,
    ) -> None:
        self.report.differing += 1
        self.report.first = self.report.first or difference
        self.differences.append(difference)
        if self.on_difference is not None:
            self.on_difference(difference, recorded, made)


def _is_handled(event: object) -> TypeGuard[Failed]:
    return type(event) is Failed and event.policy != "stop"


def _shown(error: Failed | None, *, but: Failed | None) -> str:
    """An error as a difference shows it.

    but: the one that it differs from.
    """
    if error is None:
        return "no error"
    if but is not None and error.text == but.text:
        return f"{error.text} (in {error.phase}: {error.place or 'its place is not known'})"
    return error.text


def _guard(made: Instance, phase: str, call: Callable[[], None]) -> None:
    try:
        call()
    except FlowrunError:
        raise
    except BaseException as error:
        if is_users(error):
            raise
        raise TaskError(made.id, cycle=None, phase=phase, cause=error) from error
