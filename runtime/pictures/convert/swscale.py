"""The conversion of logs that were written before `"convert"` was in their pictures' maps."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["swscale_rgb"]

_FLAGS = 0x2 | 0x40000 | 0x80000
"""Bilinear, accurate rounding, bit exact: the same bytes on every CPU."""
_of_thread = threading.local()


def swscale_rgb(decoded: Any) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of an `av.VideoFrame`, by FFmpeg's swscale. `ValueError` where its colours
    cannot be converted."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter = getattr(_of_thread, "reformatter", None)
    if reformatter is None:
        reformatter = _of_thread.reformatter = VideoReformatter()
    try:
        made = reformatter.reformat(decoded, format="rgb24", interpolation=_FLAGS, threads=1)
    except (av.error.FFmpegError, OverflowError) as error:
        raise ValueError(f"its colours cannot be converted: {error}") from error
    pixels: Any = made.to_ndarray()
    return cast("NDArray[np.uint8]", pixels)
