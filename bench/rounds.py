"""Measures in turns: on a shared machine, what is measured a second apart cannot be compared."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

__all__ = ["Samples", "in_turns", "ratio"]


@dataclass(frozen=True, slots=True)
class Samples:
    """What one candidate took, round by round.

    rounds: for each round, the seconds of each timed call.
    whole: seconds of each round, with opening and closing.
    """

    rounds: list[list[float]]
    whole: list[float]

    def totals(self) -> list[float]:
        """Seconds of the timed calls of each round."""
        return [sum(calls) for calls in self.rounds]

    def percentile(self, q: float) -> float:
        """Of all calls of all rounds, in seconds."""
        return float(np.percentile([call for calls in self.rounds for call in calls], q))


def in_turns(
    candidates: dict[str, Callable[[], tuple[list[float], float]]], rounds: int
) -> dict[str, Samples]:
    """Run each candidate once a round; it returns the seconds of its calls, and of all it did.

    Every second round goes backwards, so that no candidate always runs after the same one.
    """
    found: dict[str, Samples] = {name: Samples([], []) for name in candidates}
    for number in range(rounds):
        names: Iterable[str] = candidates if number % 2 == 0 else reversed(candidates)
        for name in names:
            calls, whole = candidates[name]()
            found[name].rounds.append(calls)
            found[name].whole.append(whole)
    return found


def ratio(one: list[float], other: list[float]) -> str:
    """one / other, round by round: the median, and the least and greatest."""
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
