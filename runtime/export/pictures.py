"""The pictures of one topic in a form that viewers show: a stream of packets, JPEGs, or pixels.

A camera's packets go out as they are where a viewer can take one after the other: H.264, H.265, VP9
or AV1 whose pictures come in the order of their packets. Foxglove and Rerun show no B-frames, whose
order is another. Packets that are JPEGs are JPEGs. All else that was logged as packets is decoded and
encoded again, and `PictureExport.note` says so: as H.264 without B-frames, or as JPEGs where sizes are
odd, which H.264 cannot have. Pictures made by a task stay as exact as they are. Pixels that are not
square are made square, as viewers show them so; `Stretches` says where boxes lie then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.errors import LogDamaged, LogError
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.export.sources import pictures_before
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CODEC, KEYFRAME_TOPIC
from flowrun.runtime.pictures.bitstream import begins, exif_orientation, with_parameters
from flowrun.runtime.pictures.convert import UPRIGHT
from flowrun.runtime.pictures.encode import CRF, StreamEncoder, jpeg
from flowrun.runtime.pictures.squares import square_size, squared
from flowrun.runtime.pictures.stored import StoredPacket, StoredPicture, shown_format
from flowrun.runtime.pictures.video import PacketDecoder

__all__ = ["JPEG", "PIXELS", "STREAMS", "PictureExport", "Shown", "Stretches", "shown_topics"]

STREAMS = ("h264", "h265", "vp9", "av1")
JPEG, PIXELS = "jpeg", "rgb8"
_AGAIN = "h264"
"""What is encoded again becomes this."""
_LEAD_STEP_NS = 1000
"""Between the packets before the first picture: their own times are not known."""
_HUFFMAN_TABLES = b"\xff\xc4"
_JPEG_QUALITY = 90


def shown_topics(log: Log, selection: Selection) -> list[str]:
    """The topics that viewers get: without what the tasks remembered, unless it is asked for."""
    if selection.topics is not None:
        return list(selection.topics)
    return [name for name in log.topics if name != KEYFRAME_TOPIC]


class Shown(NamedTuple):
    """A picture, or a packet of a stream, as it goes out.

    data: the packet or the JPEG. pixels: where the form is `PIXELS`.
    """

    time_ns: int
    tov_ns: int
    source: str
    data: bytes | memoryview
    pixels: NDArray[np.uint8] | None


@dataclass(slots=True)
class _Begin:
    """Where decoding begins: what the decoder must know, and the packets before the first
    selected picture's message."""

    decoder: VideoDecoder
    packets: list[StoredPacket]


