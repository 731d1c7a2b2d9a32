"""`flowrun replay RUN --loop`: replay a run again and again, with the code as it then is on the disk."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flowrun.runtime.cli.failures import print_error
from flowrun.runtime.cli.signals import Ended
from flowrun.runtime.errors import FlowrunError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted, not_given_back, one_line

if TYPE_CHECKING:
    from flowrun.runtime.replay.replay import ReplayReport

__all__ = ["replay_again_and_again"]

_PAUSE_S = 1.0
"""Seconds after a turn that failed, since the code may be in the middle of an edit; and
from one line of turns that are alike to the next."""

Turn = Callable[[], tuple[list[str], "ReplayReport", float]]
"""Replays once: notes, what came of it, and the seconds that it took."""


def replay_again_and_again(turn: Turn) -> int:
    """Replay until Ctrl-C, and return 0 if every turn was identical, else 1.

    Prints how a turn differs where that is not as in the turn before, and a line now and then. What is
    wrong in the first turn is raised, as without a loop.
    """
    seen = _Seen()
    try:
        while True:
            try:
                notes, report, took = turn()
            except FlowrunError as error:
                if not seen.turns:
                    raise
                seen.fail(error)
                time.sleep(_PAUSE_S)
            else:
                seen.note(notes, report, took)
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, Ended) and interrupt.number != signal.SIGINT:
            raise
        return seen.end()


class _Seen:
    """What came of the turns so far."""

    def __init__(self) -> None:
        self.turns = 0
        self._different = 0
        self._failed = 0
        self._first = ""
        self._last = ""
        self._said_s = 0.0
        self._notes: set[str] = set()

    def note(self, notes: list[str], report: ReplayReport, took: float) -> None:
        self.turns += 1
        for note in notes:
            if note not in self._notes:
                self._notes.add(note)
                print_text(one_line(f"note: {note}"))
        how = "" if report.first is None else str(report.first)
        if report.missing and not how:
            how = f"{not_given_back(report.missing)}"
        self._different += bool(how)
        if how and not self._first:
            self._first = f"turn {self.turns:,}: {how}"
        is_new, self._last = how != self._last or self.turns == 1, how
        if not is_new and time.monotonic() - self._said_s < _PAUSE_S:
            return
        self._said_s = time.monotonic()
        ran = f"turn {self.turns:,}: {counted(report.cycles, 'cycle')} in {took:.1f} s, "
        if not how:
            same = report.compared - report.tolerated
            print_text(f"{ran}{counted(same, 'message')} identical", flush=True)
            return
        ran += f"{report.differing:,} of {report.compared:,} messages differ"
        print_text(f"{ran}; the first:\n{how}" if is_new else f"{ran}, as before", flush=True)

    def fail(self, error: FlowrunError) -> None:
        self.turns += 1
        self._failed += 1
        if str(error) != self._last:
            print_error(error, before=f"turn {self.turns:,}: ")
        self._last = str(error)

    def end(self) -> int:
        same = self.turns - self._different - self._failed
        print_text(
            f"\n{counted(self.turns, 'turn')}: {same:,} identical, {self._different:,} different, "
            f"{self._failed:,} failed"
        )
        if self._first:
            print_text(f"the first difference, in {self._first}")
        return 0 if same == self.turns else 1
