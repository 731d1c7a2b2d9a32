"""One picture of a topic with a codec: its bytes in the log, see "Stored pictures" in FORMAT.md.

The message is a `foxglove.CompressedVideo`, so that viewers show what they know; how `data` gives
the pixels is a msgpack map in its field 1000, which protobuf readers skip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack
import numpy as np
from zlib_ng.zlib_ng import crc32

from flowrun.msgs import protobuf
from flowrun.msgs.image import (
    DecodedPicture,
    ImageRgb8Msg,
    UnseenPacket,
    VideoDecoder,
    VideoPackets,
)
from flowrun.runtime.pictures.asked import AskedPicture
from flowrun.runtime.pictures.convert import CONVERSION, UPRIGHT
from flowrun.runtime.pictures.lossless import LOSSLESS, MOST_PIXELS, packer, unpack
from flowrun.runtime.pictures.planar import Kept, Layout, PlanarPicture, kept
from flowrun.runtime.pictures.video import RgbConverter

__all__ = [
    "PICTURE_SCHEMA_NAME",
    "PictureEncoder",
    "StoredPacket",
    "StoredPicture",
    "picture_schema",
    "shown_format",
]

PICTURE_SCHEMA_NAME = "foxglove.CompressedVideo"

_TIMESTAMP, _FRAME_ID, _DATA, _FORMAT, _FLOWRUN = 1, 2, 3, 4, 1000
_FORMATS = {"hevc": "h265", "libdav1d": "av1", "libaom-av1": "av1"}
"""foxglove's names where FFmpeg's decoders have others."""

_MOST_ROWS = 1 << 31
_MOST_PACKETS = 1 << 62  # they are time stamps to FFmpeg

Piece = bytes | memoryview


def picture_schema() -> bytes:
    """The schema, as the log stores it."""
    return protobuf.descriptor_set(
        "foxglove",
        "CompressedVideo",
        [
            (_TIMESTAMP, "timestamp", "timestamp"),
            (_FRAME_ID, "frame_id", "string"),
            (_DATA, "data", "bytes"),
            (_FORMAT, "format", "string"),
        ],
    )


def shown_format(decoder: str) -> str:
    """Foxglove's name of the format that FFmpeg's `decoder` decodes."""
    return _FORMATS.get(decoder, decoder)


class _Logged(NamedTuple):
    """What the log holds of a source's packets.

    section: the last section of which it has packets.
    key: the cycle of the section's first packet.
    next: the number of the packet that comes next; None where one is missing.
    """

    section: int
    key: int
    next: int | None


class PictureEncoder:
    """Encodes the pictures of one output. Twice the same cycle gives the same bytes.

    first_kept: the cycle with which the log will begin when the pictures of now are read: a flight
        recorder removes those before it. Packets of a section that began before it give no picture.
    """

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self.first_kept = 0
        self.pixel_bytes = 0
        """What pictures without packets have taken so far."""
        self._cycle: int | None = None
        self._asked: tuple[int, bool] | None = None
        """Of the cycle encoded last, whether its picture had been read."""
        self._before: _Logged | None = None
        self._logged: _Logged | None = None
        self._pack = packer(codec) if codec in LOSSLESS else None

    def encode(
        self, message: ImageRgb8Msg, cycle: int, *, video: VideoPackets | None = None
    ) -> tuple[Piece, ...]:
        """The message's bytes, in parts. `MessageTypeError` as `Message.encode`.

        video: the packets of the picture, if its source has any.
        """
        picture = message.picture if self.codec == "packets" else None
        planar = picture if isinstance(picture, PlanarPicture) else None
        size = (message.height, message.width) if planar is None else planar.layout.shape
        own: dict[str, Any] = {
            "frame_id": message.frame_id,
            "pts": message.pts,
            "fps": message.fps,
            "size": size,
        }
        if message.pixel_aspect != 1:
            own["pixel_aspect"] = message.pixel_aspect
        packets = None if video is None else self._packets(video, cycle)
        is_read = packets is None or self._is_read(picture, cycle)
        if planar is None:
            pixels = message.checked_pixels()
            own["crc"] = crc32(pixels.data.cast("B")) if pixels.size else 0
        else:
            own["planes"], own["convert"] = planar.layout, CONVERSION
            if is_read:
                own["crc"] = planar.crc
        shown = "rgb8"
        if video is not None and packets is not None:
            shown = shown_format(video.decoder.name)
            pieces = [packet for packet, _ in video.with_unseen]
            own |= packets
            if not _is_whole(picture, video):
                own["damaged"] = True
            if planar is not None and is_read and not _is_sure(planar, video):
                own["codec"] = "planes"
                pieces.append(planar.data.tobytes())
            data: Piece = b"".join(pieces)
        elif planar is not None:
            shown = planar.layout.format
            own["codec"], data = "planes", planar.data.data
        elif self._pack is None or not pixels.size or pixels.size > 3 * MOST_PIXELS:
            own["codec"], data = "raw", pixels.data.cast("B") if pixels.size else b""
        else:
            own["codec"], data = self.codec, self._pack(pixels)
            shown = self.codec
        fields = [protobuf.text_field(_FORMAT, shown)]
        if own["codec"] != "packets":
            self.pixel_bytes += len(data)
        front = message.pack_front(own, fields, source=_FRAME_ID, data=_DATA, size=len(data))
        return front, data

    def _is_read(self, picture: DecodedPicture | None, cycle: int) -> bool:
        """Whether the log says what the picture of this cycle is, as it has been decoded."""
        if not isinstance(picture, AskedPicture):
            return True
        if self._asked is None or self._asked[0] != cycle:
            self._asked = cycle, picture.settle()
        return self._asked[1]

    def _packets(self, video: VideoPackets, cycle: int) -> dict[str, Any] | None:
        """None where the log lacks, or will lack, packets of the section that are needed before
        these."""
        if self.codec != "packets":
            return None
        if cycle != self._cycle:
            self._cycle, self._before = cycle, self._logged
        after = self._before
        if after is None or video.section != after.section:
            after = _Logged(video.section, cycle, video.first if video.begins else None)
        follows = not video.packets or video.first == after.next
        if after.next is None or not follows or after.key < self.first_kept:
            self._logged = after._replace(next=None)
            return None
        self._logged = _Logged(after.section, after.key, after.next + len(video.packets))
        own: dict[str, Any] = {
            "codec": "packets",
            "convert": CONVERSION if video.conversion is None else video.conversion,
            "section": video.section,
            "number": video.number,
            "first": video.first,
            "sizes": [len(packet) for packet, _ in video.packets],
            "keys": [is_key for _, is_key in video.packets],
            "key": after.key,
            "drained": video.drained,
        }
        if video.time_ns is not None:
            own["time_ns"] = video.time_ns
        if video.before:
            own["before"] = [
                [len(packet.data) for packet in video.before],
                [packet.is_key for packet in video.before],
                [packet.time_ns for packet in video.before],
            ]
        if after.key == cycle:
            made = video.decoder
            own["decoder"] = [
                made.name,
                made.extradata,
                made.width,
                made.height,
                made.pixel_format,
                made.tag,
                made.bits,
                made.reorder,
                *made.color,
                made.orientation,
            ]
        return own


class StoredPacket(NamedTuple):
    """A packet of a source, numbered in the order in which it came; decoders begin with a section."""

    section: int
    number: int
    data: memoryview
    is_key: bool


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture's message, taken apart, not decoded.

    own: the map of field 1000. data: what gives the pixels, a view.
    """

    own: dict[str, Any]
    source: str
    data: memoryview

    @classmethod
    def parse(cls, payload: memoryview) -> StoredPicture:
        """`ValueError` for bytes that are no such message."""
        raw: dict[int, Any] = dict(protobuf.fields(payload))
        try:
            own = msgpack.unpackb(raw[_FLOWRUN])
            data = protobuf.contents(raw[_DATA])
            _check_own(own)
            if _holds_packets(own):
                _check_packets(own, len(data))
            return cls(own, bytes(protobuf.contents(raw[_FRAME_ID])).decode(), data)
        except (KeyError, ValueError, TypeError, msgpack.UnpackException) as error:
            raise ValueError(f"not a stored picture: {error!r}") from error

    @property
    def packets(self) -> list[StoredPacket]:
        """In decoding order, without those `before`."""
        own = self.own
        found, at = [], sum(own["before"][0]) if "before" in own else 0
        for number, (size, is_key) in enumerate(
            zip(own["sizes"], own["keys"], strict=True), own["first"]
        ):
            data = self.data[at : at + size]
            found.append(StoredPacket(own["section"], number, data, is_key))
            at += size
        return found

    @property
    def holds_packets(self) -> bool:
        """Whether packets are in `data`: of codec "packets" nothing else is."""
        return _holds_packets(self.own)

    @property
    def is_damaged(self) -> bool:
        """Whether packets that it may need are known to be missing or damaged."""
        return bool(self.own.get("damaged"))

    @property
    def is_of_packets(self) -> bool:
        """Whether any decoder makes it of its section's packets: they alone give it, and none is known
        to be missing or damaged."""
        return self.own["codec"] == "packets" and not self.is_damaged

    @property
    def before(self) -> list[UnseenPacket]:
        """Packets of earlier sections that give no picture."""
        found, at = [], 0
        for size, is_key, time_ns in zip(*self.own.get("before", ((), (), ())), strict=True):
            found.append(UnseenPacket(self.data[at : at + size], is_key, time_ns))
            at += size
        return found

    @property
    def decoder(self) -> VideoDecoder | None:
        described = self.own.get("decoder")
        if described is None:
            return None
        name, extradata, width, height, pixel_format, tag, bits, reorder, space, span, *rest = (
            described
        )
        return VideoDecoder(
            name, extradata, width, height, pixel_format, tag, bits, reorder, (space, span), *rest
        )

    @property
    def layout(self) -> Layout | None:
        """How its planes lie; None of a picture of which there are pixels alone."""
        planes = self.own.get("planes")
        return None if planes is None else Layout(*planes)

    def unpacked(self) -> Kept:
        """The picture, where the message alone gives it (not of "packets").

        `ValueError` where it does not. Allocates what `size` says and no more.
        """
        height, width = self.own["size"]
        codec = self.own["codec"]
        if codec == "planes" and self.layout is not None:
            flat = np.frombuffer(self.data[_packets_size(self.own) :], np.uint8)
            if flat.size != self.layout.size:
                raise ValueError("planes that do not fit the data")
            return self.checked(PlanarPicture(self.layout, flat))
        if codec == "raw" or not height * width:
            flat = np.frombuffer(self.data, np.uint8)
        elif codec in LOSSLESS:
            flat = unpack(codec, self.data, height, width)
        else:
            raise ValueError(f"unknown codec {codec!r}")
        return self.checked(flat.reshape(height, width, 3))

    def kept(self, decoded: Any, *, on_read: Callable[[], None] | None = None) -> Kept:
        """What is kept of a decoded `av.VideoFrame` that may be this picture. `ValueError` where its
        colours cannot be converted.

        on_read: see `PlanarPicture`.
        """
        if self.layout is None:
            return RgbConverter(self.own.get("convert", 0)).rgb(decoded)
        return kept(decoded, on_read=on_read)

    def checked(self, kept: Kept) -> Kept:
        """`kept` if it is the recorded one, pixels contiguous; `ValueError` if not."""
        if self.layout is not None:
            crc = self.own.get("crc")
            recorded = self.layout, crc, self.own["size"]
            if self.own.get("convert") != CONVERSION:
                raise ValueError(f"pixels made by a conversion {self.own.get('convert')!r}")
            if isinstance(kept, PlanarPicture) and recorded == (
                kept.layout,
                None if crc is None else kept.crc,
                [kept.height, kept.width],
            ):
                return kept
            raise ValueError("another picture than was recorded")
        if isinstance(kept, PlanarPicture):
            raise ValueError("planes of a picture of which pixels were recorded")  # noqa: TRY004
        pixels = np.ascontiguousarray(kept)
        if list(pixels.shape[:2]) != self.own["size"] or (
            pixels.size and crc32(pixels.data.cast("B")) != self.own["crc"]
        ):
            raise ValueError("other pixels than were recorded")
        pixels.setflags(write=False)
        return pixels

    def fields(self, kept: Kept) -> dict[str, Any]:
        """The fields of an `ImageRgb8Msg`, for its `restore`."""
        return {
            "pixels": kept,
            "frame_id": self.own["frame_id"],
            "pts": self.own["pts"],
            "fps": self.own["fps"],
            "source": self.source,
            "pixel_aspect": self.own.get("pixel_aspect", 1.0),
        }


