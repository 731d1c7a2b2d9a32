"""Something that somebody should look at."""

from __future__ import annotations

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
    """

    text: str
    severity: str = "warning"
    frame_id: int
    frame_cycle: int

    def check_fields(self) -> None:
        super().check_fields()
        if self.severity not in SEVERITIES:
            raise MessageTypeError(
                f"{type(self).__name__}.severity: expected one of {', '.join(SEVERITIES)}; "
                f"got {self.severity!r}"
            )
