"""How a picture is put into another size."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flowrun.msgs.image import ImageRgb8Msg

__all__ = ["Color", "Fit", "fitted"]

Fit = Literal["stretch", "letterbox", "cover"]
"""stretch: all of the picture, distorted if need be; letterbox: all of it, undistorted, with bars beside
it; cover: undistorted, cut at its edges."""

_Level = Annotated[int, Field(ge=0, le=255)]
Color = tuple[_Level, _Level, _Level]
"""Red, green and blue, from 0 to 255."""


def fitted(
    image: ImageRgb8Msg, width: int, height: int, fit: Fit, *, color: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """The picture as uint8 (height, width, 3), a new array.

    With letterbox and cover, pixels that are not square become so.

    color: of the bars.
    """
    if fit == "stretch":
        return image.resized(width, height)
    wide = image.width * image.pixel_aspect
    by_width, by_height = width / wide, height / image.height
    scale = min(by_width, by_height) if fit == "letterbox" else max(by_width, by_height)
    inner_width, inner_height = max(round(wide * scale), 1), max(round(image.height * scale), 1)
    if fit == "letterbox":
        inner_width, inner_height = min(inner_width, width), min(inner_height, height)
        made = np.empty((height, width, 3), np.uint8)
        made[...] = color
        left, top = (width - inner_width) // 2, (height - inner_height) // 2
        made[top : top + inner_height, left : left + inner_width] = image.resized(
            inner_width, inner_height
        )
        return made
    inner_width, inner_height = max(inner_width, width), max(inner_height, height)
    left, top = (inner_width - width) // 2, (inner_height - height) // 2
    inner = image.resized(inner_width, inner_height)
    return np.ascontiguousarray(inner[top : top + height, left : left + width])
