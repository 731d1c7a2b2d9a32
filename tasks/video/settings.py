"""What a graph file may say of a video source, and what kind of source its address means."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from flowrun.runtime.task import TaskConfig

__all__ = ["Reconnect", "SourceType", "VideoSettings", "kind_of"]

SourceType = Literal["file", "rtsp", "url", "v4l2"]


class MaxAge(TaskConfig):
    """Frames that are not too old."""

    max_age_ms: PositiveFloat
    """How old a frame may be when a cycle takes it, in milliseconds."""


class Reconnect(TaskConfig):
    """What happens when a live source is lost, or does not answer."""

    delay_s: PositiveFloat = 1.0
    """Seconds to wait before the first new attempt. Later ones wait a quarter of the time for which
    the source was away, if that is more."""
    max_delay_s: PositiveFloat = 30.0
    """The most seconds to wait before an attempt. A source that refuses the password is asked that
    seldom at once."""
    max_attempts: NonNegativeInt | None = None
    """After how many new attempts in vain the source has failed, which is an error; null: never."""
    at_start: bool = False
    """Begin the run also if the source does not answer at first, and go on trying; false: that is an
    error. Not for files."""


class VideoSettings(TaskConfig):
    """What a graph file may say of a video source."""

    source_uri: str
    """The source: a path (relative ones start at the graph file), rtsp://..., http://..., or
    /dev/video0."""
    source_type: Literal["auto", "file", "rtsp", "url", "v4l2"] = "auto"
    """What the source is; auto: as `source_uri` looks."""
    policy: Literal["auto", "every_frame", "latest"] | MaxAge = "auto"
    """Which frames to publish. every_frame: all that `buffer` can hold until a cycle takes them; latest:
    the newest one; {max_age_ms: 500}: as every_frame, without those that are older than that when a
    cycle takes them; auto: every_frame for files, latest for live sources. A file that is not played
    at its own speed has no age."""
    buffer: PositiveInt | None = None
    """How many decoded frames may wait for a cycle; a file then waits too, and of a live source the
    oldest one makes room. null: 4 of a file, 16 of a live source. latest always holds 1."""
    realtime: bool = False
    """Play a file at its own speed."""
    loop: bool = False
    """Start a file again at its end, for ever."""
    start_s: NonNegativeFloat = 0.0
    """Where a file starts."""
    max_fps: PositiveFloat | None = None
    """The most frames a second, by the source's own time stamps: of each 1 / max_fps seconds the first
    frame is kept, the same ones every run. The others are not converted."""
    width: PositiveInt | None = None
    """The width to ask of a device (v4l2), in pixels."""
    height: PositiveInt | None = None
    """The height to ask of a device (v4l2), in pixels."""
    fps: PositiveFloat | None = None
    """The frames per second to ask of a device (v4l2)."""
    timeout_s: PositiveFloat = 10.0
    """Seconds that a live source may take to answer, or to give the next frame."""
    transport: Literal["auto", "tcp", "udp"] = "auto"
    """How an RTSP camera sends its pictures. Over UDP, lost packets show as smeared pictures; auto: by
    TCP, or by UDP where the camera has no other."""
    reconnect: Reconnect = Reconnect()
    """What happens when a live source is lost: it is connected again."""

    @model_validator(mode="after")
    def _check(self) -> VideoSettings:
        kind = self.kind
        if self.policy == "latest" and self.buffer is not None:
            raise ValueError(
                "buffer is for policy every_frame and max_age_ms: latest holds one frame"
            )
        if kind != "v4l2" and not self.width is self.height is self.fps is None:
            raise ValueError(f"width, height and fps are asked of a v4l2 device, not of a {kind}")
        if (self.width is None) != (self.height is None):
            raise ValueError("give both width and height, or neither")
        if kind in ("rtsp", "v4l2") and (self.realtime or self.loop or self.start_s):
            raise ValueError(f"realtime, loop and start_s are for files, not for a {kind} source")
        return self

    @property
    def kind(self) -> SourceType:
        """`source_type`, inferred from `source_uri` where it is `auto`."""
        return kind_of(self.source_uri) if self.source_type == "auto" else self.source_type


def kind_of(uri: str) -> SourceType:
    """What kind of source `uri` is, by its form."""
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    if scheme in ("rtsp", "rtsps"):
        return "rtsp"
    if scheme == "v4l2" or uri.startswith("/dev/video") or uri.isdecimal():
        return "v4l2"
    return "file" if scheme in ("", "file") else "url"
