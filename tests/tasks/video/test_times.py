"""Time stamps of all kinds -> times that never go back and never jump."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.tasks.video.times import Timeline

HOUR = 3600


def begun(
    period: float | Fraction, *, may_jump: bool, start: float = 0, reordered: int = 16
) -> Timeline:
    timeline = Timeline()
    timeline.begin(
        start=Fraction(start), period=Fraction(period), may_jump=may_jump, reordered=reordered
    )
    return timeline


def times(
    *stamps: float | None,
    period: float = 0.5,
    may_jump: bool = True,
    start: float = 0,
    reordered: int = 16,
) -> list[float]:
    timeline = begun(period, may_jump=may_jump, start=start, reordered=reordered)
    return [float(timeline.at(None if it is None else Fraction(it))) for it in stamps]


def test_times_begin_with_the_first_picture() -> None:
    assert times(7, 7.5, 8.25) == [0, 0.5, 1.25]
    assert times(-3, 0) == [0, 3]


def test_a_clock_that_begins_again_is_continued() -> None:
    assert times(100, 100.5, 0, 0.5) == [0, 0.5, 1, 1.5]
    assert times(95443, 95443.5, 0.25, 0.75) == [0, 0.5, 1, 1.5]  # 33 bits of 90 kHz


def test_a_jump_is_continued_where_the_container_may_jump() -> None:
    assert times(0, 1, 12, 13) == [0, 1, 1.5, 2.5]
    assert times(0, 1, 11, 12) == [0, 1, 11, 12]
    assert times(0, 3000, may_jump=False) == [0, 3000]
    assert times(0, 24 * HOUR + 1, may_jump=False) == [0, 0.5]


def test_a_picture_without_a_time_comes_a_period_after_the_one_before() -> None:
    assert times(None, None, 3, None, start=2) == [0, 0.5, 1, 1.5]
    assert times(0, 3, None, 6, period=0) == [0, 3, 6, 6]  # as the two before it
    assert times(None, None, period=0) == [0, 0.04]


def test_pictures_in_disorder_wait_for_the_latest() -> None:
    assert times(0, 1.5, 0.5, 1, 2) == [0, 1.5, 1.5, 1.5, 2]
    assert times(0, 0, 1, 1) == [0, 0, 1, 1]


def test_a_clock_that_began_again_a_little_before_is_noticed() -> None:
    back = [4.5 + k / 64 for k in range(20)]
    for reordered, waits in ((16, 16), (40, 16), (3, 5), (0, 2)):
        found = times(5, *back, period=1 / 64, reordered=reordered)
        assert found[: 1 + waits] == [0.0] * (1 + waits)
        assert found[1 + waits :] == [k / 64 for k in range(1, 21 - waits)]
    assert times(5, 5.5, 5.25, 5.375, 6, reordered=0) == [0, 0.5, 0.5, 0.5, 1]  # one was too late


def test_a_loop_goes_on_after_its_last_picture() -> None:
    timeline = begun(0.5, may_jump=False)
    found = []
    for _ in range(2):
        timeline.begin_again()
        found += [float(timeline.at(Fraction(it))) for it in (3, 4)]
    assert found == [0, 1, 1.5, 2.5]


def test_another_container_goes_on_after_the_last_picture_of_the_one_before() -> None:
    timeline = begun(0.5, may_jump=False)
    found = [timeline.at(Fraction(it)) for it in (3, 4)]
    timeline.begin(start=Fraction(0), period=Fraction(0), may_jump=True)
    found += [timeline.at(it) for it in (Fraction(900), Fraction(901), None)]
    assert found == [0, 1, 1.5, 2.5, 3.5]


@pytest.mark.parametrize("may_jump", [False, True])
@given(
    st.lists(st.none() | st.fractions(-(10**9), 10**9)), st.sampled_from([0, 1, Fraction(1, 30)])
)
def test_no_time_stamps_make_times_go_back_or_jump(
    may_jump: bool, stamps: list[Fraction | None], period: Fraction
) -> None:
    timeline = begun(period, may_jump=may_jump)
    found = [timeline.at(it) for it in stamps]
    assert found == sorted(found)
    longest = 10 if may_jump else 24 * HOUR
    assert all(b - a <= longest for a, b in itertools.pairwise(found))
    assert found[:1] in ([], [0])


STEPS = st.sampled_from([0, 1, 2, 3003, -1, -6006, 90_000, 900_000, 900_001, -(2**33), 10**12])


@pytest.mark.parametrize("may_jump", [False, True])
@given(
    st.lists(st.tuples(STEPS, st.sampled_from([0, 0, 0, 2]), st.integers(0, 19)), max_size=60),
    st.sampled_from([Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(7)]),
    st.sampled_from([0, Fraction(1, 30)]),
)
def test_times_in_nanoseconds_are_the_same_ones(
    may_jump: bool, steps: list[tuple[int, int, int]], tick: Fraction, period: Fraction
) -> None:
    quick, exact = (begun(period, may_jump=may_jump, start=3, reordered=1) for _ in range(2))
    ticks = 700
    for step, passed, kind in steps:
        ticks += step
        stamp = None if kind == 0 else ticks
        for timeline in (quick, exact):
            if kind == 1:
                timeline.begin_again()
            if kind == 2:
                timeline.begin(start=Fraction(1, 7), period=period, may_jump=may_jump)
        time = exact.at(None if stamp is None else stamp * tick, passed=passed)
        assert quick.at_ns(stamp, tick, passed=passed) == 10**9 * time.numerator // time.denominator
        if kind == 3:
            assert quick.last == exact.last == time
