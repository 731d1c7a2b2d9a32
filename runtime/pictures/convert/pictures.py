"""What can be had of a decoded picture: its pixels, its luma, it made smaller.

A value of colour counts for all pixels that it stands for: that is what FFmpeg's quick conversion and
OpenCV give, with which models were trained, and what the sender's positions of colours, which few files
say rightly, change least.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.scaling import windows
from flowrun.runtime.pictures.convert import kernel
from flowrun.runtime.pictures.convert.integers import Samples
from flowrun.runtime.pictures.convert.kernel import Recipe, to_rgb_at
from flowrun.runtime.pictures.convert.orientation import UPRIGHT, swaps_axes, turned
from flowrun.runtime.pictures.convert.planes import Planes

__all__ = [
    "CONVERSION",
    "Planes420",
    "Recipe",
    "luma",
    "planes420",
    "recipe",
    "resized",
    "rgb",
    "to_rgb_at",
]

CONVERSION = 1
"""This conversion, as a stored picture's map says; 0 is swscale's, which older logs have."""
_JPEG = (2, 5, 6)
"""FFmpeg's numbers of the colour spaces that are the JPEG's: BT.601, also where none is said."""
_FULL = 2
_OF_LEVEL = np.array([77, 150, 29], np.uint16)
"""256ths of red, green and blue in luma."""

Decoded = Any
"""An `av.VideoFrame`, or its `Planes`."""


class Planes420(NamedTuple):
    """What a JPEG is made of: luma, and colours half as high and as wide, all from 0 to 255."""

    y: NDArray[np.uint8]
    u: NDArray[np.uint8]
    v: NDArray[np.uint8]


def rgb(picture: Decoded, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The pixels as they are shown, uint8 (height, width, 3), within one level of what exact arithmetic
    gives.

    picture: an `av.VideoFrame`, or its `Planes`.
    out: filled and returned, if given; of that shape, contiguous.

    Raises `ValueError` where the picture's colours cannot be converted.
    """
    planes = _planes(picture)
    return _shown(_lying(planes, planes.height, planes.width, planes.samples, out), planes, out)


def recipe(planes: Planes) -> Recipe | None:
    """What makes the pixels of all pictures whose planes lie as these do, by `to_rgb_at`; None where
    only `rgb` does.

    Raises `ValueError` as `rgb`.
    """
    if planes.orientation != UPRIGHT:
        return None
    return kernel.recipe(planes.samples, planes.data, planes.colors)


def _lying(
    planes: Planes,
    height: int,
    width: int,
    samples: tuple[Samples, Samples, Samples],
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """The pixels as they lie in memory."""
    if out is None or planes.orientation != UPRIGHT:
        out = np.empty((height, width, 3), np.uint8)
    if out.size:
        kernel.to_rgb(samples, planes.colors, out)
    return out


def _shown(
    pixels: NDArray[np.uint8], planes: Planes, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The pixels as they are shown, contiguous."""
    if planes.orientation == UPRIGHT:
        return pixels
    found = turned(pixels, planes.orientation)
    if out is None:
        out = np.empty(found.shape, np.uint8)
    kernel.copy_pixels(found, out)
    return out


def luma(picture: Decoded) -> NDArray[np.uint8]:
    """The luma, uint8 (height, width): as the picture has it, so from 16 to 235 where that is its range;
    the upper 8 bits of those that have more. Of RGB it is computed.

    Raises `ValueError` as `rgb`.
    """
    planes = _planes(picture)
    if not planes.is_luma:
        return _luma_of(rgb(planes))
    samples = planes.samples[0]
    values = turned(samples.values, planes.orientation)
    if values.dtype == np.uint8:
        return values.copy(order="C")
    return (values << samples.shift >> 8).astype(np.uint8, order="C")


def _luma_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return ((pixels @ _OF_LEVEL + np.uint16(128)) >> np.uint16(8)).astype(np.uint8)


def resized(picture: Decoded, width: int, height: int) -> NDArray[np.uint8]:
    """The picture as uint8 (height, width, 3), scaled before it is converted.

    Made smaller, each pixel is the mean of those around it; made larger, it is in between its
    neighbours.

    Raises `ValueError` where the picture's colours cannot be converted, or one of the sizes is 0.
    """
    planes = _planes(picture)
    if (height, width) == planes.shape:
        return rgb(planes)
    if min(width, height, planes.width, planes.height) < 1:
        raise ValueError(
            f"a picture of {planes.width}x{planes.height} pixels cannot be scaled to {width}x{height}"
        )
    if swaps_axes(planes.orientation):
        width, height = height, width
    first, second, third = (
        Samples(
            kernel.scaled(
                plane,
                windows(plane.values.shape[0], height),
                windows(plane.values.shape[1], width),
            ),
            0,
        )
        for plane in planes.samples
    )
    return _shown(_lying(planes, height, width, (first, second, third)), planes)


def planes420(picture: Decoded) -> Planes420 | None:
    """What a JPEG of the picture is made of, without RGB in between; None where it has to be converted,
    as its colours are others than a JPEG's, or lie in another pattern."""
    planes = _planes(picture)
    is_odd = (planes.height | planes.width) & 1 and planes.orientation != UPRIGHT
    if not planes.is_planar420 or planes.space not in _JPEG or is_odd:
        return None
    y, u, v = (turned(it.values, planes.orientation).copy(order="C") for it in planes.samples)
    if planes.format == "yuvj420p" or planes.span == _FULL:
        return Planes420(y, u, v)
    return Planes420(_stretched(y, 219), _stretched(u, 224), _stretched(v, 224))


def _stretched(values: NDArray[np.uint8], span: int) -> NDArray[np.uint8]:
    """Values from 16 to 16 + `span`, made to reach from 0 to 255; off by one at most."""
    level = np.minimum(np.maximum(values, 16) - np.uint8(16), np.uint8(span))
    more = level.astype(np.uint16)
    more *= ((255 - span) * 1024 + span // 2) // span
    more += 512
    more >>= 10
    return level + more.astype(np.uint8)


def _planes(picture: Decoded) -> Planes:
    return picture if isinstance(picture, Planes) else Planes.of(picture)
