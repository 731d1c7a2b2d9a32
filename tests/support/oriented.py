"""Films whose pictures lie in every way that a camera may send them, and say so."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from flowrun.runtime.pictures.convert import matrix_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMATS = {"mjpeg": "yuvj420p", "png": "rgb24"}
COLOURS = ((220, 40, 40), (40, 190, 60), (40, 60, 220), (230, 210, 50))
"""Red, green, blue and yellow: of the quarters of a picture as it is stored, row by row."""


def quarters(width: int, height: int) -> NDArray[np.uint8]:
    """A picture of four colours, none of which lies where another one lies when it is turned."""
    pixels = np.empty((height, width, 3), np.uint8)
    for number, colour in enumerate(COLOURS):
        row, column = divmod(number, 2)
        pixels[
            row * height // 2 : (row + 1) * height // 2,
            column * width // 2 : (column + 1) * width // 2,
        ] = colour
    return pixels


def film(
    path: Path,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (320, 192),
    orientation: int = 1,
    aspect: Fraction = Fraction(1),
    frames: int = 20,
    **options: str,
) -> Path:
    """A film of `quarters`, 10 pictures a second.

    orientation: EXIF's number of how the picture lies, 1 to 8, said by the container.
    aspect: the width of a pixel, its height being 1.
    """
    width, height = size
    picture = quarters(width, height)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = _FORMATS.get(codec, "yuv420p")
        stream.gop_size = 5
        stream.codec_context.sample_aspect_ratio = aspect
        if codec.startswith("libvpx"):
            stream.thread_count = 1  # on a busy machine its threads may wait for ever
        if orientation != 1:
            stream.set_display_matrix(struct.unpack("<9i", matrix_of(orientation)))
        for number in range(frames):
            picture[:8, : 8 + 8 * number % width] = 255  # so that it moves
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
