"""What a plan does, to compare."""

from __future__ import annotations

from typing import Any

from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import Plan


def shape(plan: Plan) -> Any:
    """All that a plan does, without the places in its files."""
    return (
        masked_graph(plan.graph.spec),
        [step.task.id for step in plan.steps],
        [slot.topic for slot in plan.slots],
        [[argument.slot for argument in step.arguments] for step in plan.steps],
    )
