"""A picture file -> pixels, as somebody hands it over."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["pixels_of_file"]


def pixels_of_file(data: bytes, *, most: int) -> NDArray[np.uint8]:
    """The first picture of a file (JPEG, PNG, WebP, BMP, ...): uint8 of shape (height, width, 3), RGB,
    upright. Where it is transparent it is black.

    most: pixels that it may have.

    Raises `ValueError` for what is no picture, for one that is damaged, and for one that is too large,
    of which nothing was decoded.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > most:
                raise ValueError(f"the picture has {width} x {height} pixels; at most {most:,}")
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                black = Image.new("RGBA", upright.size, "black")
                upright = Image.alpha_composite(black, upright.convert("RGBA"))
            return np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError(
            "not a picture file that is known: JPEG, PNG, WebP, BMP, TIFF or GIF"
        ) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture file is damaged: {error}") from None