def _check_own(own: dict[str, Any]) -> None:
    height, width = own["size"]
    planes = own.get("planes")
    if not (
        type(own["frame_id"]) is int
        and (type(own["crc"]) is int if "crc" in own else _is_unread(own))
        and (own["pts"] is None or type(own["pts"]) is int)
        and type(own["fps"]) in (int, float)
        and type(own.get("pixel_aspect", 1.0)) in (int, float)
        and isinstance(own["codec"], str)
        and isinstance(own["size"], list)
        and _all_within([height, width], 0, _MOST_ROWS)
        and (planes is None or _is_layout(planes))
    ):
        raise ValueError(
            "frame_id, pts, fps, pixel_aspect, codec, size, planes or crc is of a wrong type or out of "
            "range"
        )


def _holds_packets(own: dict[str, Any]) -> bool:
    """Whether packets are in the data of a picture's map."""
    return own["codec"] == "packets" or (own["codec"] == "planes" and "sizes" in own)


def _packets_size(own: dict[str, Any]) -> int:
    """Bytes of all packets."""
    sizes: list[int] = [*own.get("sizes", ()), *own.get("before", ((),))[0]]
    return sum(sizes)


def _is_whole(picture: DecodedPicture | None, video: VideoPackets) -> bool:
    return not video.is_damaged and not (isinstance(picture, AskedPicture) and not picture.is_whole)


