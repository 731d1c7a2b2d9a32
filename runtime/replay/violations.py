"""Which faults make a task fail, and the fewest of them that do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from flowrun.runtime.errors import TaskError, worded
from flowrun.runtime.replay.compare import Difference, Recorded
from flowrun.runtime.replay.faults import Chosen, Fault, Faults
from flowrun.runtime.replay.replay import Recorder, Replay

__all__ = ["Tried", "Violation", "fewest", "try_faults"]


@dataclass(frozen=True, slots=True)
class Violation:
    """An error that the recorded run does not have.

    text: the error's type and text. error: the error itself, where it ended the replay.
    """

    cycle: int
    task: str
    text: str
    error: TaskError | None = None

    def is_like(self, other: Violation | None) -> bool:
        """Whether it is the same error of the same task, at whatever cycle."""
        return other is not None and (self.task, self.text.partition(":")[0]) == (
            other.task,
            other.text.partition(":")[0],
        )


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a replay with faults.

    violation: the first one, with which the replay ended; None where there is none.
    happened: the messages to which a fault happened. cycles: how many cycles ran.
    """

    violation: Violation | None
    happened: list[Chosen]
    cycles: int


def try_faults(
    replay: Replay,
    faults: Sequence[Fault],
    *,
    only: Collection[Chosen] | None = None,
    progress: Callable[[int], None] | None = None,
    recorder: Recorder | None = None,
) -> Tried:
    """Replay with faults until a task raises an error that was not recorded.

    only: as `Faults` has it. recorder: as `Replay.run` has it.
    """
    acting = Faults(faults, replay.plan, only=only)
    found: list[Violation] = []

    def note(difference: Difference, _recorded: Recorded | None, _made: object) -> None:
        if difference.field == "error" and difference.recorded == "no error":
            found.append(Violation(difference.cycle, difference.task, difference.replayed))

    replay.hook(on_difference=note, faults=acting)
    try:
        replay.run(progress=progress, recorder=recorder, until=lambda: bool(found))
    except TaskError as error:
        text = str(error) if error.__cause__ is None else worded(error.__cause__)
        found.insert(0, Violation(error.cycle or 0, error.task_id, text, error))
    return Tried(found[0] if found else None, acting.happened, replay.report.cycles)


def fewest(
    tried: Tried, again: Callable[[Collection[Chosen]], Tried], *, most_replays: int = 100
) -> tuple[Tried, int]:
    """The replay with the fewest faults that ends with the same error, as far as leaving some out finds
    it, and how many replays that took.

    tried: one that ends with an error. again: replays with some of its faults.
    most_replays: after which the fewest so far are given.

    It is the search of Zeller and Hildebrandt ("ddmin", 2002): halves first, then smaller parts.
    """
    assert tried.violation is not None
    best, replays, parts = tried, 0, 2
    while len(best.happened) > 1 and replays < most_replays:
        events = best.happened
        size = -(-len(events) // parts)
        for first in range(0, len(events), size):
            if replays == most_replays:
                break
            replays += 1
            fewer = again([*events[:first], *events[first + size :]])
            if tried.violation.is_like(fewer.violation) and len(fewer.happened) < len(events):
                best, parts = fewer, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(events), 2 * parts)
    return best, replays
