"""Which tasks have run, and for how long a source has published nothing.

Noted only for tasks of which nothing has been seen: a cycle in which all is well pays for one look at an
empty list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flowrun.msgs.message import Message
from flowrun.runtime.engine.background import are_complete, job_inputs
from flowrun.runtime.graph.plan import Plan, Step

__all__ = ["Published"]


@dataclass(eq=False, slots=True)
class _Watched:
    step: Step
    slots: list[int]
    is_source: bool
    has_run: bool = False


@dataclass(slots=True)
class Published:
    """What has been seen of the tasks of `plan`.

    pending: the tasks to look at after the next cycle; empty if there are none.
    """

    plan: Plan
    pending: list[_Watched] = field(default_factory=list)
    _tasks: dict[str, _Watched] = field(default_factory=dict)
    _heard_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, step in enumerate(self.plan.steps):
            id_ = step.task.id
            slots = [slot.index for slot in self.plan.slots if slot.task_id == id_]
            self._tasks[id_] = _Watched(step, slots, number < self.plan.source_count)
        self.pending = list(self._tasks.values())

    def note(self, messages: Sequence[Message]) -> None:
        """Look at the messages of a cycle that has run."""
        left = []
        for task in self.pending:
            task.has_run = task.has_run or _came(task.step, messages)
            if not task.has_run or (
                task.is_source and not any(messages[slot].present for slot in task.slots)
            ):
                left.append(task)
        self.pending = left

    def silent_s(self, now_s: float) -> dict[str, float]:
        """For how many seconds each source has published nothing, as far as the calls of this tell:
        call it a few times a second."""
        silent = {}
        for id_, task in self._tasks.items():
            if not task.is_source:
                continue
            if task not in self.pending or id_ not in self._heard_s:
                self._heard_s[id_] = now_s
            silent[id_] = now_s - self._heard_s[id_]
        again = [it for it in self._tasks.values() if it.is_source and it not in self.pending]
        self.pending = [*self.pending, *again]
        return silent

    @property
    def never_ran(self) -> list[str]:
        """The tasks of whose inputs nothing came, or never all that they need in one cycle."""
        return [id_ for id_, it in self._tasks.items() if not it.has_run and not it.is_source]


def _came(step: Step, messages: Sequence[Message]) -> bool:
    inputs = job_inputs(step, messages)
    return not inputs or are_complete(inputs)
