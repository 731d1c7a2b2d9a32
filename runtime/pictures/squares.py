"""Pixels that are not square, made square: for viewers, which show all as squares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.pictures.convert import Planes, resized

__all__ = ["square_size", "squared"]

_WIDEST_ASPECT = 16
"""No camera has wider or narrower pixels: a file that says so is damaged."""
_LONGEST = 16384
"""Columns or rows that H.264 can have."""
_FULL = 2


def square_size(height: int, width: int, aspect: float) -> tuple[int, int]:
    """Height and width of the picture made of square pixels.

    One of the two becomes longer, or where that would be too long the other shorter, to an even
    length. They stay where pixels are square, or `aspect` is none that a camera has.

    aspect: width of a pixel divided by its height.
    """
    if aspect == 1 or not 1 / _WIDEST_ASPECT <= aspect <= _WIDEST_ASPECT:
        return height, width
    wide, high = _even(width * aspect), _even(height / aspect)
    if aspect > 1:
        return (height, wide) if wide <= _LONGEST else (high, width)
    return (high, width) if high <= _LONGEST else (height, wide)


def squared(pixels: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """RGB pixels (H, W, 3) as square ones, see `square_size`; the same array where they are."""
    height, width = pixels.shape[:2]
    new_height, new_width = square_size(height, width, aspect)
    if (new_height, new_width) == (height, width) or not pixels.size:
        return pixels
    rows = np.ascontiguousarray(pixels).reshape(height, 3 * width)
    return resized(Planes("rgb24", height, width, 0, _FULL, [rows]), new_width, new_height)


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))
