"""Texts as pixels, for pictures that people look at."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["label_patch"]


@functools.lru_cache(maxsize=256)
def label_patch(text: str, color: tuple[int, int, int], size_px: int) -> NDArray[np.uint8]:
    """`text` on a patch of `color`: uint8 (height, width, 3), not to be written to."""
    from PIL import Image, ImageDraw, ImageFont

    font: Any = ImageFont.load_default(size_px)
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics()
    margin = max(2, size_px // 5)
    patch = Image.new("RGB", (math.ceil(right - left) + 2 * margin, ascent + descent + 2), color)
    red, green, blue = color
    dark = 0.299 * red + 0.587 * green + 0.114 * blue > 140  # of the patch's luma (BT.601)
    ImageDraw.Draw(patch).text(
        (margin - left, 1), text, (0, 0, 0) if dark else (255, 255, 255), font
    )
    return np.asarray(patch)
