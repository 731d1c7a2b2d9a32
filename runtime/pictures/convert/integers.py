"""The arithmetic of converting and scaling, in NumPy. `kernel.c` computes the same bytes.

All values are of 16 bits; those of fewer are in the upper ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import scaling
from flowrun.msgs.scaling import Windows
from flowrun.runtime.pictures.convert.colors import Colors

__all__ = ["Samples", "copy_pixels", "scaled", "to_rgb"]

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


def scaled(plane: Samples, rows: Windows, columns: Windows) -> NDArray[np.uint16]:
    """The plane with other numbers of rows and columns."""
    return scaling.scaled(plane.rows, rows, columns)


def copy_pixels(pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Copy a view of pixels, in whichever order they lie, into `out`, contiguous, of the same shape."""
    np.copyto(out, pixels)
