"""Pictures encoded for viewers: as a JPEG each, or as a stream of H.264.

Colours of H.264 are BT.709 in the narrow range, and the stream says so: without it each player
guesses them by the size.
"""

from __future__ import annotations

import functools
import io
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.pictures.convert import planes420
from flowrun.runtime.pictures.planar import PlanarPicture
from flowrun.runtime.pictures.squares import square_size, squared

__all__ = ["CRF", "StreamEncoder", "jpeg", "jpeg_of", "say_colors", "yuv_frame"]

CRF = 18
"""x264's measure of quality; hardly distinguishable from the original."""
_KEY_EVERY = 30
"""Pictures between key frames, at which a viewer can begin."""
_BT709 = 1
_MPEG_RANGE = 1


def jpeg(pixels: NDArray[np.uint8], *, quality: int) -> bytes:
    """A JPEG file of RGB pixels (height, width, 3). quality: from 1 to 100."""
    turbo = _turbo()
    if turbo is not None:
        pixels = np.ascontiguousarray(pixels)
        found: bytes = turbo.encode_jpeg(pixels, quality=quality, colorsubsampling="420")
        return found
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def jpeg_of(image: ImageRgb8Msg, *, quality: int) -> bytes:
    """A JPEG file of the picture of `image`, of square pixels; without pixels in between where its
    planes have a JPEG's pattern and colours. quality: from 1 to 100."""
    picture, turbo = image.picture, _turbo()
    size = image.height, image.width
    if square_size(*size, image.pixel_aspect) != size:
        return jpeg(squared(image.pixels, image.pixel_aspect), quality=quality)
    # Of an odd size libjpeg-turbo wants one more row or column of luma, and reads it without asking.
    is_even = not (image.height | image.width) & 1
    if isinstance(picture, PlanarPicture) and turbo is not None and is_even:
        planes = planes420(picture.planes)
        if planes is not None:
            found: bytes = turbo.encode_jpeg_yuv_planes(*planes, quality=quality)
            return found
    return jpeg(image.pixels, quality=quality)


@functools.cache
def _turbo() -> Any:
    """libjpeg-turbo, three quarters of Pillow's time and from planes half; None on a machine for which
    it is not built."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def say_colors(context: Any) -> None:
    """Have the encoder `context` write how the colours of `yuv_frame` are meant."""
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _MPEG_RANGE


def yuv_frame(pixels: NDArray[np.uint8]) -> Any:
    """RGB pixels of even height and width as an `av.VideoFrame` in yuv420p."""
    import av

    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_MPEG_RANGE)


class StreamEncoder:
    """Pictures as H.264 packets with start codes, one a picture, in order: without B-frames, the
    parameter sets before each key frame."""

    def __init__(self) -> None:
        self._context: Any = None

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """The packet of the next picture, RGB pixels of even height and width. A picture of another
        size begins a stream of its own."""
        height, width = pixels.shape[:2]
        context = self._context
        if context is None or (context.height, context.width) != (height, width):
            self._context = context = _context(height, width)
        return b"".join(map(bytes, context.encode(yuv_frame(pixels))))


def _context(height: int, width: int) -> Any:
    import av

    context: Any = av.CodecContext.create("libx264", "w")
    context.height, context.width, context.pix_fmt = height, width, "yuv420p"
    # x264 spends its bits by the number of pictures, not by their times, with a constant rate factor.
    context.framerate = Fraction(30)
    context.gop_size = _KEY_EVERY
    context.options = {"crf": str(CRF), "preset": "veryfast", "tune": "zerolatency"}
    say_colors(context)
    return context
