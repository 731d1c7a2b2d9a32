"""Which tasks a replay cannot run, because the log does not hold what their sources gave."""

from __future__ import annotations

from flowrun.runtime.graph.plan import Plan

__all__ = ["unlogged_sources", "without_inputs"]


def unlogged_sources(plan: Plan) -> list[str]:
    """The topics of the sources whose messages, or their payload, the log does not hold."""
    sources = {step.task.id for step in plan.steps[: plan.source_count]}
    return [
        slot.topic
        for slot in plan.slots
        if slot.task_id in sources and not (slot.logged and slot.payload)
    ]


def without_inputs(plan: Plan) -> list[str]:
    """The tasks that work on such messages, or on what such tasks make where that is not logged either,
    in the order of execution. What they made themselves a replay can take from the log; none if it
    holds nothing of them.
    """
    absent = set(unlogged_sources(plan))
    found, holds_some = [], False
    for step in plan.steps[plan.source_count :]:
        inputs = {
            plan.slots[it.slot].topic
            for it in step.arguments
            if it.port.is_input and it.slot is not None
        }
        if absent.isdisjoint(inputs):
            continue
        found.append(step.task.id)
        for slot in plan.slots:
            if slot.task_id == step.task.id:
                if slot.logged and slot.payload:
                    holds_some = True
                else:
                    absent.add(slot.topic)
    return found if holds_some else []