class PictureExport:
    """The selected pictures of `topic`.

    form: one of `STREAMS`, `JPEG` or `PIXELS`, of all of them. note: why it is another than the
    source's, "" where nothing was lost. Reads the topic's messages once to find out; where pictures
    were dropped on the way to the log, it decodes them too.

    stretch: how many columns and rows as they go out there are to one of the log, of the newest
        picture: 1 each where its pixels are square.
    """

    def __init__(self, log: Log, topic: str, selection: Selection) -> None:
        self._log, self._topic = log, topic
        self._decoder: VideoDecoder | None = None
        self._last: tuple[int, int] | None = None
        self._encoder: StreamEncoder | None = None
        self._odd = False
        self.stretch = (1.0, 1.0)
        self.form, why = self._form(selection)
        self.note = ""
        if why and self._odd:
            self.form = JPEG
            self.note = f"{topic}: {why}: written as JPEGs (quality {_JPEG_QUALITY})"
        elif why:
            self._encoder = StreamEncoder()
            self.note = f"{topic}: {why}: encoded again as H.264 (crf {CRF})"
        elif self.form == PIXELS:
            self.note = self._note_of_pixels(selection)

    def shown(self, message: LogMessage) -> Iterator[Shown]:
        """What goes out for `message`; call it with the selected ones of the topic, in order.

        Nothing for a picture of a stream that cannot be decoded as it comes before the first key
        frame; `LogError` for another that cannot.
        """
        if self.form in STREAMS and self._encoder is None:
            yield from self._stream(message)
            return
        self.stretch = (1.0, 1.0)
        source, data = "", memoryview(b"")
        if self.form == JPEG:
            picture = _parsed(message)
            own = picture.own
            is_square = _square(own) == tuple(own["size"])
            is_packet = picture.is_of_packets and own["sizes"]
            if is_packet and is_square and _is_jpeg(picture.packets[-1].data):
                data, source = picture.packets[-1].data, picture.source
        if data:
            yield Shown(message.time_ns, message.tov_ns, source, data, None)
            return
        fields = message.fields
        logged: NDArray[np.uint8] = fields["pixels"]
        pixels = squared(logged, fields["pixel_aspect"])
        if pixels is not logged:
            self.stretch = (pixels.shape[1] / logged.shape[1], pixels.shape[0] / logged.shape[0])
        if self._encoder is not None:
            data = memoryview(self._encoder.encode(pixels))
        elif self.form == JPEG:
            data = memoryview(jpeg(pixels, quality=_JPEG_QUALITY))
        yield Shown(message.time_ns, message.tov_ns, fields["source"], data, pixels)

    def begin_again(self) -> None:
        """The next message need not be the one after the last: a stream begins at its key frame."""
        self._last = None
        if self._encoder is not None:
            self._encoder = StreamEncoder()

    # -- which form ----------------------------------------------------------------------------

    def _form(self, selection: Selection) -> tuple[str, str]:
        if self._log.topics[self._topic].metadata.get(CODEC) != "packets":
            return PIXELS, ""
        first: tuple[LogMessage, StoredPicture] | None = None
        kinds, formats = set(), set()
        reordered = several = jpegs = is_damaged = False
        last, aspect = -1, 1.0
        for message in self._log.messages(self._topic, **selection.bounds):
            picture = _parsed(message)
            own = picture.own
            kinds.add(own["codec"])
            size = _square(own)
            if size != tuple(own["size"]):
                aspect = own["pixel_aspect"]
            self._odd |= any(length % 2 or not length for length in size)
            if own["codec"] != "packets":
                continue
            first = first or (message, picture)
            is_damaged |= picture.is_damaged
            if picture.decoder is not None:
                formats.add(shown_format(picture.decoder.name))
            reordered |= own["number"] < last
            last = own["number"]
            several |= len(own["sizes"]) > 1
            if first[0] is message:
                jpegs = bool(own["sizes"]) and _is_jpeg(picture.packets[-1].data)
        if first is None:
            return PIXELS, ""
        begin = self._begin(*first)
        if begin is not None:
            formats.add(shown_format(begin.decoder.name))
        if begin is not None and begin.decoder.orientation != UPRIGHT:
            return _AGAIN, "it is turned, which viewers do not do"
        if aspect != 1:
            return _AGAIN, _not_square(aspect)
        if len(formats) > 1:
            return _AGAIN, f"its codec changes ({', '.join(sorted(formats))})"
        name = next(iter(formats), "")
        if name == "mjpeg" and jpegs:
            return JPEG, ""
        if name not in STREAMS:
            return _AGAIN, f"viewers do not show {name or 'packets without a key frame'}"
        if len(kinds) > 1:
            return _AGAIN, "not all of its pictures are logged as packets"
        if is_damaged:
            return _AGAIN, "some of its packets are missing or damaged"
        if reordered or (several and not self._in_order(begin, first[0].cycle, selection)):
            return _AGAIN, "its stream has B-frames, which Foxglove and Rerun do not show"
        if begin is not None and not _begins(name, begin, first[1]):
            return _AGAIN, "its stream has no key frame at which viewers could begin"
        return name, ""

    def _note_of_pixels(self, selection: Selection) -> str:
        """By the first picture that can be read."""
        for message in self._log.messages(self._topic, **selection.bounds):
            with contextlib.suppress(LogError):
                fields = message.fields
                aspect, (height, width, _) = fields["pixel_aspect"], fields["pixels"].shape
                is_square = square_size(height, width, aspect) == (height, width)
                return "" if is_square else f"{self._topic}: {_not_square(aspect)}"
        return ""

    def _in_order(self, begin: _Begin | None, cycle: int, selection: Selection) -> bool:
        """Whether the decoder gives the pictures in the order of their packets."""
        if begin is None:
            return True
        messages = self._log.messages(
            self._topic, cycle, selection.bounds.get("end"), end_ns=selection.bounds.get("end_ns")
        )
        order: list[int] = []

        def take(number: int | None, _picture: Any) -> None:
            if number is not None:
                order.append(number)

        section = -1
        decoder: PacketDecoder | None = None
        described = begin.decoder
        rest = (packet for message in messages for packet in _parsed(message).packets)
        for packet in chain(begin.packets, rest):
            if packet.section != section:
                if decoder is not None:
                    decoder.drain(take)
                decoder = PacketDecoder(described, ahead=True)
                section = packet.section
            if decoder is not None:
                decoder.decode(packet.number, packet.data, take, is_key=packet.is_key)
            if any(later < sooner for sooner, later in pairwise(order)):
                return False
            del order[:-1]
        return True

    # -- a stream ------------------------------------------------------------------------------

    def _begin(self, message: LogMessage, picture: StoredPicture) -> _Begin | None:
        """None where the log does not hold the key frame."""
        key = picture.own["key"]
        if key < 0:
            return None
        packets: list[StoredPacket] = []
        decoder: VideoDecoder | None = None
        for earlier in self._log.messages(self._topic, key, message.cycle + 1):
            stored = _parsed(earlier)
            if earlier.cycle == key:
                decoder = stored.decoder
            if earlier.cycle < message.cycle and stored.own["codec"] == "packets":
                packets += stored.packets
        if decoder is None:
            return None
        return _Begin(decoder, _from_last_key(packets))

    def _stream(self, message: LogMessage) -> Iterator[Shown]:
        picture = _parsed(message)
        if picture.decoder is not None:
            self._decoder = picture.decoder
        packets = picture.packets
        if self._last is None:
            begin = self._begin(message, picture)
            if begin is None:
                raise LogError(
                    f"{self._log.path}: cycle {message.cycle}: {self._topic}: the picture cannot be "
                    "decoded: it comes before the first key frame in the log"
                )
            self._decoder = begin.decoder
            packets = _from_last_key([*begin.packets, *packets])
        for left, packet in enumerate(packets, 1 - len(packets)):
            time_ns, tov_ns = self._times(message, -left, len(packets))
            data: bytes | memoryview = packet.data
            if packet.is_key and self._decoder is not None:
                data = with_parameters(self.form, packet.data, self._decoder.extradata)
            yield Shown(time_ns, tov_ns, picture.source, data, None)
        self._last = message.time_ns, message.tov_ns

    def _times(self, message: LogMessage, left: int, count: int) -> tuple[int, int]:
        """Of a packet, `left` before the message's own: those between two pictures are spread
        evenly, those before the first are close before it."""
        own = message.time_ns, message.tov_ns
        if self._last is None:
            return own[0] - left * _LEAD_STEP_NS, own[1] - left * _LEAD_STEP_NS
        time_ns, tov_ns = (
            now - (now - before) * left // count
            for now, before in zip(own, self._last, strict=True)
        )
        return time_ns, tov_ns


