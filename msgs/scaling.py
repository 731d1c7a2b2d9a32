"""The luma of RGB pixels, and pictures made smaller or larger: in integers, the same on every CPU.

What decoded pictures give of their planes is made by the same rules, so that a picture and its pixels
give nearly the same.

A new value is the mean of the values around its middle, as many as fit best between it and the next
one; where the middle is in between, it is between that mean and the one which begins a value later.
Made larger, a mean is one value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Windows", "luma_of", "resized_pixels", "scaled", "windows"]

_OF_LEVEL = np.array([77, 150, 29], np.uint16)
"""256ths of red, green and blue in luma."""
_FEW = 4
"""Windows up to this wide are divided before their columns are added, which 16 bits then hold."""


def luma_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luma, uint8 (H, W), of pixels (H, W, 3): BT.601, from 0 to 255."""
    found: NDArray[np.uint16] = pixels @ _OF_LEVEL
    return ((found + np.uint16(128)) >> np.uint16(8)).astype(np.uint8)


def resized_pixels(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) as (height, width, 3): a new array.

    Made smaller, each one is the mean of those around it; made larger, it is in between its
    neighbours. `ValueError` where one of the sizes is below 1.
    """
    rows, columns = pixels.shape[:2]
    if min(rows, columns, width, height) < 1:
        raise ValueError(
            f"a picture of {columns}x{rows} pixels cannot be scaled to {width}x{height}"
        )
    if (rows, columns) == (height, width):
        return pixels.copy()

    def lines(first: int, end: int) -> NDArray[np.uint16]:
        return pixels[first:end].astype(np.uint16) << np.uint16(8)

    levels = scaled(lines, windows(rows, height), windows(columns, width)).astype(np.uint32)
    # As the conversion of planes rounds.
    made: NDArray[np.uint8] = np.minimum((levels + 136) >> 8, 255).astype(np.uint8)
    return made


class Windows(NamedTuple):
    """How a line of values becomes one of another length.

    size: of how many values the mean is taken.
    firsts: int32; of each new value, the first of them.
    shares: uint16; how much of the mean which begins one value later, in 256ths, times 256.
    """

    size: int
    firsts: NDArray[np.int32]
    shares: NDArray[np.uint16]


@functools.lru_cache(64)
def windows(length: int, new: int) -> Windows:
    """How a line of `length` values becomes one of `new`."""
    size = max((2 * length + new) // (2 * new), 1)
    steps = 2 * new
    middles = (2 * np.arange(new, dtype=np.int64) + 1) * length
    starts = np.clip(middles - size * new, 0, (length - size) * steps)
    firsts, shares = np.divmod((starts * 512 + steps) // (2 * steps), 256)
    return Windows(size, firsts.astype(np.int32), (shares << 8).astype(np.uint16))


class Divided(NamedTuple):
    """How the sum over a window of rows and columns becomes a mean within 16 bits.

    down, across: how far sums over rows, and then over columns, are shifted down.
    more: how much is added then, in 65536ths.
    """

    down: int
    across: int
    more: int


def divided(rows: Windows, columns: Windows) -> Divided:
    """For windows of these sizes."""
    values = rows.size * columns.size
    down, both = (rows.size - 1).bit_length(), (values - 1).bit_length()
    if columns.size <= _FEW:
        down = both
    return Divided(down, both - down, ((1 << both) - values << 16) // values)


def scaled(
    lines: Callable[[int, int], NDArray[np.uint16]], rows: Windows, columns: Windows
) -> NDArray[np.uint16]:
    """Values of 16 bits (rows, columns, ...) in the new size.

    lines: gives the rows from one on to before another one.
    """
    made = []
    by = divided(rows, columns)
    later = columns.firsts + (columns.shares > 0)
    shares: NDArray[np.uint32] | None = None
    for first, share in zip(rows.firsts.tolist(), rows.shares.tolist(), strict=True):
        part = lines(first, first + rows.size + (share > 0)).astype(np.uint32)
        line = part[0] * np.uint32(256 - (share >> 8)) + part[-1] * np.uint32(share >> 8)
        line = (line >> np.uint32(8)) + part[1 : rows.size].sum(axis=0, dtype=np.uint32)
        line >>= np.uint32(by.down)
        so_far = np.zeros((len(line) + 1, *line.shape[1:]), np.uint32)
        np.cumsum(line, axis=0, out=so_far[1:])
        sums = so_far[columns.size :] - so_far[: -columns.size]
        sums >>= np.uint32(by.across)
        if shares is None:
            shares = columns.shares.astype(np.uint32).reshape(-1, *[1] * (line.ndim - 1))
        one, other = sums[columns.firsts], sums[later]
        level = one - _part(one, shares) + _part(other, shares)
        made.append(level + _part(level, np.uint32(by.more)))
    return np.stack(made).astype(np.uint16)


def _part(values: NDArray[np.uint32], share: NDArray[np.uint32] | np.uint32) -> NDArray[np.uint32]:
    """Each value times `share` 65536ths, rounded down."""
    found: NDArray[np.uint32] = values * share >> np.uint32(16)
    return found
