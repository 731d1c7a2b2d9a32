"""Why a child process has ended, in words."""

from __future__ import annotations

import signal
from collections.abc import Sequence

__all__ = ["why_ended"]

_SHOWN = 8
"""Lines that are shown if none of them says what the error is."""
_LONGEST = 4000
_WRONG = 2
"""Status of a graph with mistakes: all lines are about them."""


def why_ended(status: int, lines: Sequence[str]) -> str | None:
    """Why a run ended; None if it ended well.

    status: its exit status, 128 and more for the number of a signal; negative if what watched it was
        killed.
    lines: what it wrote to stderr.
    """
    if status == 0:
        return None
    said = [line for line in lines if line.strip() and not line.startswith("warning: ")]
    starts = [index for index, line in enumerate(said) if line.startswith("error: ")]
    if starts:
        said = said[starts[-1] :]
        said[0] = said[0].removeprefix("error: ")
    elif status != _WRONG:
        said = said[-_SHOWN:]
    number = -status if status < 0 else status - 128
    if number > 0:
        said = [_killed(number), *(said if number not in _BY_OTHERS else ())]
    return "\n".join(said)[:_LONGEST] or f"ended with status {status}"


_BY_OTHERS = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
"""What the process wrote before does not say why."""


def _killed(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        return "killed by SIGKILL: by somebody, or by the system for want of memory"
    return f"killed by {name}"
