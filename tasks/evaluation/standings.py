"""Who is right how often, and whether that is more than chance."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowrun.runtime.extras import import_optional
from flowrun.runtime.testbench.store import Store, key_of
from flowrun.tasks.evaluation.scores import Score

__all__ = ["Comparison", "Standing", "compared", "percentile", "ranked", "wilson"]

_UNLIKELY = 0.05


@dataclass(frozen=True, slots=True)
class Standing:
    """How one way to ask did.

    scored: number of answers of which is known whether they are right; right: of those that are.
    near: their mean score, from 0 to 1: for boxes, of how many are found.
    low, high: where the share of right answers is with 95 % confidence (Wilson).
    failed: number of answers that are an error.
    p50_ms, p99_ms: how long answers took, medians and the slowest hundredth; None where none is known.
    tokens: their mean number; None of answers without.
    cached: number of answers that were known before.
    """

    name: str
    scored: int
    right: int
    near: float
    low: float
    high: float
    failed: int
    p50_ms: float | None
    p99_ms: float | None
    tokens: float | None
    cached: int

    @property
    def share(self) -> float:
        """The share of right answers."""
        return self.right / self.scored if self.scored else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ways to ask, on the answers of which is known for both whether they are right.

    only_first, only_second: number of those that one of them has right and the other has wrong.
    first_wrong, second_wrong: number of those that each has wrong.
    p: how likely so uneven numbers are if both are equally good (McNemar's exact test), corrected for
        the number of comparisons (Holm).
    """

    first: str
    second: str
    only_first: int
    only_second: int
    first_wrong: int
    second_wrong: int
    p: float

    @property
    def is_unlikely(self) -> bool:
        """Whether chance is no good explanation."""
        return self.p < _UNLIKELY

    def said(self, *, by_recording: bool) -> str:
        """The comparison in words.

        by_recording: whether the right answers are the recorded ones.
        """
        right, wrong = ("agrees", "does not") if by_recording else ("is right", "is wrong")
        if not self.only_first + self.only_second:
            both = "agree" if by_recording else "are right"
            return f"{self.first} and {self.second} {both} in the same places"
        better = self.first, self.only_first, self.first_wrong
        worse = self.second, self.only_second, self.second_wrong
        if worse[1] > better[1]:
            better, worse = worse, better
        chance = "unlikely to be chance" if self.is_unlikely else "may well be chance"
        text = f"{better[0]} {right} in {better[1]:,} of {worse[2]:,} where {worse[0]} {wrong}, "
        text += (
            f"{worse[0]} in {worse[1]:,} of {better[2]:,} where {better[0]} {wrong}"
            if better[2]
            else f"and {better[0]} {right} everywhere"
        )
        return f"{text}: {chance}, p = {_shown(self.p)}"


def _shown(p: float) -> str:
    return "1" if p >= 0.995 else f"{p:.2f}" if p >= 0.095 else f"{p:.1g}"


def ranked(standings: Sequence[Standing]) -> list[Standing]:
    """The best one first: by the share of right answers, then by how near they are, then by speed."""
    return sorted(standings, key=lambda it: (-it.share, -it.near, it.p50_ms or 0.0, it.name))


def compared(scores: Mapping[str, Sequence[Score | None]], store: Store | None) -> list[Comparison]:
    """Each two ways to ask, compared.

    scores: by name, of the same answers in the same order; None where it is not known.
    store: keeps what was computed: SciPy takes half a second to load.
    """
    found = []
    for first, second in itertools.combinations(scores, 2):
        both = [
            (one.right, other.right)
            for one, other in zip(scores[first], scores[second], strict=True)
            if one is not None and other is not None
        ]
        only_first, only_second = both.count((True, False)), both.count((False, True))
        neither = both.count((False, False))
        p = _mcnemar(only_first, only_second, store)
        wrong = only_second + neither, only_first + neither
        found.append(Comparison(first, second, only_first, only_second, *wrong, p))
    return _corrected(found)


def _corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons with their p corrected by Holm: of many, one is unlikely by chance."""
    order = sorted(range(len(found)), key=lambda at: found[at].p)
    corrected = list(found)
    least = 0.0
    for place, at in enumerate(order):
        least = max(least, min(1.0, (len(found) - place) * found[at].p))
        corrected[at] = replace(found[at], p=least)
    return corrected


def _mcnemar(one: int, other: int, store: Store | None) -> float:
    """How likely `one` and `other`, or more uneven numbers, are where both are equally likely."""
    if not one + other:
        return 1.0
    return float(_kept(["mcnemar", min(one, other), one + other], _binomial, store))


def _binomial(_name: str, less: int, total: int) -> float:
    stats = import_optional("scipy.stats", "statistics of `flowrun eval`", extra="eval")
    return float(stats.binomtest(less, total, 0.5).pvalue)


def wilson(right: int, total: int, store: Store | None) -> tuple[float, float]:
    """Where the share `right` / `total` is with 95 % confidence."""
    if not total:
        return 0.0, 1.0
    low, high = _kept(["wilson", right, total], _interval, store)
    return low, high


def _interval(_name: str, right: int, total: int) -> list[float]:
    stats = import_optional("scipy.stats", "statistics of `flowrun eval`", extra="eval")
    found = stats.binomtest(right, total).proportion_ci(method="wilson")
    return [float(found.low), float(found.high)]


def _kept(question: list[Any], compute: Any, store: Store | None) -> Any:
    key = key_of("statistics", *question)
    known = {} if store is None else store.get([key])
    if key not in known:
        known[key] = compute(*question)
        if store is not None:
            store.put([(key, known[key])])
    return known[key]


def percentile(values: Sequence[float], share: int) -> float | None:
    """The `share`-th percentile of values, between the two nearest where there is none; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    whole, part = divmod((len(ordered) - 1) * share, 100)
    low, high = ordered[whole], ordered[min(whole + 1, len(ordered) - 1)]
    return low + (high - low) * part / 100
