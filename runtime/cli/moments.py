"""Places in a run, as given on a command line: a cycle, or a time."""

from __future__ import annotations

from datetime import UTC, datetime

from flowrun.runtime.errors import UsageError
from flowrun.runtime.log.reader import Log

__all__ = ["MOMENT", "Moment", "first_cycle_at", "last_cycle_at", "moment"]

MOMENT = (
    "a cycle number (120), seconds since the first cycle (+12.5s), or a time "
    "(2026-03-01T08:15:02.5, of UTC unless it says otherwise)"
)

Moment = tuple[int | None, int | None]
"""A cycle number, or nanoseconds since 1970 UTC."""


def moment(log: Log, option: str, text: str) -> Moment:
    """What `text` means in `log`; a `UsageError` that names `option` if it means nothing."""
    try:
        if text.endswith("s"):
            return None, (log.start_ns or 0) + round(float(text[:-1]) * 1e9)
        if text.lstrip("+-").isdigit():
            return int(text), None
        time = datetime.fromisoformat(text)
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        whole = int(time.replace(microsecond=0).timestamp())
        return None, whole * 1_000_000_000 + time.microsecond * 1000
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text!r}: expected {MOMENT}") from None


def first_cycle_at(log: Log, option: str, text: str) -> int:
    """The first cycle at or after the moment."""
    cycle, time_ns = moment(log, option, text)
    if cycle is not None:
        return cycle
    for record in log.cycles(start_ns=time_ns):
        return record.cycle
    raise UsageError(f"{option} {text} is after the last cycle of the log")


def last_cycle_at(log: Log, option: str, text: str) -> int:
    """The last cycle at or before the moment."""
    cycle, time_ns = moment(log, option, text)
    if cycle is not None:
        return cycle
    assert time_ns is not None
    after = next((record.cycle for record in log.cycles(start_ns=time_ns + 1)), None)
    if after is None:
        return 2**63 - 1
    if log.start_ns is None or time_ns < log.start_ns:
        raise UsageError(f"{option} {text} is before the first cycle of the log")
    return after - 1
