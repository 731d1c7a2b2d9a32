"""The test pattern: which pixels it has, and what a person can read in it."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from flowrun.tasks.video.pattern import GLYPHS, Pattern, open_pattern
from flowrun.tasks.video.settings import VideoSettings


def pattern(**config: Any) -> Pattern:
    return open_pattern(VideoSettings(source_uri="test", **config))


def pictures(source: Pattern, count: int) -> list[bytes]:
    return [bytes(packet) for _, packet in zip(range(count), source.demux(None), strict=False)]


def unpacked(data: bytes) -> NDArray[np.uint8]:
    """By a decoder that is not ours, which checks all checksums."""
    return np.asarray(Image.open(io.BytesIO(data)))


def read(pixels: NDArray[np.uint8]) -> list[str]:
    """The lines of text in the picture, as a person reads them."""
    dot = max(1, min(pixels.shape[1] // 80, pixels.shape[0] // 60))
    band = pixels[-24 * dot :: dot, ::dot, 2] > 128
    lines = []
    for line in range(2):
        text, top = "", 5 + 9 * line
        for left in range(1, band.shape[1] - 5, 6):
            rows = tuple(
                int("".join(str(int(it)) for it in row), 2)
                for row in band[top : top + 7, left : left + 5]
            )
            text += next((letter for letter, glyph in GLYPHS.items() if glyph == rows), "")
        lines.append(text)
    return lines


@pytest.mark.parametrize(("width", "height"), [(640, 480), (81, 61), (240, 180), (160, 1080)])
def test_number_and_time_can_be_read(width: int, height: int) -> None:
    source = pattern(width=width, height=height, fps=12.5)
    made = [unpacked(data) for data in pictures(source, 14)]
    assert {it.shape for it in made} == {(height, width, 3)}
    assert read(made[0]) == ["000000", "00:00:00.000"]
    assert read(made[13]) == ["000013", "00:00:01.040"]
    source.seek(3_723_040_000)
    [late] = pictures(source, 1)
    assert read(unpacked(late)) == ["046538", "01:02:03.040"]


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 1), (33, 7), (16, 24), (4097, 3)])
def test_any_size_is_drawn(size: tuple[int, int]) -> None:
    width, height = size
    source = pattern(width=width, height=height)
    for number, data in enumerate(pictures(source, 3)):
        assert np.array_equal(unpacked(data), source.pixels(number))


def test_the_seed_decides_the_colours_and_nothing_else_does() -> None:
    assert pictures(pattern(seed=1), 5) == pictures(pattern(seed=1), 5)
    one, other = (unpacked(pictures(pattern(seed=it), 1)[0]) for it in (1, 2))
    assert not np.array_equal(one[:300], other[:300])
    assert np.array_equal(one[-192:], other[-192:])


def test_the_pattern_of_seed_0_stays_as_it_is() -> None:
    tile = unpacked(pictures(pattern(), 1)[0])[0, 0]
    assert tile.tolist() == [205, 7, 44]


def test_each_picture_differs_from_the_one_before() -> None:
    made = pictures(pattern(width=64, height=48), 200)
    assert all(one != other for one, other in itertools.pairwise(made))
