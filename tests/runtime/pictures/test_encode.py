"""Pictures for viewers, looked at by other decoders."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.pictures import encode
from flowrun.runtime.pictures.bitstream import closes, holds_parameters
from flowrun.runtime.pictures.encode import StreamEncoder, jpeg, jpeg_of, yuv_frame
from flowrun.runtime.pictures.planar import Layout, PlanarPicture, kept

BT709, NARROW = 1, 1


def grey(level: int, height: int = 32, width: int = 48) -> Any:
    return np.full((height, width, 3), level, np.uint8)


def test_a_jpeg_shows_the_picture() -> None:
    pixels = grey(90)
    pixels[:, :24, 0] = 200
    for given in (pixels, pixels[:, ::-1]):
        shown = np.asarray(Image.open(io.BytesIO(jpeg(given, quality=95))))
        assert shown.shape == given.shape
        assert np.abs(shown.astype(int) - given).mean() < 4
    noise = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    assert len(jpeg(noise, quality=30)) < len(jpeg(noise, quality=90))


@pytest.mark.parametrize("turbo", [True, False])
@pytest.mark.parametrize(("height", "width"), [(32, 48), (31, 47), (1, 1)])
@pytest.mark.parametrize("space", [1, 2, 5])
@pytest.mark.parametrize("span", [1, 2])
def test_a_jpeg_of_a_video_has_the_colours_of_its_pixels(
    monkeypatch: pytest.MonkeyPatch, turbo: bool, height: int, width: int, space: int, span: int
) -> None:
    if not turbo:
        monkeypatch.setattr(encode, "_turbo", lambda: None)
    for color in [(255, 255, 255), (0, 0, 0), (200, 30, 60), (20, 90, 220), (128, 128, 128)]:
        image = ImageRgb8Msg()
        image.show(one_colour(color, height, width, space, span))
        image.publish()
        data = jpeg_of(image.view(), quality=95)
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.size == (width, height)
            seen = np.asarray(opened.convert("RGB")).astype(int)
        assert np.abs(seen - image.view().pixels).max() <= 3
        assert np.abs(seen - color).max() <= 4
        if color in ((255, 255, 255), (0, 0, 0)):
            assert (seen == color).all()


def one_colour(
    color: tuple[int, int, int], height: int, width: int, space: int, span: int
) -> PlanarPicture:
    """A video's picture of one colour. space, span: FFmpeg's numbers of its colour space and range."""
    kr, kb = (0.2126, 0.0722) if space == 1 else (0.299, 0.114)
    red, green, blue = (level / 255 for level in color)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    u, v = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    levels = 255 * luma, 128 + 255 * u, 128 + 255 * v
    if span == 1:
        levels = 16 + 219 * luma, 128 + 224 * u, 128 + 224 * v
    layout = Layout("yuv420p", height, width, space, span)
    sizes = [rows * length for rows, length in layout.planes]
    values = np.clip(np.round(levels), 0, 255).astype(np.uint8)
    return PlanarPicture(layout, np.repeat(values, sizes))


def test_a_jpeg_of_a_videos_own_colours_needs_no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    monkeypatch.setattr(PlanarPicture, "_converted", None)
    image = ImageRgb8Msg()
    frame: Any = av.VideoFrame(16, 16, "yuvj420p")
    image.show(kept(frame))  # type: ignore[arg-type]
    assert Image.open(io.BytesIO(jpeg_of(image, quality=80))).size == (16, 16)


def test_yuv_is_that_of_hd_television() -> None:
    """ITU-R BT.709, narrow range: red is 63, 102, 240."""
    red = grey(0)
    red[..., 0] = 255
    luma, *chroma = yuv_frame(red).to_ndarray().reshape(3 * 16, 48)[[0, 33, 41], 0].tolist()
    assert (luma, *chroma) == pytest.approx((63, 102, 240), abs=1)
    assert [yuv_frame(grey(level)).to_ndarray()[0, 0] for level in (0, 255)] == pytest.approx(
        [16, 235], abs=1
    )


def decoded(packets: list[bytes]) -> tuple[Any, list[Any]]:
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    made = []
    for data in packets:
        packet = av.Packet(len(data))
        packet.update(data)
        made += decoder.decode(packet)
    return decoder, [*made, *decoder.decode(None)]


def test_a_stream_says_its_colours_and_gives_one_picture_a_packet() -> None:
    encoder = StreamEncoder()
    levels = [20, 120, 220]
    decoder, made = decoded([encoder.encode(grey(level)) for level in levels])
    assert [round(it.to_ndarray(format="rgb24").mean()) for it in made] == pytest.approx(
        levels, abs=3
    )
    assert {(int(it.colorspace), int(it.color_range)) for it in made} == {(BT709, NARROW)}
    assert (int(decoder.color_primaries), int(decoder.color_trc)) == (BT709, BT709)
    assert (decoder.pix_fmt, decoder.has_b_frames) == ("yuv420p", False)
    assert decoder.framerate == 30


def test_a_viewer_can_begin_at_every_thirtieth_picture() -> None:
    encoder = StreamEncoder()
    packets = [encoder.encode(grey(40)) for _ in range(62)]
    keys = [k for k, data in enumerate(packets) if closes("h264", data)]
    assert keys == [0, 30, 60]
    assert [k for k, data in enumerate(packets) if holds_parameters("h264", data)] == keys
    assert b" crf=18.0 " in packets[0]  # x264 says how it was asked


def test_a_picture_of_another_size_begins_a_stream() -> None:
    encoder = StreamEncoder()
    sizes = [(32, 48), (32, 48), (32, 64), (48, 64), (48, 64), (32, 48), (32, 16)]
    packets = [encoder.encode(grey(40, *size)) for size in sizes]
    assert [closes("h264", data) for data in packets] == [
        *(True, False, True, True, False, True, True)
    ]
    assert [(it.height, it.width) for data in packets[::3] for it in decoded([data])[1]] == sizes[
        ::3
    ]
