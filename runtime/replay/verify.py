"""Whether a replay that begins at a keyframe is that from the start: finds the task that forgets."""

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
    """What a look at the keyframes of a log found.

    verified: cycles of the keyframes that were begun at. cycles: how many were run from them.
    forgetful: by task, the cycle of the first keyframe behind which it made something else, and
        what; only where it makes what was recorded when all is run from the start.
    unsteady: tasks that do not even then, each with its first difference: their code has changed,
        or is not deterministic. Nothing is said of their keyframes.
    """

    verified: list[int] = field(default_factory=list)
    cycles: int = 0
    forgetful: dict[str, tuple[int, Difference]] = field(default_factory=dict)
    unsteady: dict[str, Difference] = field(default_factory=dict)


def verify_keyframes(
    replay: Replay, *, count: int, progress: Callable[[int], None] | None = None
) -> KeyframeReport:
    """Run `replay` from its start, and from at most `count` of its keyframes, spread evenly, with
    tasks that were made anew, to the next of them.

    Each task gets the recorded inputs, whatever those in front of it made, so that each that forgets
    is named and none that only passes it on. A task whose outputs do not depend on what it forgot in
    all these cycles is not found. Raises `ReplayError` for a log without keyframes.
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
        for cycle, behind in zip(chosen, [*chosen[1:], None], strict=True):
            begun_at[:] = [cycle]
            replay.seek(cycle, anew=True)
            while replay.cycle is not None and (behind is None or replay.cycle < behind):
                replay.next_cycle()
                report.cycles += 1
                if progress is not None:
                    progress(done + report.cycles)
            report.verified.append(cycle)
    return report
