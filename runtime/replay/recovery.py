"""A run that was cut off, taken up again: its tasks' states at the end of its log, by a replay from the
last keyframe on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.engine.beginning import Beginning
from flowrun.runtime.engine.keyframes import unpack_keyframe
from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.links.runs import Runs
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay

__all__ = ["recovered", "recovered_part"]

_IN_ORDER = ("end of sources", "the limit of ")
"""How the reasons begin with which a run has done all that it was to."""


def recovered(
    path: Path, plan: Plan, *, note: Callable[[str], None] = lambda _: None
) -> Beginning | None:
    """What a run of `plan` begins with that goes on after the run at `path`; None where that has no
    cycle, or has ended in order.

    The tasks are started, run from the last keyframe to the log's end, and stopped. Those that a replay
    takes from the log, as they act outside or ask a server, start from nothing.

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
        spec = plan.graph.spec
        # A part's graph is no graph by itself; the log has the whole one.
        replay = Replay(log, graph=spec if spec.part is None else None)
        with replay:
            replay.seek(last)
            replay.next_cycle()
            state = replay.remembered()
            unsettled = replay.unsettled()
            _decode(it for items in unsettled.values() for item in items for it in item.messages)
            if [it.topic for it in replay.plan.slots] != [it.topic for it in plan.slots]:
                unsettled = {}
                note("the graph has changed: what background tasks were working on is left out")
        for text in replay.notes:
            note(text)
        return Beginning(
            log.metadata.get("run_id", path.name), last + 1, unpack_keyframe(state), unsettled
        )


def _decode(messages: Iterable[Message]) -> None:
    """Have pictures decoded: the log whose packets they are made of is closed when a task reads them."""
    for message in messages:
        if isinstance(message, ImageRgb8Msg) and message.present:
            with contextlib.suppress(FlowrunError):  # told again to the task that reads it
                _ = message.luma


def recovered_part(
    plan: Plan, directory: Path, *, note: Callable[[str], None] = lambda _: None
) -> Beginning | None:
    """What the run of a partition begins with whose log is to be at `directory`: what is left of the run
    before it there, where the graph says `recover: replay`; None otherwise, or where nothing is.

    What cannot be taken up is noted, and the tasks start from nothing.
    """
    part = plan.graph.spec.part
    if part is None:
        return None
    partition = next(it for it in plan.graph.spec.partitions if it.id == part.partition)
    if partition.recover != "replay":
        return None
    runs = Runs(directory.parent, graph=plan.graph.spec.name, partition=str(part))
    for run in reversed(runs.look()):
        try:
            with Log(run.path) as log:
                if next(log.cycles(), None) is None:
                    continue
            return recovered(run.path, plan, note=note)
        except FlowrunError as error:
            note(f"{run.path}: cannot restore its tasks' states, which start from nothing: {error}")
            return None
    return None
