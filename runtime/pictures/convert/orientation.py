"""Which way up a picture is shown, by EXIF's numbers: 1 as it is, 2 to 8 turned or mirrored.

FFmpeg says it by a matrix, that of the container, of the stream or of a JPEG's EXIF: 9 numbers of 32
bits, of which the first, second, fourth and fifth say where a picture's axes lie when it is shown.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "UPRIGHT",
    "Noted",
    "matrix_of",
    "matrix_orientation",
    "orientation_of",
    "shown_shape",
    "swaps_axes",
    "turned",
]

UPRIGHT = 1
_ONE, _LAST_ONE = 1 << 16, 1 << 30
_AXES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
"""Of each orientation: where a step to the right goes, to the right and down; and where a step down."""
_ORIENTATIONS = {axes: orientation for orientation, axes in _AXES.items()}
_TURNED = {90: 8, -90: 6, 180: 3, -180: 3}
"""By the degrees that PyAV says."""
_MATRIX = struct.Struct("<9i")

Values = TypeVar("Values", bound=NDArray[Any])


@dataclass(frozen=True, slots=True)
class Noted:
    """What a decoder notes in the `opaque` of a picture."""

    orientation: int


def orientation_of(decoded: Any) -> int:
    """How an `av.VideoFrame` is to be shown: what its decoder noted, otherwise what it says itself."""
    noted = decoded.opaque
    if isinstance(noted, Noted):
        return noted.orientation
    return _TURNED.get(decoded.rotation, UPRIGHT)


def matrix_orientation(decoded: Any) -> int:
    """How the matrix of an `av.VideoFrame` says that it is to be shown; at another angle, the nearest.

    PyAV makes a cycle of references then: the picture's memory is not free at once. It does not know
    all kinds of side data, as a WebP's EXIF; a mirrored picture is then taken for a turned one.
    """
    try:
        matrix = decoded.side_data.get("DISPLAYMATRIX")
    except ValueError:
        return _TURNED.get(decoded.rotation, UPRIGHT)
    if matrix is None or matrix.buffer_size < _MATRIX.size:
        return UPRIGHT
    a, b, _, c, d, *_ = _MATRIX.unpack_from(matrix)
    if abs(b) + abs(c) > abs(a) + abs(d):
        a = d = 0
    else:
        b = c = 0
    return _ORIENTATIONS.get((_sign(a), _sign(b), _sign(c), _sign(d)), UPRIGHT)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def matrix_of(orientation: int) -> bytes:
    """The matrix, as FFmpeg has it."""
    a, b, c, d = (_ONE * it for it in _AXES[orientation])
    return _MATRIX.pack(a, b, 0, c, d, 0, 0, 0, _LAST_ONE)


def swaps_axes(orientation: int) -> bool:
    """Whether rows become columns."""
    return orientation > 4


def shown_shape(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width, as they are shown, of what lies in `height` rows and `width` columns."""
    return (width, height) if swaps_axes(orientation) else (height, width)


def turned(values: Values, orientation: int) -> Values:
    """A view of `values`, (rows, columns, ...), as they are shown."""
    right_x, right_y, down_x, down_y = _AXES[orientation]
    shown: Any = values
    if swaps_axes(orientation):
        shown = np.swapaxes(values, 0, 1)
    if right_y < 0 or down_y < 0:
        shown = shown[::-1]
    if right_x < 0 or down_x < 0:
        shown = shown[:, ::-1]
    found: Values = shown
    return found
