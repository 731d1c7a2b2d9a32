"""Who is right how often, and whether that is more than chance."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from flowrun.runtime.testbench.store import Store
from flowrun.tasks.evaluation.scores import Score
from flowrun.tasks.evaluation.standings import compared, percentile, wilson

RIGHT, WRONG = Score(1, right=True), Score(0, right=False)


def exactly(one: int, other: int) -> float:
    """McNemar's exact test, as a textbook has it."""
    total = one + other
    tail = sum(comb(total, k) for k in range(min(one, other) + 1))
    return min(1.0, 2 * tail / 2**total)


def test_two_are_compared_where_one_is_right_and_the_other_wrong(tmp_path):
    a = [RIGHT] * 6 + [WRONG] * 31 + [WRONG] * 9 + [RIGHT] * 50 + [None]
    b = [WRONG] * 6 + [RIGHT] * 31 + [WRONG] * 9 + [RIGHT] * 50 + [RIGHT]
    with Store(tmp_path / "s.sqlite") as store:
        [found] = compared({"A": a, "B": b}, store)
        assert [found] == compared({"A": a, "B": b}, store)
    assert (found.only_first, found.only_second) == (6, 31)
    assert found.p == pytest.approx(exactly(6, 31))
    assert found.said(by_recording=False) == (
        "B is right in 31 of 40 where A is wrong, A in 6 of 15 where B is wrong: unlikely to be "
        "chance, p = 4e-05"
    )
    assert found.said(by_recording=True).startswith("B agrees in 31 of 40 where A does not, A in 6")


def test_few_differences_may_be_chance_and_none_are_said_so():
    [few] = compared({"A": [RIGHT] * 5, "B": [WRONG] * 2 + [RIGHT] * 3}, None)
    assert few.said(by_recording=False) == (
        "A is right in 2 of 2 where B is wrong, and A is right everywhere: may well be chance, p = 0.50"
    )
    [none] = compared({"A": [RIGHT, WRONG], "B": [RIGHT, WRONG]}, None)
    assert none.p == 1
    assert none.said(by_recording=False) == "A and B are right in the same places"


def test_of_many_comparisons_each_must_be_more_unlikely():
    right = [RIGHT] * 20
    scores = {name: [WRONG] * n + right[n:] for name, n in (("A", 0), ("B", 6), ("C", 7))}
    found = {(it.first, it.second): it.p for it in compared(scores, None)}
    assert found["A", "C"] == pytest.approx(3 * exactly(0, 7))
    assert found["A", "B"] == pytest.approx(2 * exactly(0, 6))
    assert found["B", "C"] == 1


def test_the_share_of_few_answers_is_not_sure():
    low, high = wilson(9, 10, None)
    assert (round(low, 3), round(high, 3)) == (0.596, 0.982)
    assert wilson(0, 0, None) == (0.0, 1.0)


def test_percentiles_are_those_of_numpy():
    values = [7.5, 1.0, 3.25, 12.0, 3.0]
    for share in (0, 1, 50, 90, 99, 100):
        assert percentile(values, share) == pytest.approx(np.percentile(values, share))
    assert percentile([4.0], 99) == 4.0
    assert percentile([], 50) is None
