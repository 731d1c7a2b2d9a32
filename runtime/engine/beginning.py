"""What a run begins with that goes on where an earlier one was cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flowrun.msgs.message import Message

__all__ = ["Beginning", "Unsettled"]


class Unsettled(NamedTuple):
    """Inputs of a background task of which no result has appeared.

    cycle, now_ns: the cycle in which they were present, and its time.
    messages: by slot index of the plan.
    """

    cycle: int
    now_ns: int
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Beginning:
    """The end of an earlier run of the same plan.

    run_id: which run that is.
    cycle: the number of the cycle that comes next.
    tasks: what each task remembers, as a keyframe has it.
    unsettled: by background task, what it was working on.
    """

    run_id: str
    cycle: int
    tasks: Mapping[str, Mapping[str, Any]]
    unsettled: Mapping[str, Sequence[Unsettled]]
