"""What a graph file may say of a video source."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from flowrun.runtime.task import TaskConfig
from flowrun.runtime.wording import says_secret
from flowrun.tasks.video.address import NO_LIST, Address, AddressError, SourceType, parse_address

__all__ = ["Reconnect", "SourceType", "VideoSettings", "exact_rate"]

_FOURCCS = {
    "MJPG": "mjpeg",
    "H264": "h264",
    "HEVC": "hevc",
    "YUYV": "yuyv422",
    "UYVY": "uyvy422",
    "YU12": "yuv420p",
    "NV12": "nv12",
    "GREY": "gray",
    "RGB3": "rgb24",
    "BGR3": "bgr24",
}
"""What FFmpeg calls the formats of devices."""
_DRAWN = ("v4l2", "screen", "test")
_KINDS: dict[SourceType, str] = {
    "file": "a file",
    "rtsp": "an RTSP camera",
    "url": "an address",
    "v4l2": "a device",
    "screen": "a screen",
    "test": "the test pattern",
}
_SECRET_OPTIONS = ("headers", "cookies", "cryptokey", "srtp_out_params", "srtp_in_params")


_LONGEST_S = 1_000_000_000
"""Thirty years, in place of infinity."""
_Seconds = Annotated[float, Field(gt=0, le=_LONGEST_S)]
_Rate = Annotated[float, Field(ge=1e-6, le=1_000_000)]
"""Of pictures in a second, or of seconds for a picture."""
_Limit = Annotated[float, Field(ge=1e-6, le=1_000_000_000)]
"""Of pictures in a second: a time stamp has nanoseconds."""

_Side = Annotated[int, Field(gt=0, le=16_384)]
"""Of a picture, in pixels."""


def exact_rate(number: float) -> Fraction:
    """A rate as FFmpeg can have it, which counts in 32 bits: 30000/1001 of 29.97002997002997."""
    most = (1 << 31) // math.ceil(number)
    return Fraction(number).limit_denominator(min(1_000_000, most))


class MaxAge(TaskConfig):
    """Frames that are not too old."""

    max_age_ms: Annotated[float, Field(gt=0, le=1000 * _LONGEST_S)]
    """How old a frame may be when a cycle takes it, in milliseconds."""


class Reconnect(TaskConfig):
    """What happens when a live source is lost, or does not answer."""

    delay_s: _Seconds = 1.0
    """Seconds to wait before the first new attempt. Later ones wait a quarter of the time for which
    the source was away, if that is more."""
    max_delay_s: _Seconds = 30.0
    """The most seconds to wait before an attempt. A source that refuses the password is asked that
    seldom at once."""
    max_attempts: NonNegativeInt | None = None
    """After how many new attempts in vain the source has failed, which is an error; null: never."""
    at_start: bool = False
    """Begin the run also if the source does not answer at first, and go on trying; false: that is an
    error. Not for files."""


class VideoSettings(TaskConfig):
    """What a graph file may say of a video source."""

    source_uri: str | int | list[str | int] | None = None
    """The source: a path (relative ones start at the graph file) of a film, a folder or pattern of
    pictures (img_%04d.png, *.jpg) or a pipe (- for standard input), an address (rtsp://..., http://...,
    udp://...), a device (0, /dev/video0, webcam), screen, or test. A list makes one task of each: `cam`
    makes `cam_0`, `cam_1`, and as many of each task that follows."""
    sources: list[dict[str, Any]] | None = None
    """In place of `source_uri`, a list of mappings, each with a `source_uri` and other keys of its own,
    which go before those beside the list: [{id: gate, source_uri: ..., max_fps: 5}]. It makes one task
    of each: `cam` makes `cam_gate`, by `id`, or `cam_0`."""
    source_type: Literal["auto", "file", "rtsp", "url", "v4l2", "screen", "test"] = "auto"
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
    """Play a file, or the test pattern, at its own speed; a live source does so anyway."""
    loop: bool = False
    """Start a file again at its end, for ever."""
    start_s: Annotated[float, Field(ge=0, le=_LONGEST_S)] = 0.0
    """Where a file starts."""
    decode: Literal["all", "keyframes", "asked"] = "all"
    """Which pictures are decoded and published. keyframes: only those that need no other, such as one a
    second, for a fraction of the CPU time; asked: every picture is published, and decoded when a task
    first reads it (H.264, H.265 and MJPEG; others are decoded as they come). The log gets all packets
    all the same."""
    hwaccel: Literal["none", "auto", "cuda", "vaapi"] = "none"
    """Which device decodes H.264, H.265, VP8, VP9 and AV1. auto: one that opens, or none; one that is
    named must be there. It pays where few of many pictures are read, or where no packets are logged: the
    log gets a picture whole that the device decoded and a task read, so that its replay needs no
    device."""
    max_fps: _Limit | None = None
    """The most frames a second, by the source's own time stamps: of each 1 / max_fps seconds the first
    frame is kept, the same ones every run. A live source that has no time stamps, as MJPEG of a web
    server, goes by when its frames come. The others are not converted."""
    width: _Side | None = None
    """The width to ask of a device, a screen or the test pattern, in pixels."""
    height: _Side | None = None
    """The height to ask of a device, a screen or the test pattern, in pixels."""
    fps: _Rate | None = None
    """The frames per second to ask of a device, a screen or the test pattern; of pictures in files, how
    many are shown in a second (25)."""
    fourcc: str | None = None
    """The format to ask of a device (v4l2), such as MJPG, YUYV or H264."""
    stream: Literal["best"] | NonNegativeInt = "best"
    """Which video stream, counted from 0, of those that the source has; best: as FFmpeg chooses, and no
    cover picture."""
    options: dict[str, bool | int | float | str | SecretStr] = Field(default_factory=dict)
    """More options for FFmpeg's demuxers and protocols, such as {probesize: 5000000}."""
    live: Literal["auto"] | bool = "auto"
    """Whether what a web server gives is live, so that its end is a loss, and it is asked again. auto: a
    film has a duration, a length, or a date or an ETag that the server gives with it."""
    poll_s: _Rate | None = None
    """Fetch the picture at an http address again every n seconds, as of a camera that gives single
    JPEGs."""
    seed: NonNegativeInt = 0
    """Which test pattern to draw."""
    timeout_s: _Seconds = 10.0
    """Seconds that a live source may take to answer, or to give the next frame."""
    transport: Literal["auto", "tcp", "udp"] = "auto"
    """How an RTSP camera sends its pictures. Over UDP, lost packets show as smeared pictures; auto: by
    TCP, or by UDP where the camera has no other."""
    reconnect: Reconnect = Reconnect()
    """What happens when a live source is lost: it is connected again."""
    channel_id: NonNegativeInt | None = None
    """The number by which clients ask for what the tasks after it show; none: a number that is free."""

    @field_validator("fourcc")
    @classmethod
    def _known(cls, fourcc: str | None) -> str | None:
        if fourcc is not None and fourcc.upper() not in _FOURCCS:
            raise ValueError(f"unknown format {fourcc!r}; formats: {', '.join(_FOURCCS)}")
        return fourcc

    @field_validator("options")
    @classmethod
    def _hide(cls, options: dict[str, Any]) -> dict[str, Any]:
        """What an option says that may hold a password or a token is a secret."""
        return {
            name: SecretStr(str(value))
            if (name in _SECRET_OPTIONS or says_secret(name)) and not isinstance(value, SecretStr)
            else value
            for name, value in options.items()
        }

    @model_validator(mode="after")
    def _check(self) -> VideoSettings:
        wrong = list(self._wrong())
        if wrong:
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [
                    {
                        "type": "value_error",
                        "loc": (key,),
                        "input": getattr(self, key),
                        "ctx": {"error": ValueError(text)},
                    }
                    for key, text in wrong
                ],
            )
        return self

    def _wrong(self) -> Iterator[tuple[str, str]]:
        """The keys that do not fit the source, each with the reason."""
        if self.sources is not None:
            yield "sources", NO_LIST
            return
        try:
            kind, _, is_input = self.address
        except AddressError as error:
            yield "source_uri", str(error)
            return
        own = (
            ("width", _DRAWN, "a device, a screen or the test pattern"),
            ("height", _DRAWN, "a device, a screen or the test pattern"),
            ("fps", (*_DRAWN, "file"), "a device, a screen, the test pattern or pictures in files"),
            ("fourcc", ("v4l2",), "a device (v4l2)"),
            ("seed", ("test",), "the test pattern"),
            ("loop", ("file", "url"), "a file"),
            ("start_s", ("file", "url"), "a file"),
            ("options", ("file", "rtsp", "url", "v4l2", "screen"), "what FFmpeg opens"),
            ("stream", ("file", "rtsp", "url", "v4l2", "screen"), "what FFmpeg opens"),
        )
        for key, kinds, what in own:
            if getattr(self, key) != type(self).model_fields[key].get_default(
                call_default_factory=True
            ) and (kind not in kinds):
                yield key, f"only for {what}; the source is {_KINDS[kind]}"
        if self.hwaccel != "none" and self.decode != "all":
            yield (
                "hwaccel",
                f"only for decode: all; the CPU decodes what decode: {self.decode} asks for",
            )
        if self.policy == "latest" and self.buffer is not None:
            yield "buffer", "only for policy every_frame and max_age_ms: latest holds one frame"
        if (self.width is None) != (self.height is None):
            yield (
                "width" if self.height is None else "height",
                "give both width and height, or neither",
            )
        for key in ("loop", "start_s"):
            if is_input and getattr(self, key):
                yield key, "only for a file; standard input can be read once"
        if self.poll_s is not None and not self.is_web:
            yield "poll_s", f"only for a picture at an http address; the source is {_KINDS[kind]}"
        if self.live != "auto" and not self.is_web:
            yield "live", f"only for an http address; the source is {_KINDS[kind]}"
        if self.live is True and (self.loop or self.start_s):
            yield "live", "a live source has no loop and no start_s"
        if self.poll_s is not None and self.live is False:
            yield "live", "a picture that is fetched again and again is live"
        if self.poll_s is not None and (self.loop or self.start_s):
            yield "poll_s", "only for a live picture, which has no loop and no start_s"

    @property
    def address(self) -> Address:
        """What `source_uri` means; `AddressError` where it means nothing."""
        return parse_address(
            self.source_uri, None if self.source_type == "auto" else self.source_type
        )

    @property
    def kind(self) -> SourceType:
        """`source_type`, inferred from `source_uri` where it is `auto`."""
        return self.address.kind

    @property
    def may_be_live(self) -> bool:
        """Whether its pictures may come at their own time; that is known when it is open."""
        return self.kind not in ("file", "test")

    @property
    def is_web(self) -> bool:
        """Whether a web server gives it."""
        address = self.address
        return address.kind == "url" and address.target.lower().startswith(("http://", "https://"))

    @property
    def uri(self) -> str:
        """`source_uri` as it was written."""
        return self.kind if self.source_uri is None else str(self.source_uri)

    @property
    def ffmpeg_options(self) -> dict[str, str]:
        """`options` as FFmpeg gets them."""
        return {
            name: value.get_secret_value()
            if isinstance(value, SecretStr)
            else str(int(value) if isinstance(value, bool) else value)
            for name, value in self.options.items()
        }

    @property
    def input_format(self) -> str | None:
        """`fourcc` as FFmpeg calls it."""
        return None if self.fourcc is None else _FOURCCS[self.fourcc.upper()]
