"""zstd and FFV1: what is no packed picture gives no pixels."""

from __future__ import annotations

import re

import numpy as np
import pytest
import zstandard

from flowrun.runtime.pictures.lossless import LOSSLESS, MOST_PIXELS, packer, unpack

PIXELS = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)


@pytest.mark.parametrize("codec", LOSSLESS)
def test_pictures_of_changing_size_come_back(codec: str) -> None:
    pack = packer(codec)
    for pixels in (PIXELS, PIXELS[:, ::-1][:, :4].copy(), PIXELS):
        found = unpack(codec, memoryview(pack(pixels)), *pixels.shape[:2])
        assert found.shape == (pixels.size,)
        assert found.tobytes() == pixels.tobytes()


@pytest.mark.parametrize("codec", LOSSLESS)
@pytest.mark.parametrize("size", [(1, MOST_PIXELS + 1), (1 << 14, (1 << 14) + 1)])
def test_a_picture_larger_than_the_format_allows_is_refused(
    codec: str, size: tuple[int, int]
) -> None:
    height, width = size
    text = f"^{height} x {width} pixels; expected at most 268435456$"
    with pytest.raises(ValueError, match=text):
        unpack(codec, memoryview(b""), height, width)
    with pytest.raises(ValueError, match=f"^{codec}: "):  # the largest that it allows
        unpack(codec, memoryview(b"\0\0\0\0"), 1 << 14, 1 << 14)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (zstandard.compress(bytes(104)), "expected 105 bytes"),
        (zstandard.compress(bytes(106)), "expected 105 bytes"),
        (zstandard.compress(bytes(105))[:-1], "decompression error: did not decompress full frame"),
        (b"no zstd", "error when determining content size"),
    ],
)
def test_zstd_gives_as_many_bytes_as_the_picture_has(data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=f"^zstd: {text}$"):
        unpack("zstd", memoryview(data), 5, 7)


def test_ffv1_without_a_picture_is_refused() -> None:
    whole = packer("ffv1")(PIXELS)
    front = 4 + int.from_bytes(whole[:4], "little")
    with pytest.raises(ValueError, match=re.escape("ffv1: [Errno 541478725] End of file")):
        unpack("ffv1", memoryview(whole[:front]), 5, 7)
    with pytest.raises(ValueError, match=re.escape("ffv1: [Errno 1094995529] Invalid data found")):
        unpack("ffv1", memoryview(whole[: front + 9]), 5, 7)
    longer = whole[:3] + b"\1" + whole[4:]  # as if all the rest came before the packet
    with pytest.raises(ValueError, match="^ffv1: "):
        unpack("ffv1", memoryview(longer), 5, 7)


def test_ffv1_packs_each_picture_alone() -> None:
    pack = packer("ffv1")
    assert pack(PIXELS) == pack(PIXELS) == packer("ffv1")(PIXELS)
