"""The codecs zstd and ffv1: the pixels of one picture as fewer bytes, and the same pixels back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOSSLESS", "MOST_PIXELS", "packer", "unpack"]

MOST_PIXELS = 1 << 28
"""The format's limit."""


def packer(codec: str) -> Callable[[NDArray[np.uint8]], bytes]:
    """Packs the pixels (H, W, 3) of one picture after the other. codec: one of `LOSSLESS`."""
    return _PACKERS[codec]()


def unpack(codec: str, data: memoryview, height: int, width: int) -> NDArray[np.uint8]:
    """The pixels, flat. `ValueError` where `data` does not give that many.

    codec: one of `LOSSLESS`.
    """
    if height * width > MOST_PIXELS:
        raise ValueError(f"{height} x {width} pixels; expected at most {MOST_PIXELS}")
    return _UNPACKERS[codec](data, height, width)


def _zstd() -> Callable[[NDArray[np.uint8]], bytes]:
    import zstandard

    # Level 1 without long matches: a cycle waits for it.
    compressor = zstandard.ZstdCompressor(level=1)
    return lambda pixels: compressor.compress(pixels.data.cast("B"))


def _unzstd(data: memoryview, height: int, width: int) -> NDArray[np.uint8]:
    import zstandard

    size = height * width * 3
    try:
        # It allocates what the frame says, whatever limit it is given.
        if zstandard.frame_content_size(data) != size:
            raise ValueError(f"zstd: expected {size} bytes")
        content = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise ValueError(f"zstd: {error}") from error
    return np.frombuffer(content, np.uint8)


def _ffv1(pixels: NDArray[np.uint8]) -> bytes:
    import av

    height, width = pixels.shape[:2]
    # A context a picture: each then begins with the state that its decoder begins with.
    context: Any = av.CodecContext.create("ffv1", "w")
    context.width, context.height, context.pix_fmt = width, height, "bgr0"
    context.thread_count = 1
    context.options = {"level": "3", "slicecrc": "0", "coder": "range_def"}
    picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
    packets = [*context.encode(picture), *context.encode(None)]
    extradata = context.extradata or b""
    return len(extradata).to_bytes(4, "little") + extradata + b"".join(map(bytes, packets))


def _unffv1(data: memoryview, height: int, width: int) -> NDArray[np.uint8]:
    import av

    length = int.from_bytes(data[:4], "little")
    context: Any = av.CodecContext.create("ffv1", "r")
    context.extradata = bytes(data[4 : 4 + length])
    context.width, context.height, context.pix_fmt = width, height, "bgr0"
    context.thread_count = 1
    content = data[4 + length :]
    packet = av.Packet(len(content))  # not `Packet(content)`, which has no zeros after it
    packet.update(bytes(content))
    try:
        made: list[Any] = [*context.decode(packet), *context.decode(None)]
    except av.error.FFmpegError as error:
        raise ValueError(f"ffv1: {error}") from error
    [picture] = made
    rgb: NDArray[np.uint8] = picture.reformat(format="rgb24").to_ndarray()
    return rgb.ravel()


_PACKERS: dict[str, Callable[[], Callable[[NDArray[np.uint8]], bytes]]]
_PACKERS = {"zstd": _zstd, "ffv1": lambda: _ffv1}
_UNPACKERS = {"zstd": _unzstd, "ffv1": _unffv1}
LOSSLESS = tuple(_UNPACKERS)
"""Names of the codecs."""
