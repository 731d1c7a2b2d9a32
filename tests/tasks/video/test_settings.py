"""What a graph file may say of a video source."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flowrun.tasks.video.settings import MaxAge, VideoSettings, exact_rate


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("a.mp4", "file"),
        ("a/0", "file"),
        ("dev/video2", "file"),
        ("file:///a.mp4", "file"),
        ("rtsp://host/cam", "rtsp"),
        ("RTSPS://host/cam", "rtsp"),
        ("rtsp", "file"),
        ("http://host/a.m3u8", "url"),
        ("https://host/?to=rtsp://b", "url"),
        ("/dev/video2", "v4l2"),
        ("v4l2://1", "v4l2"),
        ("0", "v4l2"),
    ],
)
def test_the_source_type_is_inferred(uri: str, kind: str) -> None:
    assert VideoSettings(source_uri=uri).kind == kind


def test_the_source_type_that_is_given_counts() -> None:
    assert VideoSettings(source_uri="0", source_type="file").kind == "file"


def wrong(**config: Any) -> list[tuple[str, str]]:
    """The keys that are refused, and why."""
    with pytest.raises(ValidationError) as caught:
        VideoSettings(**config)
    return [
        (str(it["loc"][0]), it["msg"].removeprefix("Value error, ")) for it in caught.value.errors()
    ]


ADDRESSES = {
    "a film": "a.mp4",
    "a camera": "rtsp://host/cam",
    "an address": "http://host/a.mp4",
    "a device": "0",
    "a screen": "screen",
    "a pattern": "test",
}
TAKEN = {
    "width": ("a device", "a screen", "a pattern"),
    "fps": ("a device", "a screen", "a pattern", "a film"),
    "fourcc": ("a device",),
    "seed": ("a pattern",),
    "loop": ("a film", "an address"),
    "start_s": ("a film", "an address"),
    "poll_s": ("an address",),
    "options": ("a film", "a camera", "an address", "a device", "a screen"),
    "stream": ("a film", "a camera", "an address", "a device", "a screen"),
    "realtime": tuple(ADDRESSES),
    "max_fps": tuple(ADDRESSES),
}
GIVEN: dict[str, dict[str, Any]] = {
    "width": {"width": 64, "height": 48},
    "fourcc": {"fourcc": "mjpg"},
    "options": {"options": {"probesize": 5000}},
    "realtime": {"realtime": True},
    "loop": {"loop": True},
}


@pytest.mark.parametrize("key", TAKEN)
@pytest.mark.parametrize("source", ADDRESSES)
def test_a_key_of_another_kind_of_source_is_refused_at_its_own_place(key: str, source: str) -> None:
    config = {"source_uri": ADDRESSES[source], **GIVEN.get(key, {key: 3})}
    if source in TAKEN[key]:
        assert VideoSettings(**config).model_dump(exclude_unset=True) == config
    else:
        assert key in [name for name, _ in wrong(**config)]


def test_what_is_refused_is_said() -> None:
    assert wrong(source_uri="a.mp4", width=64, height=48, fourcc="MJPG") == [
        ("width", "only for a device, a screen or the test pattern; the source is a file"),
        ("height", "only for a device, a screen or the test pattern; the source is a file"),
        ("fourcc", "only for a device (v4l2); the source is a file"),
    ]
    assert wrong(source_uri="rtsp://host", loop=True) == [
        ("loop", "only for a file; the source is an RTSP camera")
    ]
    both = "give both width and height, or neither"
    assert wrong(source_uri=0, width=640) == [("width", both)]
    assert wrong(source_uri=0, height=480) == [("height", both)]
    assert wrong(source_uri="-", start_s=1) == [
        ("start_s", "only for a file; standard input can be read once")
    ]
    assert wrong(source_uri="udp://host:1", poll_s=1) == [
        ("poll_s", "only for a picture at an http address; the source is an address")
    ]
    assert wrong(source_uri="http://host/a.jpg", poll_s=1, loop=True) == [
        ("poll_s", "only for a live picture, which has no loop and no start_s")
    ]
    assert wrong(source_uri=0, fourcc="XVID") == [
        (
            "fourcc",
            "unknown format 'XVID'; formats: MJPG, H264, HEVC, YUYV, UYVY, YU12, NV12, GREY, RGB3, BGR3",
        )
    ]


def test_a_device_is_asked_in_ffmpegs_words() -> None:
    assert VideoSettings(source_uri=0, fourcc="yuyv").input_format == "yuyv422"
    assert VideoSettings(source_uri=0).input_format is None


def test_options_are_texts_for_ffmpeg_and_those_with_secrets_are_hidden() -> None:
    given = {"probesize": 5000, "http_seekable": False, "headers": "Authorization: Bearer abc"}
    config = VideoSettings(source_uri="http://host/a.mp4", options=given)
    assert config.ffmpeg_options == {
        "probesize": "5000",
        "http_seekable": "0",
        "headers": "Authorization: Bearer abc",
    }
    assert "abc" not in repr(config)
    assert "abc" not in config.model_dump_json()
    assert VideoSettings.model_validate(dict(config)) == config


@pytest.mark.parametrize(
    "config",
    [
        {"source_uri": "0", "width": 640, "height": 480},
        {"source_uri": "0", "fps": 30},
        {"source_uri": "0", "width": 640, "height": 480, "fps": 30},
        {"source_uri": "a.mp4", "realtime": True, "loop": True, "start_s": 1.5},
        {"source_uri": "http://host/a.mp4", "realtime": True, "loop": True, "start_s": 1.5},
        {"source_type": "test"},
        {"source_type": "screen", "fps": 5},
    ],
)
def test_settings_of_its_own_kind_are_taken(config: dict[str, Any]) -> None:
    assert VideoSettings(**config).model_dump(exclude_unset=True) == config


@pytest.mark.parametrize(
    "config",
    [{"width": 0, "height": 480}, {"width": 640, "height": 0}, {"timeout_s": 0}],
)
def test_what_is_asked_of_a_device_is_positive(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        VideoSettings(source_uri="0", **config)


@pytest.mark.parametrize("number", [0, -1, 1e-9, 2e9, math.inf, math.nan])
@pytest.mark.parametrize("key", ["fps", "max_fps", "poll_s"])
def test_a_rate_is_one_that_something_can_have(key: str, number: float) -> None:
    with pytest.raises(ValidationError, match="than or equal to"):
        VideoSettings(source_uri="http://a/b" if key == "poll_s" else "0", **{key: number})


@pytest.mark.parametrize(
    "config",
    [
        {"start_s": 1e308},
        {"start_s": math.inf},
        {"start_s": math.nan},
        {"timeout_s": math.inf},
        {"policy": {"max_age_ms": 1e308}},
        {"policy": {"max_age_ms": math.inf}},
        {"reconnect": {"delay_s": math.inf}},
        {"reconnect": {"max_delay_s": math.nan}},
    ],
)
def test_no_time_is_infinite(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="less than or equal to"):
        VideoSettings(source_uri="http://a/b", **config)


def test_no_picture_is_larger_than_one_that_can_be_made() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 16384"):
        VideoSettings(source_uri="test", width=1_000_000, height=1)


@given(st.floats(1e-6, 1e6))
def test_every_rate_is_one_that_ffmpeg_counts_in_32_bits(number: float) -> None:
    rate = exact_rate(number)
    assert 0 < rate.numerator < 1 << 31
    assert 0 < rate.denominator < 1 << 31
    assert float(rate) == pytest.approx(number, rel=0.5, abs=0)
    if number >= 1:
        assert float(rate) == pytest.approx(number, rel=1e-3)


@pytest.mark.parametrize(
    ("number", "rate"),
    [
        (25, Fraction(25)),
        (29.97, Fraction(2997, 100)),
        (30000 / 1001, Fraction(30000, 1001)),
        (1 / 3, Fraction(1, 3)),
        (0.1, Fraction(1, 10)),
        (1 / 86400, Fraction(1, 86400)),
    ],
)
def test_a_rate_is_the_one_that_was_written(number: float, rate: Fraction) -> None:
    assert exact_rate(number) == rate


def test_a_start_before_the_beginning_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        VideoSettings(source_uri="a.mp4", start_s=-0.1)


def test_a_policy_has_a_buffer_or_is_one_frame() -> None:
    made = VideoSettings(source_uri="a.mp4", policy={"max_age_ms": 500}, buffer=8)
    assert made.policy == MaxAge(max_age_ms=500)
    with pytest.raises(ValidationError) as caught:
        VideoSettings(source_uri="a.mp4", policy="latest", buffer=8)
    assert "only for policy every_frame and max_age_ms: latest holds one frame" in str(caught.value)


@pytest.mark.parametrize("decode", ["keyframes", "asked"])
def test_a_device_decodes_all_pictures_or_none(decode: str) -> None:
    assert wrong(source_uri="a.mp4", decode=decode, hwaccel="auto") == [
        ("hwaccel", f"only for decode: all; the CPU decodes what decode: {decode} asks for")
    ]
    assert VideoSettings(source_uri="a.mp4", hwaccel="auto").decode == "all"
