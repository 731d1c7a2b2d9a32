"""Where a graph keeps or shows pictures that one of its tasks is there to conceal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import Problem
from flowrun.runtime.graph.plan import Plan, Step
from flowrun.runtime.wording import listed

__all__ = ["leaks"]


def leaks(plan: Plan) -> list[Problem]:
    """A warning for each task that keeps or gives away a picture as it is before a task that has
    `Task.conceals` has worked on it; in declaration order.

    What counts are the pictures that such a task gets, all those that they are made of, and all that
    other tasks make of them.
    """
    concealing = [step for step in plan.steps if step.task.task_class.conceals is not None]
    open_slots = _made_of(plan, _before(plan, concealing))
    found: dict[str, list[Problem]] = {}
    for step in plan.steps:
        problems = list(_leaks_of(plan, step, open_slots, listed(it.task.id for it in concealing)))
        found[step.task.id] = problems
    return [problem for task in plan.graph.tasks for problem in found[task.id]]


def _leaks_of(plan: Plan, step: Step, open_slots: set[int], concealing: str) -> Iterator[Problem]:
    task = step.task
    kept = [
        plan.slots[it.slot]
        for it in step.arguments
        if it.port.is_output and it.slot in open_slots and it.slot is not None
    ]
    where = task.spec.key_where.get("logging", task.spec.key_where.get("id", task.spec.where))
    if any(slot.logged and slot.payload for slot in kept):
        yield Problem(
            where,
            f"the log keeps the pictures of task {task.id!r} as they are before {concealing} conceals "
            "what is in them; write logging: {enabled: false} for it: a replay then begins with what "
            f"{concealing} has made",
        )
    if not any(port.is_output for port in task.ports):
        for name in sorted({plan.slots[slot].task_id for slot in _seen(step) & open_slots}):
            yield Problem(
                task.spec.key_where.get("id", task.spec.where),
                f"task {task.id!r} gives away the pictures of task {name!r} as they are before "
                f"{concealing} conceals what is in them; connect {concealing} to it instead",
            )


def _seen(step: Step) -> set[int]:
    """The pictures that a task gets, but for those that it is there to conceal."""
    conceals = step.task.task_class.conceals
    return {
        it.slot
        for it in step.arguments
        if it.port.is_input and it.slot is not None and it.port.name != conceals
    }


def _before(plan: Plan, concealing: Iterable[Step]) -> set[int]:
    """The pictures that are concealed, and those of which other tasks have made them."""
    makers = {it.slot: step for step in plan.steps for it in step.arguments if it.port.is_output}
    left = [
        it.slot
        for step in concealing
        for it in step.arguments
        if it.port.name == step.task.task_class.conceals
    ]
    found: set[int] = set()
    while left:
        slot = left.pop()
        if slot is None or slot in found or makers[slot].task.task_class.conceals is not None:
            continue
        found.add(slot)
        left += [it for it in _seen(makers[slot]) if _is_picture(plan, it)]
    return found


def _made_of(plan: Plan, slots: set[int]) -> set[int]:
    """`slots`, and the pictures that tasks make of them: steps are in the order of execution."""
    found = set(slots)
    for step in plan.steps:
        if _seen(step) & found:
            outputs = (it.slot for it in step.arguments if it.port.is_output)
            found |= {slot for slot in outputs if slot is not None and _is_picture(plan, slot)}
    return found


def _is_picture(plan: Plan, slot: int) -> bool:
    return issubclass(plan.slots[slot].message_type, ImageRgb8Msg)
