"""A run that was cut off, taken up again: its tasks' states at the end of its log, by a replay from the
last keyframe on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flowrun.runtime.engine.beginning import Beginning
from flowrun.runtime.engine.keyframes import unpack_keyframe
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay

__all__ = ["recovered"]

_IN_ORDER = ("end of sources", "the limit of ")
"""How the reasons begin with which a run has done all that it was to."""


def recovered(
    path: Path, plan: Plan, *, note: Callable[[str], None] = lambda _: None
) -> Beginning | None:
    """What a run of `plan` begins with that goes on after the run at `path`; None where that has no
    cycle, or has ended in order.

    The tasks are started, run from the last keyframe to the log's end, and stopped. Those that a replay
    takes from the log, as they act outside or ask a server, begin anew.

    note: called with a sentence on what of the run could not be used.

    `LogError` and `ReplayError` where the log, or the tasks, cannot be had; `TaskError` for an error of
    a task that the run did not have.
    """
    with Log(path) as log:
        if log.end is not None and log.end.get("reason", "").startswith(_IN_ORDER):
            return None
        last = max((cycle.cycle for cycle in log.cycles()), default=None)
        if last is None:
            return None
        replay = Replay(log, graph=plan.graph.spec)
        with replay:
            replay.seek(last)
            replay.next_cycle()
            state = replay.remembered()
            unsettled = replay.unsettled()
        for text in replay.notes:
            note(text)
        return Beginning(
            log.metadata.get("run_id", path.name), last + 1, unpack_keyframe(state), unsettled
        )
