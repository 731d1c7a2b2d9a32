"""A source's compressed packets, kept until the log takes them with the pictures they give."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import VideoDecoder, VideoPackets
from flowrun.runtime.pictures.video import RgbConverter, decode_one

__all__ = ["PacketQueue"]

_MOST_BYTES = 64 << 20
"""Of packets that no picture took, such as those of a live source while no cycle runs."""
_MOST_STAMPS = 256
_FILTERS = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_LENGTH_PREFIXED = b"\x01"
"""First byte of the extradata of a stream whose packets have lengths instead of start codes."""
_NEVER = 1 << 62
_UNSTAMPED = -(1 << 62)
"""Packets without a time stamp get this plus their number, while they are in the decoder: those of a
bare H.264 stream have none, nor has the first of an RTSP camera."""


class _Kept(NamedTuple):
    section: int
    number: int
    data: bytes
    is_key: bool


class PacketQueue:
    """The packets of one stream, numbered from 0 in decoding order.

    The reader's thread appends; the cycle takes. Packets are H.264 and H.265 with start codes.

    section: how often the decoder has started again.
    proven: whether a first picture was decoded from what is kept here, and compared; where it
        differed, the queue is not usable and `take` always gives None.
    """

    def __init__(self, stream: Any) -> None:
        from av.bitstream import BitStreamFilterContext

        context = stream.codec_context
        name = context.codec.name
        extradata = context.extradata or b""
        self._filter: Any = None
        if context.codec.canonical_name in _FILTERS:
            self._filter = BitStreamFilterContext(_FILTERS[context.codec.canonical_name], stream)
            if extradata.startswith(_LENGTH_PREFIXED):
                extradata = b""  # the filter puts it before the key frames
        self._decoder = VideoDecoder(
            name, extradata, context.width, context.height, context.pix_fmt or ""
        )
        self._lock = threading.Lock()
        self._kept: deque[_Kept] = deque()
        self._size = 0
        self._numbers: dict[int, int] = {}
        """By time stamp, the packets whose pictures have not come out yet."""
        self._gap = 0, 0
        """Pictures of packets from the first number up to, not with, the second cannot be decoded."""
        self.usable = True
        self.next_number = 0
        self.section = 0
        self.proven = False

    def begin_section(self) -> None:
        """The decoder starts again with the next packet."""
        self.section += 1
        self._numbers.clear()
        if self._filter is not None:
            self._filter.flush()

    def stamp(self, packet: Any) -> int:
        """The time stamp of the packet `next_number`, which is to be decoded; it gets one if it has
        none, by which its picture is known again."""
        if packet.pts is None:
            packet.pts = _UNSTAMPED + self.next_number
        return int(packet.pts)

    def number_of(self, decoded: Any) -> int | None:
        """The number of the packet that gave this picture; None where it is not known. A time stamp
        that `stamp` made is taken away."""
        pts = decoded.pts
        if pts is None:
            return None
        if pts < _UNSTAMPED // 2:
            decoded.pts = None
        return self._numbers.pop(pts, None)

    def append(self, packet: Any, pts: int) -> None:
        """Keep the packet `next_number`, which has been given to the decoder with time stamp `pts`."""
        import av

        number, is_key = self.next_number, bool(packet.is_keyframe)  # the filter empties it
        self.next_number += 1
        if not self.usable:
            return
        self._numbers[pts] = number
        if len(self._numbers) > _MOST_STAMPS:  # of packets that gave no picture
            del self._numbers[next(iter(self._numbers))]
        pieces: list[bytes] = []
        # What the filter cannot read is a gap.
        with contextlib.suppress(av.error.FFmpegError):
            made = [packet] if self._filter is None else self._filter.filter(packet)
            pieces = [bytes(piece) for piece in made]
        kept = _Kept(self.section, number, b"".join(pieces), is_key)
        with self._lock:
            if not kept.data:
                self._gap = number, _NEVER
            elif kept.is_key and self._gap[1] == _NEVER:
                self._gap = self._gap[0], number
            self._kept.append(kept)
            self._size += len(kept.data)
            if self._size > _MOST_BYTES:
                self._forget()

    def _forget(self) -> None:
        """Drop what is before the newest key frame, or everything."""
        newest = max((it.number for it in self._kept if it.is_key), default=_NEVER)
        if newest == self._kept[0].number:
            newest = _NEVER
        self._gap = 0, newest
        while self._kept and self._kept[0].number < newest:
            self._size -= len(self._kept.popleft().data)

    def prove(
        self,
        number: int,
        color: tuple[int, int],
        pixels: NDArray[np.uint8],
        converter: RgbConverter,
    ) -> None:
        """Decode picture `number` from the packets kept; where it differs from `pixels`, the log gets
        pixels from now on."""
        with self._lock:
            video = self._video(number, self.section, color)
        try:
            made = decode_one(video, converter)
        except ValueError:
            made = None
        self.proven = True
        if made is None or not np.array_equal(made, pixels):
            self.give_up()

    def give_up(self) -> None:
        """The log gets pixels from now on: the packets do not give the same pictures."""
        with self._lock:
            self.usable = False
            self._kept.clear()
            self._size = 0

    def take(self, number: int, section: int, color: tuple[int, int]) -> VideoPackets | None:
        """The packets up to `number` that were not taken yet, and what decodes them.

        None where they do not give the picture; those that are kept then go with a later one.
        """
        with self._lock:
            if not self.usable or self._gap[0] <= number < self._gap[1]:
                return None
            while self._kept and self._kept[0].section < section:
                self._size -= len(self._kept.popleft().data)
            video = self._video(number, section, color)
            for data, _ in video.packets:
                self._kept.popleft()
                self._size -= len(data)
            return video

    def _video(self, number: int, section: int, color: tuple[int, int]) -> VideoPackets:
        first = self._kept[0].number if self._kept else number + 1
        packets = tuple((it.data, it.is_key) for it in self._kept if it.number <= number)
        return VideoPackets(self._decoder, packets, first, number, section, color)
