"""What is in packets, against bytes built by hand."""

from __future__ import annotations

import av
import pytest
from av.bitstream import BitStreamFilterContext

from flowrun.runtime.pictures.bitstream import (
    begins,
    closes,
    holds_parameters,
    said_to_last,
    units_of,
    with_parameters,
    with_start_codes,
)
from support.films import draw

SPS, IDR, SLICE = b"\0\0\0\1\x67sps", b"\0\0\1\x65key", b"\0\0\1\x41delta"
SEI = b"\0\0\1\x06sei"
HEVC_SPS, CRA, TRAIL = b"\0\0\0\1\x42\1sps", b"\0\0\1\x2a\1key", b"\0\0\1\x02\1delta"
# OBU headers: type << 3 | 2 (has a size); 1 sequence header, 2 temporal delimiter, 6 frame.
HEADER, DELIMITER, FRAME = b"\x0a\3seq", b"\x12\0", b"\x32\x81\1" + bytes(129)
AV1C = b"\x81\0\x0c\0"


def hevc(kind: int) -> bytes:
    return b"\0\0\1" + bytes([kind << 1, 1]) + b"unit"


@pytest.mark.parametrize(
    ("form", "data", "expected"),
    [
        ("h264", SPS + IDR, True),
        ("h264", SPS + SLICE, False),
        ("h264", SEI + SLICE, False),
        ("h264", b"\0\0\1\x64part", False),  # type 4: a part of a slice
        ("h265", HEVC_SPS + CRA, True),
        ("h265", TRAIL, False),
        ("vp9", b"any", True),
        ("h264", b"", False),
        ("h264", b"\0\0\1", False),
        ("h264", b"\0\0\1\xe5", True),
        ("h264", b"\0\0\1" + IDR, True),  # after a unit of nothing
        *[("h264", b"\0\0\1" + bytes([kind]), kind == 5) for kind in range(3, 8)],
        *[("h265", hevc(kind), 16 <= kind <= 23) for kind in range(14, 26)],
        ("h265", b"\0\0\1" + hevc(20)[3:].replace(b"\x28", b"\xa8"), True),
        *[(form, SLICE, True) for form in ("av1", "vp8", "mjpeg")],
    ],
)
def test_a_decoder_begins_at_random_access_points_only(form, data, expected):
    assert begins(form, data) is expected


@pytest.mark.parametrize(
    ("form", "data", "expected"),
    [
        ("h264", SPS + IDR, True),
        ("h264", SPS + SLICE, False),
        ("h264", SEI + SLICE, False),
        *[("h264", b"\0\0\1" + bytes([kind]), kind == 5) for kind in range(3, 8)],
        *[("h265", hevc(kind), 16 <= kind <= 20) for kind in range(14, 24)],
        ("av1", DELIMITER + HEADER + FRAME, True),
        ("av1", DELIMITER + FRAME, False),
        ("vp8", b"\x10\0\0\x9d\x01\x2asize", True),
        ("vp8", b"\x11\0\0\x9d\x01\x2asize", False),  # its first bit says that it is none
        ("vp8", b"\x10\0\0\x9d\x01\x2bsize", False),
        ("vp8", b"", False),
        ("vp9", b"", False),
        *[(form, b"any", True) for form in ("mjpeg", "png", "jpeg2000", "prores", "dnxhd")],
        *[(form, b"any", True) for form in ("dvvideo", "rawvideo")],
        *[
            (form, data, False)
            for form in ("a", "mpeg4", "zz")  # of others, it is not known
            for data in (SPS + IDR, HEADER, b"\x80\0\0\x9d\x01\x2asize")
        ],
        ("av1", b"\x8a\3seq", True),  # a bit that decoders do not look at
        ("av1", b"\x36\0\3any" + HEADER, True),  # an OBU with an extension
        ("av1", b"\x36", False),
        ("av1", b"\x32", False),
        ("av1", b"\x32" + 7 * b"\x80" + b"\0" + HEADER, True),  # a size of 8 bytes
        ("av1", b"\x32" + 8 * b"\x80" + HEADER, True),
        ("av1", b"\x32\x80\1" + bytes(128) + HEADER, True),
        ("av1", b"\x32\xff\1" + bytes(255) + HEADER, True),
        ("av1", b"\x32\x80\x80\1" + bytes(1 << 14) + HEADER, True),
        ("av1", b"\x30" + HEADER, False),  # without a size
        ("av1", b"\x31" + HEADER, False),
        ("av1", b"\x33\0" + HEADER, True),  # the last bit means nothing
    ],
)
def test_what_closes_all_before_it(form, data, expected):
    assert closes(form, memoryview(data)) is expected


def test_vp9_says_in_its_first_byte_what_closes_all_before_it():
    """The frame marker 2, a profile of 2 bits, 0 for no frame that is shown again, 0 for a key."""
    keys = {*range(0x80, 0x84), *range(0x90, 0x94), *range(0xA0, 0xA4)}
    assert {head for head in range(256) if closes("vp9", bytes([head, 0x84]))} == keys


