"""Decoding and converting: the same bytes in a run and from its log."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.convert import CONVERSION
from flowrun.runtime.pictures.video import (
    ContainerDecoder,
    LetGo,
    PacketDecoder,
    RgbConverter,
    described,
)
from support import independent_pictures
from support.films import draw
from support.packets import plain_decoder

PLAIN = plain_decoder("mpeg4", 48, 32)
FRAMES = 5


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "b.avi"
    return draw(path, codec="mpeg4", frames=FRAMES, size=(48, 32), bf="1", flags="+qpel")


@pytest.fixture
def packets(film: Path) -> list[bytes]:
    with av.open(str(film)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


class Taken:
    """Remembers the numbers and pixels of the pictures that come out."""

    def __init__(self, let_go: LetGo | None = None) -> None:
        self.numbers: list[int | None] = []
        self.means: list[float] = []
        self._let_go = let_go
        self._converter = RgbConverter()

    def __call__(self, number: int | None, picture: Any) -> LetGo | None:
        self.numbers.append(number)
        self.means.append(float(self._converter.rgb(picture).mean()))
        return self._let_go


# -- converting --------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [32, 33, 48])
def test_pixels_are_read_only_and_what_the_document_says(width: int) -> None:
    drawn = np.random.default_rng(0).integers(0, 255, (16, width, 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(drawn, format="rgb24").reformat(format="yuv444p")
    for version, of_document in enumerate(
        (independent_pictures.by_swscale, independent_pictures.rgb)
    ):
        pixels = RgbConverter(version).rgb(picture)
        assert np.array_equal(pixels, of_document(picture))
        assert not pixels.flags.writeable
    assert version == CONVERSION


# -- what a decoder must know ------------------------------------------------------------------

KNOWN = VideoDecoder("h264", b"", 48, 32, "yuv420p", "avc1", 24, 2, (1, 2))


def test_a_decoder_knows_what_was_described() -> None:
    for known in (KNOWN, PLAIN, replace(KNOWN, pixel_format="", tag="")):
        decoder = PacketDecoder(known)
        assert described(decoder._context, b"") == known
        assert decoder.reorder == known.reorder
    assert described(PacketDecoder(KNOWN)._context, b"other").extradata == b"other"
    given = PacketDecoder(replace(PLAIN, extradata=b"more"))._context
    assert given.extradata == b"more"


def test_a_tag_that_is_no_text_is_left_out() -> None:
    class Context:
        codec = SimpleNamespace(name="h264")
        width, height, pix_fmt = 48, 32, "yuv420p"
        bits_per_coded_sample, reorder_depth, colorspace, color_range = 24, 2, 1, 2

        @property
        def codec_tag(self) -> str:
            return b"\xff\xff\xff\xff".decode()

    assert described(Context(), b"") == replace(KNOWN, tag="")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"name": "none"}, "no decoder 'none' in this FFmpeg: "),
        ({"name": "aac"}, "no decoder 'aac' in this FFmpeg: it decodes audio"),
        ({"pixel_format": "none"}, "no decoder 'h264' in this FFmpeg: "),
        ({"tag": "long tag"}, "no decoder 'h264' in this FFmpeg: "),
        ({"width": 1 << 40}, "no decoder 'h264' in this FFmpeg: "),
        ({"reorder": 1 << 40}, "no decoder 'h264' in this FFmpeg: "),
    ],
)
def test_a_decoder_that_is_not_there_is_a_value_error(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        PacketDecoder(replace(KNOWN, **changed))


# -- decoding ----------------------------------------------------------------------------------


def test_pictures_have_the_numbers_of_their_packets(packets: list[bytes]) -> None:
    decoder, taken = PacketDecoder(PLAIN), Taken()
    given = []
    for number, data in enumerate(packets, 100):
        assert decoder.decode(number, memoryview(data), taken, is_key=True) is True
        given.append(len(taken.numbers))
    assert decoder.reorder == 1
    assert given == [0, 1, 2, 3, 4]
    assert decoder.drain(taken) is True
    assert sorted(taken.numbers) == list(range(100, 100 + FRAMES))
    assert taken.numbers != sorted(taken.numbers)
    for _ in range(2):  # drained before
        assert decoder.drain(taken) is True
        assert decoder.decode(9, packets[0], taken, is_key=True) is True
    assert len(taken.numbers) == FRAMES


def test_a_packet_that_is_refused_is_said(packets: list[bytes]) -> None:
    decoder, taken = PacketDecoder(PLAIN), Taken()
    assert decoder.decode(0, b"no packet", taken, is_key=True) is False
    assert decoder.decode(1, packets[0], taken, is_key=True) is True
    assert decoder.drain(taken) is True
    assert taken.numbers == [1]


def test_only_who_is_strict_refuses_half_a_jpeg(tmp_path: Path) -> None:
    film = draw(tmp_path / "one.avi", codec="mjpeg", frames=1, size=(48, 32))
    with av.open(str(film)) as container:
        context = container.streams.video[0].codec_context
        known = replace(described(context, b""), width=0, height=0)
        whole = bytes(next(container.demux(video=0)))
    half = whole[: len(whole) // 2] + b"\xff\xd9"
    for strict in (False, True):
        taken = Taken()
        decoder = PacketDecoder(known, strict=True) if strict else PacketDecoder(known)
        assert decoder.decode(0, half, taken, is_key=True) is not strict
        assert decoder.decode(1, whole, taken, is_key=True) is True
        assert taken.numbers == ([1] if strict else [0, 1])


def test_one_thread_decodes_what_the_log_decodes_again(film: Path) -> None:
    assert PacketDecoder(PLAIN)._context.thread_count == 1
    assert PacketDecoder(PLAIN, ahead=True)._context.thread_type.name == "AUTO"
    with av.open(str(film)) as container:
        context = container.streams.video[0].codec_context
        ContainerDecoder(context)
        assert context.thread_count == 1


def test_a_decoder_asks_for_its_memory_back_when_it_has_decoded_the_next_packet(
    packets: list[bytes],
) -> None:
    decoder, seen = PacketDecoder(PLAIN), list[str]()
    for number, data in enumerate(packets[:4]):
        taken = Taken(partial(seen.append, f"let go of {number}") if number != 2 else None)
        decoder.decode(number, data, taken, is_key=True)
        seen += [f"took with {number}"] * len(taken.numbers)
    assert seen == ["took with 1", "let go of 1", "took with 2", "took with 3"]


def test_a_containers_packets_are_decoded_as_they_are(film: Path, packets: list[bytes]) -> None:
    known = Taken()
    decoder = PacketDecoder(PLAIN)
    for number, data in enumerate(packets):
        decoder.decode(number, data, known, is_key=True)
    decoder.drain(known)
    taken = Taken()
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        ContainerDecoder(stream.codec_context)
        decoder = ContainerDecoder(stream.codec_context)
        for number, packet in enumerate(container.demux(stream)):
            if packet.size:
                assert decoder.decode(number, packet, taken, is_key=True) is True
            if number == 1:  # it is open, and may be taken over
                decoder = ContainerDecoder(stream.codec_context)
        decoder.drain(taken)
    assert (taken.numbers, taken.means) == (known.numbers, known.means)
