"""What a graph file may say of a video source."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from flowrun.tasks.video.settings import MaxAge, VideoSettings


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


def test_a_source_says_only_where_it_is() -> None:
    assert VideoSettings(source_uri="a.mp4").model_dump() == {
        "source_uri": "a.mp4",
        "source_type": "auto",
        "policy": "auto",
        "buffer": None,
        "realtime": False,
        "loop": False,
        "start_s": 0.0,
        "max_fps": None,
        "width": None,
        "height": None,
        "fps": None,
        "timeout_s": 10.0,
        "transport": "auto",
        "reconnect": {
            "delay_s": 1.0,
            "max_delay_s": 30.0,
            "max_attempts": None,
            "at_start": False,
        },
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        *(
            (
                {"source_uri": uri, **asked},
                f"width, height and fps are asked of a v4l2 device, not of a {kind}",
            )
            for uri, kind in [("a.mp4", "file"), ("rtsp://host", "rtsp"), ("http://host", "url")]
            for asked in (
                {"width": 640},
                {"height": 480},
                {"fps": 30},
                {"width": 640, "height": 480},
                {"width": 30, "height": 30, "fps": 30},
            )
        ),
        ({"source_uri": "0", "width": 640}, "give both width and height, or neither"),
        ({"source_uri": "0", "height": 480}, "give both width and height, or neither"),
        *(
            (
                {"source_uri": uri, **asked},
                f"realtime, loop and start_s are for files, not for a {kind} source",
            )
            for uri, kind in [("0", "v4l2"), ("rtsp://host", "rtsp")]
            for asked in ({"realtime": True}, {"loop": True}, {"start_s": 0.5})
        ),
    ],
)
def test_settings_of_another_kind_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        VideoSettings(**config)
    assert caught.value.errors()[0]["msg"] == f"Value error, {message}"


@pytest.mark.parametrize(
    "config",
    [
        {"source_uri": "0", "width": 640, "height": 480},
        {"source_uri": "0", "fps": 30},
        {"source_uri": "0", "width": 640, "height": 480, "fps": 30},
        {"source_uri": "a.mp4", "realtime": True, "loop": True, "start_s": 1.5},
        {"source_uri": "http://host/a.mp4", "realtime": True, "loop": True, "start_s": 1.5},
    ],
)
def test_settings_of_its_own_kind_are_taken(config: dict[str, Any]) -> None:
    assert VideoSettings(**config).model_dump(exclude_unset=True) == config


@pytest.mark.parametrize(
    "config",
    [{"width": 0, "height": 480}, {"width": 640, "height": 0}, {"fps": 0}, {"timeout_s": 0}],
)
def test_what_is_asked_of_a_device_is_positive(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        VideoSettings(source_uri="0", **config)


def test_a_start_before_the_beginning_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        VideoSettings(source_uri="a.mp4", start_s=-0.1)


def test_a_policy_has_a_buffer_or_is_one_frame() -> None:
    made = VideoSettings(source_uri="a.mp4", policy={"max_age_ms": 500}, buffer=8)
    assert made.policy == MaxAge(max_age_ms=500)
    with pytest.raises(ValidationError) as caught:
        VideoSettings(source_uri="a.mp4", policy="latest", buffer=8)
    assert "buffer is for policy every_frame and max_age_ms: latest holds one frame" in str(
        caught.value
    )
