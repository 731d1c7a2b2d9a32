"""Something that somebody should look at."""

from __future__ import annotations

from typing import Any

from flowrun.msgs.fields import MessageTypeError
from flowrun.msgs.message import Message

__all__ = ["SEVERITIES", "AlertMsg"]

SEVERITIES = ("info", "warning", "critical")


class AlertMsg(Message):
    """Something that somebody should look at; `tov_ns` is the time of the frame in which it was seen.

    text: what it is, for people.
    severity: "info", "warning" or "critical".
    frame_id: `ImageRgb8Msg.frame_id` of that frame.
    frame_cycle: the cycle in which that frame was taken.
    rule: what was looked for, as the graph says it.
    values: what was read of it: name -> value.
    since_ns: since when it had been so, by the times of frames; 0 if nobody says.
    clip_from_ns, clip_to_ns: the time of which the run keeps a film, by the times of frames; 0 and 0:
        none.
    """

    text: str
    severity: str = "warning"
    frame_id: int
    frame_cycle: int
    rule: str
    values: dict[str, Any]
    since_ns: int
    clip_from_ns: int
    clip_to_ns: int

    def check_fields(self) -> None:
        super().check_fields()
        if self.severity not in SEVERITIES:
            raise MessageTypeError(
                f"{type(self).__name__}.severity: expected one of {', '.join(SEVERITIES)}; "
                f"got {self.severity!r}"
            )
