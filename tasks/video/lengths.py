"""How long a film says it is, so that one that was cut off on its way is noticed."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

__all__ = ["is_cut_off"]

_CUT_S = 0.5
"""A film that ends so much sooner than it says was cut off."""
_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
"""What Matroska says of a track, among its tags."""


def is_cut_off(stream: Any, end: int) -> bool:
    """Whether a film has ended before it says that it does; False where it does not say it.

    stream: an `av.VideoStream`.
    end: where its last picture ended, by the stream's clock; 0 if it gave none.
    """
    says = _ends_at(stream)
    return bool(end and says is not None and says - end * stream.time_base > _CUT_S)


def _ends_at(stream: Any) -> Fraction | None:
    """Where a stream says that it ends at the earliest, in seconds of its clock: some containers count
    from where it begins, some from 0."""
    if stream.duration:
        return Fraction((min(stream.start_time or 0, 0) + stream.duration) * stream.time_base)
    said = _DURATION.match(stream.metadata.get("DURATION", ""))
    if said is None:
        return None
    hours, minutes, seconds = said.groups()
    return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