class Stretched(Protocol):
    """What writes pictures, and how it has stretched the newest one; see `PictureExport`."""

    @property
    def stretch(self) -> tuple[float, float]: ...

    def begin_again(self) -> None: ...


class Stretches:
    """How boxes, zones and lines lie in the pictures that they are about, as these went out.

    graph: the log's attachment graph.json, which says which pictures those are.
    """

    def __init__(self, graph: bytes) -> None:
        self._graph = graph
        self._pictures: dict[str, Stretched] = {}

    def add(self, topic: str, pictures: Stretched) -> None:
        """Note what writes the pictures of `topic`."""
        self._pictures[topic] = pictures

    def begin_again(self) -> None:
        """See `PictureExport.begin_again`, of all pictures."""
        for pictures in self._pictures.values():
            pictures.begin_again()

    def of(self, topic: str) -> tuple[float, float]:
        """By how much what a message of `topic` draws is made wider and higher, to be where it is in the
        newest picture that it is about; (1, 1) where that may be one of several."""
        about = pictures_before(topic, self._pictures, self._graph)
        stretches = {self._pictures[it].stretch for it in about}
        return stretches.pop() if len(stretches) == 1 else (1.0, 1.0)


def _parsed(message: LogMessage) -> StoredPicture:
    try:
        return StoredPicture.parse(message.payload)
    except ValueError as error:
        raise LogDamaged(f"cycle {message.cycle}: {message.topic}: {error}") from error


def _square(own: dict[str, Any]) -> tuple[int, int]:
    """Height and width of a stored picture made of square pixels."""
    height, width = own["size"]
    return square_size(height, width, own.get("pixel_aspect", 1.0))


def _not_square(aspect: float) -> str:
    return f"its pixels are {aspect:.3g} times as wide as high, made square"


def _from_last_key(packets: list[StoredPacket]) -> list[StoredPacket]:
    keys = [at for at, packet in enumerate(packets) if packet.is_key]
    return packets[keys[-1] :] if keys else packets


def _is_jpeg(data: memoryview) -> bool:
    """Whether a packet of an MJPEG stream is a JPEG file that viewers show as it is: cameras may leave
    the tables out, and viewers may not turn it."""
    content = bytes(data)
    return (
        content.startswith(b"\xff\xd8\xff")
        and _HUFFMAN_TABLES in content
        and exif_orientation("mjpeg", content) == UPRIGHT
    )


def _begins(form: str, begin: _Begin, picture: StoredPicture) -> bool:
    """Whether a decoder that knows nothing yet can begin with the first packet."""
    packets = _from_last_key([*begin.packets, *picture.packets])
    return begins(form, packets[0].data)
