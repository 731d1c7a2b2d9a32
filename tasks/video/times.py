"""The time stamps of pictures -> times that never go back and never jump."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

__all__ = ["Timeline"]

_USUAL = Fraction(1, 25)
"""Seconds between two pictures where nothing says how many there are."""
_MOST_REORDERED = 16
"""Pictures that a decoder holds back for their order, at most."""
_DISORDERED = 2
"""Pictures in a row that a camera may give too late a time before, so that theirs lie before it."""
_FAR_BEHIND = 1
"""Seconds by which a time stamp lies before the latest only where the clock began again."""
_JUMP = 10
"""Seconds after which a gap is a jump of a clock that may jump, as of a broadcast."""
_LONGEST = 24 * 3600
"""Seconds after which it is one of any clock."""


class _Line(NamedTuple):
    """The times of pictures that come one after the other, by the ticks of their clock: in nanoseconds
    `(ticks * slope + shift) // divisor`.

    tick: seconds. most: ticks between two pictures that are no jump.
    """

    tick: Fraction
    most: int
    slope: int
    shift: int
    divisor: int


class Timeline:
    """Continues the clock of a source where that begins again, jumps, stops, or is missing."""

    def __init__(self) -> None:
        self._start = Fraction(0)
        self._has_period = False
        self._longest = _LONGEST
        self._most_behind = _MOST_REORDERED
        """Pictures in a row whose time stamps may be before the latest of one clock."""
        self._offset = Fraction(0)
        """What makes a time of a time stamp."""
        self._last: Fraction | None = None
        """The time of the last picture."""
        self._step = _USUAL
        self._behind = 0
        """Pictures in a row whose time stamps are before the latest."""
        self._begins = True
        self._line: _Line | None = None
        self._ticks = 0
        """Of the last picture, where there is a line: `_last` is an earlier one's."""

    def begin(
        self,
        *,
        start: Fraction,
        period: Fraction,
        may_jump: bool,
        reordered: int = _MOST_REORDERED,
    ) -> None:
        """The next picture is of another container.

        start: the time stamp, in seconds, of a first picture that has none.
        period: seconds from one picture to the next; 0 if not known.
        may_jump: whether the container's format allows its clock to.
        reordered: how many pictures come before others that are shown before them, as far as is known.
        """
        self._leave_line()
        self._most_behind = min(_MOST_REORDERED, reordered + _DISORDERED)
        self._start, self._has_period = start, bool(period)
        self._longest = _JUMP if may_jump else _LONGEST
        self._step = period or self._step
        self._behind = 0
        self._begins = True

    def begin_again(self) -> None:
        """The next picture comes a period after the last one, whatever its time stamp is."""
        self._begins = True

    def at(self, stamp: Fraction | None, *, passed: int = 0) -> Fraction:
        """Seconds from the first picture to the next one, at least those of the one before.

        stamp: its time stamp in seconds; None if it has none.
        passed: how many pictures were left out before it.
        """
        self._leave_line()
        last = self._last
        if last is None:
            time = Fraction(0)
            self._offset = -(self._start if stamp is None else stamp)
        elif stamp is None:
            time = last + self._step * (1 + passed)
        else:
            time = stamp + self._offset
            later = time - last  # fractions are slow, most of all where they are compared
            goes_back = later.numerator < 0
            is_stuck = goes_back and (self._behind >= self._most_behind or later < -_FAR_BEHIND)
            is_far = later.numerator > self._longest * later.denominator and (
                later > self._longest + self._step * passed
            )
            if self._begins or is_stuck or is_far:
                later = self._step * (1 + passed)
                time = last + later
                self._offset = time - stamp
                goes_back = False
            self._behind = self._behind + 1 if goes_back else 0
            if not self._has_period and later > 0:
                self._step = later / (1 + passed)
            time = last if goes_back else time
        self._begins = False
        self._last = time
        return time

    def at_ns(self, ticks: int | None, tick: Fraction, *, passed: int = 0) -> int:
        """`at` in nanoseconds, cut off.

        ticks: the time stamp in `tick` seconds, the same object for all pictures of a container.
        """
        # Fractions take longer than all else that is done to number a frame.
        line = self._line
        if (
            line is not None
            and ticks is not None
            and line.tick is tick
            and not self._begins
            and 0 <= ticks - self._ticks <= line.most
        ):
            self._ticks, self._behind = ticks, 0
            return (ticks * line.slope + line.shift) // line.divisor
        time = self.at(None if ticks is None else ticks * tick, passed=passed)
        is_plain = ticks is not None and self._has_period and tick.numerator > 0
        if ticks is not None and is_plain and time == ticks * tick + self._offset:
            self._line, self._ticks = self._new_line(tick), ticks
        return 1_000_000_000 * time.numerator // time.denominator

    @property
    def last(self) -> Fraction:
        """What `at`, or `at_ns`, gave last, in seconds."""
        self._leave_line()
        return Fraction(0) if self._last is None else self._last

    def _new_line(self, tick: Fraction) -> _Line:
        offset = self._offset
        return _Line(
            tick,
            int(self._longest / tick),
            1_000_000_000 * tick.numerator * offset.denominator,
            1_000_000_000 * offset.numerator * tick.denominator,
            tick.denominator * offset.denominator,
        )

    def _leave_line(self) -> None:
        if self._line is not None:
            self._last = self._ticks * self._line.tick + self._offset
            self._line = None
