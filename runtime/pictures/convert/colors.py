"""What the values of a picture mean: its colour matrix and range, as integers.

Results have 5 binary places: 16 bits then hold all sums, also of colours that no camera sees. A
product is cut off, not rounded: with three of them a result is at most 0.6 of a level from the true one.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import NamedTuple

__all__ = ["GBR", "Colors", "colors_of"]

GBR = 0
"""FFmpeg's number of the colour space whose planes are green, blue and red."""
_FULL = 2
"""FFmpeg's number of the range from 0 to the highest value."""
_YCGCO = 8
_UNSPECIFIED = 5
"""What is taken where a picture does not say its colour space, or one that is not here: BT.601, as
FFmpeg and OpenCV do at every size."""
_KR_KB = {
    1: ("0.2126", "0.0722"),  # BT.709
    4: ("0.30", "0.11"),  # FCC
    5: ("0.299", "0.114"),  # BT.601
    6: ("0.299", "0.114"),  # SMPTE 170M
    7: ("0.212", "0.087"),  # SMPTE 240M
    9: ("0.2627", "0.0593"),  # BT.2020
    10: ("0.2627", "0.0593"),  # BT.2020 of constant luminance, which nobody sends
}
"""The shares of red and blue in luma, by FFmpeg's number of the colour space."""

_PLACES = 5
_ONE = 1 << _PLACES << 16
_BLACK = 16 << 8


class Colors(NamedTuple):
    """How values of 16 bits become levels with 5 binary places.

    Of a product the upper 16 bits count. The second and third value are taken from their middle.

    is_rgb: whether the values are red, green and blue, and not luma and colour.
    luma: what the first value is multiplied by; of RGB, each.
    chroma: what the second and the third are multiplied by for red, for green and for blue.
    bias: what is added at last, for red, green and blue; with what rounds the level.
    """

    is_rgb: bool
    luma: int
    chroma: tuple[int, int, int, int, int, int]
    bias: tuple[int, int, int]


@functools.lru_cache(64)
def colors_of(space: int, span: int, *, bits: int, is_rgb: bool) -> Colors:
    """Those of values of this number of bits, which are the upper ones of 16.

    space, span: FFmpeg's numbers of the colour space and range.
    """
    highest = ((1 << bits) - 1) << (16 - bits)
    is_full = span == _FULL
    luma = _rounded(Fraction(255 * _ONE, highest if is_full else 219 << 8))
    unit = Fraction(255 * _ONE, highest if is_full else 224 << 8)
    black = 0 if is_full else _BLACK
    # Half a level, and half of what the product loses.
    bias = _rounded(Fraction(1 << _PLACES, 2) + Fraction(1, 2) - Fraction(black * luma, 1 << 16))
    red_u, red_v, green_u, green_v, blue_u, blue_v = (
        _rounded(it * unit) for it in (() if is_rgb else _matrix(space)) or [Fraction(0)] * 6
    )
    chroma = red_u, red_v, green_u, green_v, blue_u, blue_v
    return Colors(is_rgb, luma, chroma, (bias, bias, bias))


def _matrix(space: int) -> list[Fraction]:
    if space == _YCGCO:
        return [Fraction(it) for it in (-1, 1, 1, 0, -1, -1)]
    red, blue = map(Fraction, _KR_KB.get(space, _KR_KB[_UNSPECIFIED]))
    green = 1 - red - blue
    from_v, from_u = 2 * (1 - red), 2 * (1 - blue)
    return [
        Fraction(0),
        from_v,
        -from_u * blue / green,
        -from_v * red / green,
        from_u,
        Fraction(0),
    ]


def _rounded(value: Fraction) -> int:
    return int(value + Fraction(1, 2)) if value >= 0 else -int(Fraction(1, 2) - value)
