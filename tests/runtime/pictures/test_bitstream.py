"""What is in packets, against bytes built by hand."""

from __future__ import annotations

import pytest

from flowrun.runtime.pictures.bitstream import begins, with_parameters

SPS, IDR, SLICE = b"\0\0\0\1\x67sps", b"\0\0\1\x65key", b"\0\0\1\x41delta"
HEVC_SPS, CRA, TRAIL = b"\0\0\0\1\x42\1sps", b"\0\0\1\x2a\1key", b"\0\0\1\x02\1delta"
# OBU headers: type << 3 | 2 (has a size); 1 sequence header, 2 temporal delimiter, 6 frame.
HEADER, DELIMITER, FRAME = b"\x0a\3seq", b"\x12\0", b"\x32\x81\1" + bytes(129)
AV1C = b"\x81\0\x0c\0"


@pytest.mark.parametrize(
    ("form", "data", "expected"),
    [
        ("h264", SPS + IDR, True),
        ("h264", SPS + SLICE, False),
        ("h265", HEVC_SPS + CRA, True),
        ("h265", TRAIL, False),
        ("vp9", b"any", True),
        ("h264", b"", False),
        ("h264", b"\0\0\1", False),
    ],
)
def test_a_decoder_begins_at_random_access_points_only(form, data, expected):
    assert begins(form, data) is expected


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
        ("vp9", b"key", b"extra", b"key"),
    ],
)
def test_parameters_come_before_a_key_frame_once(form, data, extradata, expected):
    assert bytes(with_parameters(form, memoryview(data), extradata)) == expected
