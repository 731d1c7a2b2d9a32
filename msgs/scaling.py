"""The luma of RGB pixels, and pixels made smaller or larger: in integers, the same on every CPU.

What decoded pictures give of their planes is made by the same rules, so that a picture and its pixels
give nearly the same.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

__all__ = ["luma_of", "resized_pixels"]

_OF_LEVEL = np.array([77, 150, 29], np.uint16)
"""256ths of red, green and blue in luma."""
_PLACES = 14
"""Binary places of weights."""


def luma_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luma, uint8 (H, W), of pixels (H, W, 3): BT.601, from 0 to 255."""
    found: NDArray[np.uint16] = pixels @ _OF_LEVEL
    return ((found + np.uint16(128)) >> np.uint16(8)).astype(np.uint8)


def resized_pixels(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) as (height, width, 3): a new array.

    Made smaller, each one is the mean of those that it covers; made larger, it is in between its
    neighbours. `ValueError` where one of the sizes is below 1.
    """
    rows, columns = pixels.shape[:2]
    if min(rows, columns, width, height) < 1:
        raise ValueError(
            f"a picture of {columns}x{rows} pixels cannot be scaled to {width}x{height}"
        )
    if (rows, columns) == (height, width):
        return pixels.copy()
    values, firsts, weights = _shares(columns, width)
    made = np.empty((height, width, 3), np.uint8)
    row_values, row_firsts, row_weights = _shares(rows, height)
    ends = [*row_firsts[1:], len(row_values)]
    for at, (first, end) in enumerate(zip(row_firsts, ends, strict=True)):
        lines = pixels[row_values[first:end]].astype(np.uint32) << np.uint32(8)
        line = _settled(np.tensordot(row_weights[first:end], lines, axes=1))
        level = _settled(np.add.reduceat(line[values] * weights[:, None], firsts, axis=0))
        # As the conversion of planes rounds.
        made[at] = np.minimum((level >> np.uint32(3)) + np.uint32(17) >> np.uint32(5), 255)
    return made


@functools.lru_cache(64)
def _shares(length: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint32]]:
    """Which values of a line of `length` make each one of a line of `new`: their places, where those of
    each new value begin among them, and their weights, which sum to `1 << _PLACES`."""
    places: list[int] = []
    firsts: list[int] = []
    weights: list[int] = []
    for at in range(new):
        first, parts = _covered(at, length, new) if new < length else _between(at, length, new)
        firsts.append(len(places))
        places += range(first, first + len(parts))
        weights += _weights(parts)
    return np.array(places), np.array(firsts), np.array(weights, np.uint32)


def _covered(at: int, length: int, new: int) -> tuple[int, list[int]]:
    """The first value that a new one covers, and how much of each it does."""
    start, end = at * length, (at + 1) * length
    first = start // new
    covered = range(first, (end - 1) // new + 1)
    return first, [min(end, (it + 1) * new) - max(start, it * new) for it in covered]


def _between(at: int, length: int, new: int) -> tuple[int, list[int]]:
    """The value before the middle of a new one, and the shares of it and the next."""
    middle = min(max((2 * at + 1) * length - new, 0), (length - 1) * 2 * new)
    first, after = divmod(middle, 2 * new)
    return first, [2 * new - after, after] if after else [1]


def _weights(parts: list[int]) -> list[int]:
    """Integers in the proportions of `parts`: each sum from the left is rounded."""
    total, found, before, so_far = sum(parts), [], 0, 0
    for part in parts:
        so_far += part
        now = ((so_far << _PLACES) * 2 + total) // (2 * total)
        found.append(now - before)
        before = now
    return found


def _settled(sums: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return (sums + np.uint32(1 << _PLACES - 1)) >> np.uint32(_PLACES)
