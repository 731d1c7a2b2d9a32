"""The arithmetic of converting and scaling, in NumPy. `kernel.c` computes the same bytes.

All values are of 16 bits; those of fewer are in the upper ones.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.pictures.convert.colors import Colors

__all__ = ["Samples", "Shares", "copy_pixels", "scaled", "shares", "to_rgb"]

WEIGHTS = 14
"""Binary places of the weights of a scaled value."""
_ROWS = 32
"""Rows converted at once, so that what is in between stays in the processor's cache."""
_PLACES = 5


@dataclass(frozen=True, slots=True)
class Samples:
    """One value of each pixel, or of each few: luma, or one of the colours.

    values: (rows, columns), uint8 or uint16, a view of the picture's own memory.
    shift: how far they are from the upper end of 16 bits.
    across, down: one value is for `1 << across` columns and `1 << down` rows of the picture.
    """

    values: NDArray[Any]
    shift: int
    across: int = 0
    down: int = 0

    def rows(self, first: int, end: int) -> NDArray[np.uint16]:
        return self.values[first:end].astype(np.uint16) << np.uint16(self.shift)


def to_rgb(
    planes: tuple[Samples, Samples, Samples], colors: Colors, out: NDArray[np.uint8]
) -> None:
    """Fill `out`, (height, width, 3), contiguous, with the levels of red, green and blue."""
    height = len(out)
    first, second, third = planes
    rows = _ROWS << second.down
    for row in range(0, height, rows):
        end = min(row + rows, height)
        luma = _product(first.rows(row, end), colors.luma)
        below, above = row >> second.down, (end - 1 >> second.down) + 1
        if colors.is_rgb:
            levels = [
                luma,
                _product(second.rows(below, above), colors.luma),
                _product(third.rows(below, above), colors.luma),
            ]
        else:
            u = _centred(second.rows(below, above))
            v = _centred(third.rows(below, above))
            by = colors.chroma
            levels = [
                luma + _spread(_product(u, by[at]) + _product(v, by[at + 1]), second, luma.shape)
                for at in (0, 2, 4)
            ]
        for at, (level, bias) in enumerate(zip(levels, colors.bias, strict=True)):
            np.clip((level + np.int16(bias)) >> _PLACES, 0, 255, out=level)
            out[row:end, :, at] = level


def _product(values: NDArray[Any], by: int) -> NDArray[np.int16]:
    """The upper 16 bits of each product."""
    wide = np.uint32 if values.dtype == np.uint16 else np.int32
    found: NDArray[np.int16] = (values.astype(wide) * wide(by) >> wide(16)).astype(np.int16)
    return found


def _centred(values: NDArray[np.uint16]) -> NDArray[np.int16]:
    return (values ^ np.uint16(0x8000)).view(np.int16)


def _spread(values: NDArray[np.int16], like: Samples, shape: tuple[int, ...]) -> NDArray[np.int16]:
    """Each value for the columns and rows that it stands for."""
    if like.across:
        values = np.repeat(values, 1 << like.across, axis=1)
    if like.down:
        values = np.repeat(values, 1 << like.down, axis=0)
    return values[: shape[0], : shape[1]]


class Shares(NamedTuple):
    """Which values of a line make each one of the new line.

    places: int32 of shape (new length, 3): the first value, how many, where their weights begin.
    weights: uint16; those of one new value sum to `1 << WEIGHTS`.
    """

    places: NDArray[np.int32]
    weights: NDArray[np.uint16]


@functools.lru_cache(64)
def shares(length: int, new: int) -> Shares:
    """How a line of `length` values becomes one of `new`.

    Made shorter: each value is the mean of those that it covers, parts of values included. Made longer:
    in between its two neighbours.
    """
    places: list[tuple[int, int, int]] = []
    weights: list[int] = []
    for at in range(new):
        first, parts = _covered(at, length, new) if new < length else _between(at, length, new)
        places.append((first, len(parts), len(weights)))
        weights += _weights(parts)
    return Shares(np.array(places, np.int32), np.array(weights, np.uint16))


def _covered(at: int, length: int, new: int) -> tuple[int, list[int]]:
    """The first value covered by a new one, and how much of each is."""
    start, end = at * length, (at + 1) * length
    first = start // new
    covered = range(first, (end - 1) // new + 1)
    return first, [min(end, (it + 1) * new) - max(start, it * new) for it in covered]


def _between(at: int, length: int, new: int) -> tuple[int, list[int]]:
    """The value before the middle of a new one, and the shares of it and the next."""
    twice_new = 2 * new
    middle = min(max((2 * at + 1) * length - new, 0), (length - 1) * twice_new)
    first, after = divmod(middle, twice_new)
    return first, [twice_new - after, after] if after else [1]


def _weights(parts: list[int]) -> list[int]:
    """Integers in the proportions of `parts`: each sum from the left is rounded."""
    total, found, before, so_far = sum(parts), [], 0, 0
    for part in parts:
        so_far += part
        now = ((so_far << WEIGHTS) * 2 + total) // (2 * total)
        found.append(now - before)
        before = now
    return found


def scaled(plane: Samples, rows: Shares, columns: Shares) -> NDArray[np.uint16]:
    """The plane with as many rows and columns as the shares are of."""
    made = np.empty((len(rows.places), len(columns.places)), np.uint16)
    begins = columns.places[:, 2]
    of_weight = np.concatenate(
        [np.arange(first, first + count) for first, count, _ in columns.places.tolist()]
    )
    for at, (first, count, begin) in enumerate(rows.places.tolist()):
        values = plane.rows(first, first + count).astype(np.uint32)
        line = _settled(rows.weights[begin : begin + count].astype(np.uint32) @ values)
        made[at] = _settled(np.add.reduceat(line[of_weight] * columns.weights, begins))
    return made


def _settled(sums: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return (sums + np.uint32(1 << WEIGHTS - 1)) >> np.uint32(WEIGHTS)


def copy_pixels(pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Copy a view of pixels, in whichever order they lie, into `out`, contiguous, of the same shape."""
    np.copyto(out, pixels)