@pytest.mark.parametrize(
    ("form", "data", "extradata", "expected"),
    [
        ("h264", IDR, SPS, SPS + IDR),
        ("h264", SPS + IDR, SPS, SPS + IDR),
        ("h264", IDR, b"", IDR),
        ("h264", IDR, b"\1avcC", IDR),  # of packets with lengths: not what ours are
        ("h265", CRA, HEVC_SPS, HEVC_SPS + CRA),
        ("h265", HEVC_SPS + CRA, HEVC_SPS, HEVC_SPS + CRA),
        ("av1", FRAME, AV1C + HEADER, HEADER + FRAME),
        ("av1", DELIMITER + HEADER + FRAME, AV1C + HEADER, DELIMITER + HEADER + FRAME),
        ("av1", FRAME + HEADER, AV1C + HEADER, FRAME + HEADER),  # after a size of two bytes
        ("av1", b"\x30rest", AV1C + HEADER, HEADER + b"\x30rest"),  # without a size
        ("av1", b"\x32\xff", AV1C + HEADER, HEADER + b"\x32\xff"),  # cut off
        ("av1", FRAME, b"\x80\0\x0c\0" + HEADER, FRAME),
        ("av1", FRAME, AV1C, FRAME),
        ("h264", IDR, SPS[1:], SPS[1:] + IDR),
        ("vp9", b"key", b"extra", b"key"),
    ],
)
def test_parameters_come_before_a_key_frame_once(form, data, extradata, expected):
    assert bytes(with_parameters(form, memoryview(data), extradata)) == expected


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_the_parameter_sets_of_an_mp4_are_those_of_its_filtered_key_frames(tmp_path, codec):
    name = {"libx264": "h264", "libx265": "hevc"}[codec]
    film = draw(
        tmp_path / "film.mp4", codec=codec, frames=2, **{"x265-params": "log-level=none:bframes=0"}
    )
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        extradata = stream.codec_context.extradata
        convert = BitStreamFilterContext(f"{name}_mp4toannexb", stream)
        (first,) = convert.filter(next(container.demux(stream)))
    form = {"hevc": "h265"}.get(name, name)
    found = with_start_codes(form, extradata)
    assert found
    units = found.split(b"\x00\x00\x00\x01")[1:]
    assert len(units) >= 2
    assert all(unit in bytes(first) for unit in units)
    assert closes(form, bytes(first))


START, LONG = b"\0\0\0\1", bytes(range(256)) + b"sps"
AVCC = b"\1abc\xff\xe2\1\3" + LONG + b"\0\1t" + b"\1\0\3pps"
HVCC = (
    bytes(22) + b"\3" + b"\xa0\0\1\1\3" + LONG + b"\xa1\1\2" + 258 * b"\0\1t" + b"\xa2\0\1\0\3pps"
)


@pytest.mark.parametrize(
    ("form", "extradata", "units"),
    [("h264", AVCC, [LONG, b"t", b"pps"]), ("h265", HVCC, [LONG, *258 * [b"t"], b"pps"])],
)
def test_the_parameter_sets_of_an_mp4_are_all_or_none(form, extradata, units):
    expected = b"".join(START + unit for unit in units)
    assert with_start_codes(form, extradata) == expected
    assert with_start_codes(form, extradata + b"more") == expected
    for length in [*range(40), *range(len(extradata) - 40, len(extradata))]:
        assert with_start_codes(form, extradata[:length]) == b""


@pytest.mark.parametrize(
    ("form", "data", "expected"),
    [
        ("h264", SEI + SPS + IDR, True),
        ("h264", SEI + IDR, False),
        ("h265", HEVC_SPS + CRA, True),
        ("h265", CRA, False),
        *[("h265", hevc(kind), kind == 33) for kind in (32, 33, 34)],
        ("av1", DELIMITER + HEADER, True),
        ("av1", DELIMITER + FRAME, False),
        ("vp9", SPS + HEADER, False),
        ("mpeg4", SPS + HEADER, False),
    ],
)
def test_which_packets_say_what_pictures_have_in_common(form, data, expected):
    assert holds_parameters(form, memoryview(data)) is expected


PPS = b"\0\0\1\x68pps"


def sei(kind: int, content: bytes) -> bytes:
    return b"\0\0\1\x06" + bytes([kind, len(content)]) + content + b"\x80"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\1\x09\xf0" + SLICE, b""),
        (SPS + PPS + IDR, b"\x67sps\0\0\1\x68pps"),
        (IDR + SLICE + b"\0\0\1\x0c\xff\x80", b""),
        (PPS + SLICE, b"\x68pps"),
        (b"\0\0\1\x6dmore" + SLICE, b"\x6dmore"),  # type 13: more of the parameters
        (sei(1, b"time") + sei(6, b"\xc0") + SLICE, b""),
        (sei(5, bytes(16) + b"14:05:09.3") + SLICE, b""),
        (sei(5, bytes(16) + b"x264 - core 99") + SLICE, None),
        (sei(47, b"\x80\1\2") + SLICE, None),
        (
            sei(4, b"captions")[:-1] + sei(47, b"\x80\1\2")[4:] + SLICE,
            None,
        ),  # one unit, two messages
        (sei(47, b"\x80\1\2")[:-3] + SLICE, b""),  # cut off
    ],
)
def test_what_a_packet_says_of_later_ones(data, said):
    found = said_to_last("h264", data, units_of("h264", data))
    expected = data[3 : data.index(SLICE)] if said is None else said
    assert found == expected


def test_of_other_forms_that_is_not_known():
    assert said_to_last("h265", HEVC_SPS + CRA, units_of("h265", HEVC_SPS + CRA)) is None
    assert said_to_last("av1", HEADER + FRAME, units_of("av1", HEADER + FRAME)) is None
