"""A camera's packets as WebSocket messages: what `docs/http-api.md` describes.

A viewer first gets a configuration (text, JSON), then packets (binary, little-endian):

| offset  | type    | meaning                                                            |
|---------|---------|--------------------------------------------------------------------|
| 0       | u8      | 1: the version of this layout                                      |
| 1       | u8 x 3  | 0                                                                  |
| 4       | u32     | n: the number of packets                                           |
| 8       | u64     | the cycle of the picture that they are sent with                   |
| 16      | u64     | its time, `tov_ns`                                                 |
| 24      | u64     | the number of the packet that gives it                             |
| 32      | u64     | the number of the first packet in this message                     |
| 40      | u32 x n | of each packet: its size; the highest bit says that it is a key frame |
| 40 + 4n | bytes   | the packets                                                        |

MUST: the packet after a configuration is a key frame with its parameter sets. Why: a decoder that is
configured, or was reset after a loss, can begin with nothing else.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import asdict, dataclass

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.live_video import Shown
from flowrun.runtime.pictures.bitstream import with_parameters
from flowrun.runtime.pictures.stored import shown_format
from flowrun.runtime.pictures.web_codecs import web_codec

__all__ = ["Configuration", "configuration", "in_sequence", "pack"]

_VERSION = 1
_HEAD = struct.Struct("<B3xIQQQQ")
_KEY = _TEXT = 1 << 31

_MATRICES = {1: "bt709", 5: "bt470bg", 9: "bt2020-ncl"}
_FULL = 2
"""FFmpeg's numbers of colour spaces and of the full range."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a viewer's decoder must know; see `docs/http-api.md`."""

    task: str
    format: str
    codec: str | None
    description: str | None
    width: int
    height: int
    orientation: int
    fps: float
    pixel_aspect: float
    color_space: dict[str, str | bool]

    def message(self, *, lost: int) -> dict[str, object]:
        """The text message. lost: how many pictures the viewer has lost so far."""
        return {"type": "config", **asdict(self), "lost": lost}


def configuration(task: str, shown: Shown) -> Configuration:
    """What decodes `shown` and the pictures after it. Its first packet is a key frame."""
    decoder = shown.video.decoder
    form = shown_format(decoder.name)
    key_frame = with_parameters(form, shown.video.packets[0][0], decoder.extradata)
    return Configuration(
        task=task,
        format=form,
        codec=web_codec(form, decoder, key_frame),
        description=_description(form, decoder),
        width=decoder.width,
        height=decoder.height,
        orientation=decoder.orientation,
        fps=shown.fps,
        pixel_aspect=shown.pixel_aspect,
        color_space=_color_space(decoder),
    )


def _color_space(decoder: VideoDecoder) -> dict[str, str | bool]:
    """What the values of its pictures mean where its packets do not say it, in WebCodecs' words."""
    space, span = decoder.color
    is_full = span == _FULL or decoder.pixel_format.startswith("yuvj")
    matrix = _MATRICES.get(space, "smpte170m")  # as the run's own pixels are made
    return {"primaries": "bt709", "transfer": "bt709", "matrix": matrix, "fullRange": is_full}


def _description(form: str, decoder: VideoDecoder) -> str | None:
    """What a browser's decoder must get besides the packets; those with start codes hold it all."""
    if form in ("h264", "h265", "mjpeg", "vp8") or not decoder.extradata:
        return None
    return base64.b64encode(decoder.extradata).decode()


def pack(shown: Shown, *, is_entry: bool) -> bytes:
    """The binary message of a picture.

    is_entry: whether it comes after a configuration: without packets of which no picture was decoded,
        which come before the key frame.
    """
    video = shown.video
    form = shown_format(video.decoder.name)
    packets = list(video.packets) if is_entry else video.with_unseen
    sent = [
        with_parameters(form, data, video.decoder.extradata) if is_key else data
        for data, is_key in packets
    ]
    sizes = [
        len(data) | (_KEY if is_key else 0) for data, (_, is_key) in zip(sent, packets, strict=True)
    ]
    first = video.first if is_entry else shown.first
    head = _HEAD.pack(_VERSION, len(sent), shown.cycle, shown.tov_ns, video.number, first)
    return b"".join((head, struct.pack(f"<{len(sizes)}I", *sizes), *sent))


def in_sequence(message: str | bytes) -> bytes:
    """A message as it is in a file of them: after its size, whose highest bit says that it is text."""
    data = message if isinstance(message, bytes) else message.encode()
    return struct.pack("<I", len(data) | (_TEXT if isinstance(message, str) else 0)) + data
