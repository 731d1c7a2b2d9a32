"""Which messages are kept of more than are wanted: those whose times are far enough apart."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

__all__ = ["Thinning"]

_EARLY_S, _EARLY = Fraction(5, 1000), Fraction(1, 8)
"""By how much one may come early, as containers round times: in seconds, and at most in pieces."""


class Thinning:
    """Cuts time into pieces of 1 / `rate_hz` seconds, and keeps the first frame, or message, of each.

    It goes by their times alone, so the same ones are kept in every run. Where time goes back by
    more than a piece, as with a clock that was set, the pieces begin again.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate = Fraction(str(rate_hz))
        self._early = min(_EARLY_S * self._rate, _EARLY)
        self._zero: Fraction | None = None
        """When the pieces begin, in seconds."""
        self._last = 0
        """The piece of the last frame that was kept."""

    def keeps(self, at_s: Fraction) -> bool:
        """Whether the next frame, whose time is `at_s`, is kept."""
        if self._zero is not None:
            piece = floor((at_s - self._zero) * self._rate + self._early)
            if piece in (self._last, self._last - 1):
                return False
            if piece > self._last:
                self._last = piece
                return True
        self._zero, self._last = at_s, 0
        return True

    def freeze(self) -> Any:
        """What it remembers, as a task's `freeze` gives it."""
        return None if self._zero is None else [str(self._zero), self._last]

    def thaw(self, state: Any) -> None:
        """Restore what `freeze` gave."""
        self._zero, self._last = (None, 0) if state is None else (Fraction(state[0]), state[1])
