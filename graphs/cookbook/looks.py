"""Functions of cookbook graphs: one knows nothing of flowrun, the other takes and returns messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import FloatMsg, ImageRgb8Msg
from flowrun.runtime.task import task


def colors(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """The mean of red, green and blue."""
    red, green, blue = np.round(pixels.mean(axis=(0, 1)), 1).tolist()
    return {"red": red, "green": green, "blue": blue}


@task
def difference(left: ImageRgb8Msg, right: ImageRgb8Msg) -> FloatMsg:
    """How much two pictures differ: the mean over 64 x 48 points of brightness, 0 to 255."""
    first, second = (image.resized(64, 48).astype(np.int16) for image in (left, right))
    return FloatMsg(value=float(np.abs(first - second).mean()))
