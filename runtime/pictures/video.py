"""Compressed packets -> pictures -> RGB pixels: the same bytes wherever it is done.

A video source decodes once when it runs; a log that holds its packets is decoded again when it is
read or replayed. Both go through here, so that both give the same pixels: swscale converts with
ACCURATE_RND | BITEXACT, one thread: its vectorised and its plain code then give the same bytes
(without ACCURATE_RND up to 3 levels apart in 36 % of the values, measured by switching off the CPU's
vector units), at 4.9 ms instead of 0.8 ms a 1080p frame.
What stays with the FFmpeg version: the decoder, and swscale's rounding itself (white comes out as
253). A log therefore keeps a checksum of each picture's pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import VideoDecoder, VideoPackets

__all__ = ["PacketDecoder", "RgbConverter", "decode_one", "picture_rgb", "set_color"]


class RgbConverter:
    """Decoded pictures as RGB. Not for use by two threads at once."""

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        self._flags = int(
            Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        )

    def rgb(self, decoded: Any) -> NDArray[np.uint8]:
        """The pixels (H, W, 3) of a decoded `av.VideoFrame`: a read-only view of the converted
        picture's own memory, which it keeps alive; its rows may lie apart."""
        rgb = self._reformatter.reformat(
            decoded, format="rgb24", interpolation=self._flags, threads=1
        )
        plane: Any = rgb.planes[0]
        height, width, stride = rgb.height, rgb.width, plane.line_size
        rows: NDArray[np.uint8] = np.frombuffer(plane, np.uint8, count=height * stride).reshape(
            height, stride
        )
        rows.setflags(write=False)  # nobody writes to it any more: it can be shared, not copied
        return rows[:, : width * 3].reshape(height, width, 3)


class PacketDecoder:
    """Decodes the numbered packets of one section of a source.

    ahead: decode some pictures ahead on all cores; each picture then comes some packets later.
    Raises `ValueError` if this FFmpeg has no such decoder, or it does not take what `decoder` says.
    """

    def __init__(self, decoder: VideoDecoder, *, ahead: bool) -> None:
        import av

        self._invalid = av.error.InvalidDataError
        self._failed = av.error.FFmpegError
        self._packet = av.Packet
        try:
            context: Any = av.CodecContext.create(decoder.name, "r")
            if decoder.extradata:
                context.extradata = decoder.extradata
            if context.type != "video":
                raise ValueError(f"it decodes {context.type}")
            context.width, context.height = decoder.width, decoder.height
            if decoder.pixel_format:
                context.pix_fmt = decoder.pixel_format
        except (av.error.FFmpegError, ValueError, OverflowError, LookupError) as error:
            raise ValueError(f"no decoder {decoder.name!r} in this FFmpeg: {error}") from error
        context.thread_type = "AUTO" if ahead else "SLICE"
        self._context = context

    def decode(self, number: int, data: bytes | memoryview) -> list[tuple[int, Any]]:
        """The pictures that come out when packet `number` went in, each with its packet's number.

        A packet that the decoder refuses gives none: a live source's decoder passed over it too.
        `ValueError` where it does not work at all.
        """
        # Nothing of Python's may be inside: freeing a decoder with frame threads would wait for ever
        # for them, and they for the GIL. So a copy, not `Packet(data)`; and the number as the time
        # stamp, which a decoder hands on to the picture, not as `opaque`.
        packet = self._packet(len(data))
        packet.update(data)
        packet.pts = packet.dts = number
        return self._pictures(packet)

    def drain(self) -> list[tuple[int, Any]]:
        """The pictures that are still inside. The decoder takes no packets any more."""
        return self._pictures(None)

    def _pictures(self, packet: Any) -> list[tuple[int, Any]]:
        try:
            return [(picture.pts, picture) for picture in self._context.decode(packet)]
        except self._invalid:
            return []
        except self._failed as error:
            raise ValueError(f"decoder {self._context.name!r}: {error}") from error


def set_color(decoded: Any, color: Sequence[int]) -> None:
    """Say how the picture's colours are meant: a container may say it, which packets do not."""
    decoded.colorspace, decoded.color_range = color


def picture_rgb(decoded: Any, color: Sequence[int], converter: RgbConverter) -> NDArray[np.uint8]:
    """The pixels of a decoded picture whose colours are meant so; `ValueError` where they cannot be."""
    import av

    try:
        set_color(decoded, color)
        return converter.rgb(decoded)
    except (av.error.FFmpegError, OverflowError) as error:
        raise ValueError(f"colours {list(color)}: {error}") from error


def decode_one(video: VideoPackets, converter: RgbConverter) -> NDArray[np.uint8] | None:
    """The picture of `video`, decoded from its first key frame on; None if that does not give it."""
    decoder = PacketDecoder(video.decoder, ahead=False)
    begun = False
    for number, (data, is_key) in enumerate(video.packets, video.first):
        begun = begun or is_key
        if begun:
            for made, picture in decoder.decode(number, data):
                if made == video.number:
                    return picture_rgb(picture, video.color, converter)
    for made, picture in decoder.drain():
        if made == video.number:
            return picture_rgb(picture, video.color, converter)
    return None
