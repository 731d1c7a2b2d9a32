"""Checks that a replay from a keyframe equals one from the start, and finds tasks that forget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from flowrun.msgs.message import Message
from flowrun.runtime.errors import ReplayError
from flowrun.runtime.replay.compare import Difference, Recorded
from flowrun.runtime.replay.replay import Replay

__all__ = ["KeyframeReport", "verify_keyframes"]


@dataclass(slots=True)
class KeyframeReport:
    """What `verify_keyframes` found.

    verified: cycles of the keyframes from which the replay ran.
    refused: cycles of those that a task could not take up, since its `thaw` raised; the replay's notes
        say which task, and what it raised.
    unfrozen: tasks whose `freeze` failed in the run, each with the number of keyframes that lack them.
    cycles: number of cycles run from them.
    forgetful: tasks that make what was recorded when all runs from the start, but not from a
        keyframe: the cycle of the first such keyframe, and the difference.
    unsteady: tasks that differ even from the start, each with its first difference: their code has
        changed, or is not deterministic. Their keyframes are not judged.
    """

    verified: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    unfrozen: dict[str, int] = field(default_factory=dict)
    cycles: int = 0
    forgetful: dict[str, tuple[int, Difference]] = field(default_factory=dict)
    unsteady: dict[str, Difference] = field(default_factory=dict)


def verify_keyframes(
    replay: Replay, *, count: int, progress: Callable[[int], None] | None = None
) -> KeyframeReport:
    """Run `replay` from its start, and from some of its keyframes, each to the next, with tasks made
    again for each.

    Each task gets the recorded inputs, whatever the tasks before it made, so that only tasks that
    forget are named, and not those downstream. A task whose outputs in these cycles do not depend on
    what it forgot is not found.

    count: the most keyframes to run from, spread evenly over the log.
    progress: called with the number of cycles done.

    Raises `ReplayError` for a log without keyframes.
    """
    report = KeyframeReport()
    begun_at: list[int] = []

    def note(difference: Difference, _recorded: Recorded | None, _made: Message | None) -> None:
        task = difference.task
        if not begun_at:
            report.unsteady.setdefault(task, difference)
        elif task not in report.unsteady:
            report.forgetful.setdefault(task, (begun_at[0], difference))

    replay.hook(on_difference=note, isolate=True)
    done = 0
    with replay:
        keyframes = replay.keyframes
        if not keyframes:
            raise ReplayError(f"{replay.log.path}: the log has no keyframe to verify")
        while replay.next_cycle():
            done += 1
            if progress is not None:
                progress(done)
        chosen = [keyframes[i * len(keyframes) // count] for i in range(count)]
        chosen = sorted(set(chosen))
        for cycle, following in zip(chosen, [*chosen[1:], None], strict=True):
            begun_at[:] = [cycle]
            replay.seek(cycle, fresh=True)
            if cycle in replay.refused:
                report.refused.append(cycle)
                continue
            while replay.cycle is not None and (following is None or replay.cycle < following):
                replay.next_cycle()
                report.cycles += 1
                if progress is not None:
                    progress(done + report.cycles)
            report.verified.append(cycle)
        report.unfrozen = replay.unfrozen
    return report
