"""Which frames are kept of which times."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.tasks.thinning import Thinning


def kept(max_fps: float, times: list[Fraction]) -> list[int]:
    thinning = Thinning(max_fps)
    return [at for at, time in enumerate(times) if thinning.keeps(time)]


@pytest.mark.parametrize(
    ("rate", "max_fps", "expected"),
    [
        (30, 30, range(90)),
        (30, 60, range(90)),
        (Fraction(30000, 1001), 30, range(90)),
        (30, 10, range(0, 90, 3)),
        (30, 0.5, [0, 60]),
        (25, 10, [0, 3, 5, 8, 10, 13, 15]),
        (10, 3, [0, 4, 7, 10, 14]),
    ],
)
def test_of_an_even_rate_every_nth(rate: Fraction, max_fps: float, expected: list[int]) -> None:
    exact = [Fraction(k) / rate for k in range(90)]
    rounded = [Fraction(round(time * 1000), 1000) for time in exact]  # as Matroska has them
    for times in (exact, rounded, [5000 + time for time in exact]):
        assert kept(max_fps, times)[: len(expected)] == list(expected)


def test_of_an_uneven_rate_by_time() -> None:
    slides = [Fraction(k) for k in (0, 3, 9, 10)]
    film = [10 + Fraction(k, 30) for k in range(1, 31)]
    assert kept(2, slides + film) == [0, 1, 2, 3, 18, 33]


def test_a_clock_that_jumps_loses_no_frame_for_long() -> None:
    steady = [Fraction(k, 10) for k in range(20)]
    for jump in (-100_000, -3, 100_000):
        times = steady + [2 + jump + time for time in steady]
        found = kept(5, times)
        assert found[:10] == list(range(0, 20, 2))
        assert found[10:] == list(range(20, 40, 2))


@given(
    max_fps=st.sampled_from([0.1, 1, 7, 12.5, 30]),
    times=st.lists(st.fractions(0, 20, max_denominator=90_000), max_size=60),
)
def test_frames_are_apart_and_no_time_is_without_one(max_fps: float, times: list[Fraction]) -> None:
    times.sort()
    found = [times[at] for at in kept(max_fps, times)]
    piece = 1 / Fraction(str(max_fps))
    zero = times[0] if times else Fraction(0)
    early = min(piece / 8, Fraction(5, 1000))

    def pieces(times: list[Fraction]) -> list[int]:
        return sorted({int((time - zero + early) / piece) for time in times})

    assert pieces(found) == pieces(times)
    assert len(pieces(found)) == len(found)