def _is_sure(picture: PlanarPicture, video: VideoPackets) -> bool:
    return video.is_sure and not (isinstance(picture, AskedPicture) and not picture.is_sure)


def _is_unread(own: dict[str, Any]) -> bool:
    """Whether nobody had read the picture, which its packets then give alone."""
    return own["codec"] == "packets" and "planes" in own


def _is_layout(planes: Any) -> bool:
    return (
        isinstance(planes, list)
        and len(planes) == len(Layout._fields)
        and isinstance(planes[0], str)
        and _all_within(planes[1:], 0, _MOST_ROWS)
        and UPRIGHT <= planes[-1] < 9
    )


def _check_packets(own: dict[str, Any], length: int) -> None:
    numbers = [own[name] for name in ("section", "number", "first", "key")]
    numbers.append(own.get("convert", 0))
    sizes, keys = own["sizes"], own["keys"]
    sizes_before, keys_before, times_before = own.get("before", ([], [], []))
    if not (
        isinstance(sizes, list)
        and isinstance(keys, list)
        and isinstance(sizes_before, list)
        and isinstance(keys_before, list)
        and _all_within(sizes_before, 1, _MOST_PACKETS)
        and isinstance(times_before, list)
        and len(keys_before) == len(times_before) == len(sizes_before)
        and all(it is None or type(it) is int for it in (own.get("time_ns"), *times_before))
        and _all_within(numbers, 0, _MOST_PACKETS)
        and _all_within(sizes, 1, _MOST_PACKETS)
        and type(own["drained"]) is bool
        and (sum(sizes) + sum(sizes_before) == length or own["codec"] == "planes")
        and sum(sizes) + sum(sizes_before) <= length
        and len(keys) == len(sizes)
    ):
        raise ValueError("packets that do not fit the data")
    if "decoder" in own:
        name, extradata, width, height, pixel_format, tag, *rest = own["decoder"]
        if not (
            isinstance(name, str)
            and isinstance(extradata, bytes)
            and _all_within([width, height], 0, _MOST_ROWS)
            and isinstance(pixel_format, str)
            and isinstance(tag, str)
            and len(rest) in (4, 5)
            and _all_within(rest, 0, _MOST_ROWS)
            and _all_within(rest[4:], UPRIGHT, 9)
        ):
            raise ValueError("a decoder with a field of a wrong type or out of range")


def _all_within(values: list[Any], least: int, end: int) -> bool:
    for value in values:  # noqa: SIM110  # three times as quick as `all` of a generator
        if type(value) is not int or not least <= value < end:
            return False
    return True
