"""Luma of pixels, and pixels of another size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.msgs import ImageRgb8Msg
from flowrun.msgs.scaling import luma_of, resized_pixels, scaled, windows
from flowrun.runtime.pictures.convert import Planes, luma, resized

LENGTHS = st.integers(1, 40)


@given(LENGTHS, LENGTHS, LENGTHS, LENGTHS, st.integers(0, 1000))
def test_pixels_give_what_their_planes_give(
    rows: int, columns: int, height: int, width: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    planes = Planes("rgb24", rows, columns, 0, 2, [pixels.reshape(rows, -1)])
    assert np.array_equal(resized_pixels(pixels, width, height), resized(planes, width, height))
    assert np.array_equal(luma_of(pixels), luma(planes))


@given(LENGTHS, LENGTHS, st.integers(0, 255))
def test_one_colour_stays_it(height: int, width: int, level: int) -> None:
    pixels = np.full((7, 5, 3), level, np.uint8)
    assert (resized_pixels(pixels, width, height) == level).all()
    assert (luma_of(pixels) == level).all()


def test_made_smaller_each_pixel_is_the_mean_of_its_own() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (12, 20, 3), np.uint8)
    means = pixels.reshape(6, 2, 5, 4, 3).mean(axis=(1, 3))
    assert np.abs(resized_pixels(pixels, 5, 6) - means).max() <= 1


@given(LENGTHS, LENGTHS)
def test_what_rises_evenly_does_so_at_the_middles_of_the_new(length: int, new: int) -> None:
    rising = np.arange(length, dtype=np.uint16)[None] * np.uint16(1000)
    across, down = windows(length, new), windows(1, 1)
    found = scaled(lambda first, end: rising[first:end], down, across)[0].astype(float)
    middles = (np.arange(new) + 0.5) * length / new - 0.5
    half = (across.size - 1) / 2
    wanted = 1000 * np.clip(middles, half, length - 1 - half)
    assert np.abs(found - wanted).max() <= 12
    assert abs(across.size - length / new) <= 0.5 or across.size == 1


def test_the_highest_value_stays_it() -> None:
    """Rounding up would make black of it."""
    white = np.full((50, 70), 65535, np.uint16)
    for height, width in ((1, 1), (7, 9), (17, 23), (49, 69), (60, 80)):
        found = scaled(lambda first, end: white[first:end], windows(50, height), windows(70, width))
        assert found.min() >= 65535 - 32


def test_an_image_gives_new_arrays() -> None:
    image = ImageRgb8Msg(pixels=np.full((4, 6, 3), [250, 120, 10], np.uint8))
    assert image.luma.tolist() == np.full((4, 6), 147).tolist()
    for found in (image.luma, image.resized(3, 2), image.resized(6, 4)):
        found[...] = 0
    assert image.resized(3, 2).shape == (2, 3, 3)
    assert image.pixels.min() == 10


@pytest.mark.parametrize(("width", "height"), [(0, 4), (4, 0), (-1, 4)])
def test_a_size_below_1_is_refused(width: int, height: int) -> None:
    text = f"a picture of 6x4 pixels cannot be scaled to {width}x{height}"
    with pytest.raises(ValueError, match=f"^{text}$"):
        ImageRgb8Msg(pixels=np.zeros((4, 6, 3), np.uint8)).resized(width, height)
    with pytest.raises(ValueError, match="^a picture of 0x0 pixels cannot be scaled to 2x2$"):
        ImageRgb8Msg().resized(2, 2)
