"""Pixels that are not square, made square."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.msgs.scaling import resized_pixels
from flowrun.runtime.pictures.squares import square_size, squared

LENGTHS = st.integers(1, 1000)


@given(LENGTHS, LENGTHS, st.floats(1 / 16, 16).filter(lambda aspect: aspect != 1))
def test_one_side_stays_and_the_other_fits_to_a_pixel(
    height: int, width: int, aspect: float
) -> None:
    high, wide = square_size(height, width, aspect)
    if aspect > 1:
        assert high == height
        assert abs(wide - max(2, width * aspect)) <= 1
    else:
        assert wide == width
        assert abs(high - max(2, height / aspect)) <= 1


@pytest.mark.parametrize(
    ("size", "aspect", "square"),
    [
        ((576, 720), 16 / 11, (576, 1048)),
        ((480, 720), 8 / 9, (540, 720)),
        ((1080, 1440), 4 / 3, (1080, 1920)),
        ((5, 7), 2.0, (5, 14)),
        ((100, 12000), 2.0, (50, 12000)),
    ],
)
def test_one_side_becomes_longer_to_an_even_length(
    size: tuple[int, int], aspect: float, square: tuple[int, int]
) -> None:
    assert square_size(*size, aspect) == square


@pytest.mark.parametrize("aspect", [1.0, 0.0, -1.5, 0.01, 17.0, math.inf, math.nan])
def test_pixels_stay_where_no_camera_has_such(aspect: float) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    assert square_size(4, 6, aspect) == (4, 6)
    assert squared(pixels, aspect) is pixels


def test_pixels_are_scaled_as_a_message_scales_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8)[:, ::-1]
    assert np.array_equal(squared(pixels, 1.5), resized_pixels(pixels, 24, 9))
    assert np.array_equal(squared(pixels, 0.5), resized_pixels(pixels, 16, 18))
    assert squared(pixels[:0], 2.0).shape == (0, 16, 3)
