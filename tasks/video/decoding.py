"""A source's packets -> its pictures, decoded as the log that gets the packets will decode them.

The packets are cut into sections. A section begins with a key frame and a decoder that knows nothing
before it, and ends before the next one, or with the first packet that is damaged: so what is logged
of it, decoded again from its beginning, gives the same pictures. Which pictures are not sure to do so
is said of each; the log gets their pixels:

- those that come out after a packet was damaged, until the next section begins;
- those before the first key frame, as of a live source that is joined in the middle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NamedTuple

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.bitstream import WHOLE, closes, holds_parameters, with_start_codes
from flowrun.runtime.pictures.frame_numbers import FrameNumbers
from flowrun.runtime.pictures.planar import Kept, is_same, kept
from flowrun.runtime.pictures.stored import shown_format
from flowrun.runtime.pictures.video import (
    ContainerDecoder,
    PacketDecoder,
    Take,
    container_orientation,
    described,
)
from flowrun.tasks.video.ahead import AheadDecoder, Cores
from flowrun.tasks.video.packets import Origin, PacketQueue

__all__ = ["Counts", "Emit", "Fed", "Picture", "SourceDecoder", "Waiting"]

_LONGEST = 500
"""Packets of a section after which the next key frame begins another, also where groups are open: a
jump in the log decodes no more, and the log of a flight recorder loses no more."""
_MOST_HELD = 64
"""Packets after which a decoder must have given a picture, if it does at all."""
_MOST_LATE = 4
"""Pictures that a section holds before the one before it must have given its own."""
_FILTERS = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_LENGTH_PREFIXED = b"\x01"
"""First byte of the extradata of a stream whose packets have lengths instead of start codes."""
_LOGGED = frozenset(
    {
        *("h264", "hevc", "vp8", "vp9", "av1"),
        *("mpeg1video", "mpeg2video", "mpeg4", "h263", "flv1", "theora"),
        *("msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"),
        *("mjpeg", "jpeg2000", "png", "prores", "dnxhd", "dvvideo"),
        *("rawvideo", "ffv1", "huffyuv", "ffvhuff", "utvideo"),
    }
)
"""The codecs whose decoders need no more than `VideoDecoder` and the packets' bytes. Others may get more
from their container, as a palette."""
_THREADED = frozenset({"h264", "mpeg4"})
"""The codecs that several threads decode as one does, or report damage. The others do not say on several
threads what they refuse on one (VP9, AV1, MPEG-1 and 2), or leave parts of a damaged picture out without
a word (H.265, VP8, FFV1): what is there then depends on the memory that they got."""
_TURNING = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""FFmpeg's names of the containers that may say which way up their pictures are shown."""
_PALETTE = "pal8"
_JPEG = b"\xff\xd8\xff"
"""How a JPEG begins."""
_STRICT = frozenset({"mjpeg"})
"""Codecs whose decoders do not say that a picture is damaged unless they may refuse it, and whose
pictures need no other: one that is refused is decoded once more, as far as it goes."""


class Picture(NamedTuple):
    """A decoded picture, valid during the call that it is given to.

    decoded: the `av.VideoFrame`, None where `kept` is given instead.
    pts: of its packet, in the container's units; None where it has none.
    origin: the packets of which it is decoded; None where the log must have its pixels.
    passed: how many pictures before it were not decoded.
    lasts: whether `decoded` is valid after that too.
    """

    decoded: Any
    kept: Kept | None
    pts: int | None
    origin: Origin | None
    passed: int = 0
    lasts: bool = False


Emit = Callable[[Picture], "Future[Any] | None"]
"""Returns what `Take` does."""


class Fed(NamedTuple):
    """A packet that a decoder has got.

    pts: in the container's units; None where it has none.
    is_shown: False where the container says that its picture is there for others only, as those before
        the place where a film was cut.
    """

    pts: int | None
    is_shown: bool


class Waiting(NamedTuple):
    """A packet that was read and not decoded yet.

    packet: the container's.
    data: what the decoder and the log get; b"" where it cannot be read, or the codec is not logged.
    follows: False where it is damaged or a packet before it is missing.
    begins: whether it is a key frame with which a section begins whatever comes before it.
    ahead: decodes that section; None where that is not so, or done in one thread.
    """

    number: int
    packet: Any
    fed: Fed
    data: bytes
    is_key: bool = False
    is_damaged: bool = False
    follows: bool = False
    begins: bool = False
    ahead: AheadDecoder | None = None


class _Held(NamedTuple):
    """A picture that waits until it is known which section gives it."""

    number: int
    kept: Kept
    origin: Origin | None


class _Section:
    """Packets that one decoder gets.

    first: the number of its first packet.
    number: among the sections that the log may get; None of one that it does not.
    is_sure: whether decoding its packets again gives the same pictures.
    """

    def __init__(
        self, decoder: PacketDecoder | AheadDecoder, first: int, number: int | None = None
    ) -> None:
        self.decoder = decoder
        self.first = first
        self.number = number
        self.is_sure = number is not None
        self.has_begun = False
        """Whether the picture of its first packet has come out."""
        self.skipped: Collection[int] = ()
        """Numbers of its pictures that the section before has given."""
        self._given: deque[int] = deque(maxlen=_MOST_HELD)

    def doubt(self) -> None:
        """A packet is missing, or damaged."""
        self.is_sure = False
        if isinstance(self.decoder, AheadDecoder):
            self.decoder.start_over()

    def decode(self, number: int, data: Any, take: Take, *, is_key: bool) -> bool:
        """Decode a packet; False if the decoder refuses it."""
        took = self.decoder.decode(number, data, take, is_key=is_key)
        if not took or (not self.has_begun and number - self.first > _MOST_HELD):
            self.is_sure = False
        return took

    def origin_of(self, number: int | None, decoded: Any, fed: int, drained: bool) -> Origin | None:  # noqa: FBT001
        """Where a picture comes from that has just come out; None if that is not sure."""
        is_corrupt = bool(decoded.is_corrupt)
        if is_corrupt and self.has_begun:
            self.is_sure = False
        self.has_begun |= number == self.first
        if number is None or number < self.first or number in self._given:
            return None
        self._given.append(number)
        if not self.is_sure or not self.has_begun or is_corrupt:
            return None
        assert self.number is not None
        return Origin(self.number, number, fed, drained)


class _Successor:
    """A section that may take over from the one before: only its first picture shows that it can. The
    one before goes on until then.

    described: what decodes it.
    must_agree: whether the section before is sure of its pictures; the first one is then the same.
    """

    def __init__(self, section: _Section, described: VideoDecoder, *, must_agree: bool) -> None:
        self.section = section
        self.described = described
        self.packets: list[tuple[int, bytes, bool]] = []
        """Number, bytes, whether it is a key frame; for the log."""
        self.held: list[_Held] = []
        """Its pictures."""
        self.late: list[_Held] = []
        """Those of the section before, from the successor's first one on."""
        self.given: set[int] = set()
        """Numbers of those that were given: the successor begins too late to wait for it."""
        self._must_agree = must_agree
        self._expected: Kept | None = None
        """Its first picture, as the section before decoded it."""

    def waits_for(self, number: int) -> bool:
        """Whether a picture of the section before waits, as this one may give it instead."""
        if self.given:
            self.given.add(number)
            return False
        return bool(self.late) or number == self.section.first

    def wait(self, picture: _Held) -> None:
        self._expected = picture.kept if not self.late else self._expected
        self.late.append(picture)

    @property
    def fails(self) -> bool:
        """Whether it is no section of its own, as where what was called a key frame is none."""
        section = self.section
        if not section.is_sure and not section.has_begun:
            return True
        if not self._must_agree or not self.held or self._expected is None:
            return False
        return not section.is_sure or not is_same(self.held[0].kept, self._expected)

    @property
    def takes_over(self) -> bool:
        """Whether it does now, if it does not fail."""
        return bool(self.held) and (self._expected is not None or len(self.held) > _MOST_LATE)


class Counts(NamedTuple):
    """What was counted of a source's earlier connections.

    packets: its packets.
    sections: its sections that the log may have got.
    damaged: see `SourceDecoder`.
    """

    packets: int = 0
    sections: int = 0
    damaged: int = 0


_NOTHING = Counts()


class SourceDecoder:
    """Decodes the packets of `stream`, numbered from 0 in the order in which they come.

    queue: gets the packets for the log; None where no log wants them.
    cores: how many CPU cores may decode. With more than one, pictures come some packets later; they are
        the same ones.
    after: of the connections of the source before this one; numbers go on after it.
    damaged: how many packets, or pictures, could not be decoded.
    logs_packets: whether packets of this codec can be logged.
    passed: how many pictures were not decoded since the last one that came out.
    """

    def __init__(
        self,
        stream: Any,
        queue: PacketQueue | None,
        *,
        cores: int = 1,
        after: Counts = _NOTHING,
    ) -> None:
        context = stream.codec_context
        name = context.codec.canonical_name
        self.logs_packets = name in _LOGGED and context.pix_fmt != _PALETTE
        self.damaged = after.damaged
        self.passed = 0
        self._queue = queue if self.logs_packets else None
        self._context = context
        self._form = shown_format(name)
        self._strict = name in _STRICT
        extradata = context.extradata or b""
        self._filter: Any = None
        if name in _FILTERS:
            from av.bitstream import BitStreamFilterContext

            self._filter = BitStreamFilterContext(_FILTERS[name], stream)
            if extradata.startswith(_LENGTH_PREFIXED):
                extradata = with_start_codes(self._form, extradata)
        self._inserted = extradata
        """What FFmpeg's filter inserts before key frames: the container's parameters."""
        self._described = described(context, extradata)
        self._asks_container = self.logs_packets and stream.container.format.name in _TURNING
        """Whether its first packet is decoded once more, to hear which way up the pictures are shown."""
        self._in_packets = False
        """Whether packets have said what all pictures have in common, and not the container alone."""
        self._read = after.packets
        """How many packets have come."""
        is_parallel = self.logs_packets and (name in _THREADED or self._form in WHOLE)
        self._cores = Cores(cores) if cores > 1 and is_parallel else None
        self._frame_numbers = FrameNumbers(extradata) if name == "h264" and self._cores else None
        self._lookahead = 0 if self._cores is None else self._cores.threads()
        """How many packets wait, at the most."""
        self._waiting: deque[Waiting] = deque()
        self._preparing: list[AheadDecoder] = []
        """Those that get the packets that come."""
        self._now: Waiting
        self._number = after.packets - 1
        """Of the packet that is being decoded."""
        self._fed: dict[int, Fed] = {}
        """By number, the packets whose pictures have not come out yet."""
        self._sections = after.sections
        self._current: _Section | None = None
        self._next: _Successor | None = None
        self._tried = -1
        """The number of the packet with which the last successor failed."""

    @property
    def counts(self) -> Counts:
        """What was counted so far."""
        return Counts(self._read, self._sections, self.damaged)

    def feed(self, packet: Any, emit: Emit) -> None:
        """Decode the next packet; `emit` is called with each picture that comes out."""
        if not packet.size:  # nothing new, or the container's end: to a decoder, its own end
            return
        waiting = self._looked_at(packet)
        self._waiting.append(waiting)
        self._prepare(waiting)
        while len(self._waiting) > self._lookahead:
            self._decode_next(emit)

    def drain(self, emit: Emit) -> None:
        """The stream is at its end: have all pictures come out."""
        while self._waiting:
            self._decode_next(emit)
        if self._current is not None:
            self._drain(self._current, emit)
        if self._next is not None and self._next.held and not self._next.fails:
            self._drain(self._take_over(self._next, emit), emit)
        self._give_up(emit)
        self._current = None
        self._preparing.clear()

    def restart(self) -> None:
        """The stream goes on elsewhere, as after a seek."""
        self._current = self._next = None
        self._fed.clear()
        self._waiting.clear()
        self._preparing.clear()
        if self._filter is not None:
            self._filter.flush()

    def _decode_next(self, emit: Emit) -> None:
        """Decode the packet that has waited longest."""
        waiting = self._now = self._waiting.popleft()
        data, is_key = waiting.data, waiting.is_key
        self._number = waiting.number
        self._fed[self._number] = waiting.fed
        if len(self._fed) > 4 * _MOST_HELD:  # some gave no picture
            del self._fed[next(iter(self._fed))]
        if not self.logs_packets:
            if self._current is None:
                self._current = _Section(ContainerDecoder(self._context), self._number)
            self._decode(self._current, waiting.packet, emit, is_key=is_key)
            return
        if not data:
            self.damaged += 1
            self._doubt()
            return
        if waiting.is_damaged:
            self._doubt()
        elif is_key:
            self._begin(waiting, emit)
        current = self._current = self._current or self._section(data, is_sure=False)
        was_sure = current.is_sure
        took = self._decode(current, data, emit, is_key=is_key)
        if was_sure and took and self._queue is not None:
            assert current.number is not None
            self._queue.append(current.number, self._number, data, is_key=is_key)
        if self._next is not None:
            self._try(self._next, data, emit, is_key=is_key)

    # -- packets -------------------------------------------------------------------------------

    def _looked_at(self, packet: Any) -> Waiting:
        """A packet that has come, and what is known of it before any other is decoded."""
        number = self._read
        self._read += 1
        fed = Fed(packet.pts, not packet.is_discard)  # a filter empties the packet
        is_key, is_damaged = bool(packet.is_keyframe), bool(packet.is_corrupt)
        if self._asks_container:
            self._asks_container = False
            orientation = container_orientation(self._context, packet)
            self._described = replace(self._described, orientation=orientation)
        data = self._bytes(packet) if self.logs_packets else b""
        begins, follows, ahead = False, False, None
        if data:
            has_parameters = holds_parameters(self._form, data)
            begins = (
                is_key
                and not is_damaged
                and (has_parameters or not self._in_packets)
                and closes(self._form, data)
            )
            self._in_packets |= has_parameters
            follows = not is_damaged and (
                self._frame_numbers is None or self._frame_numbers.follows(data)
            )
            if begins and self._cores is not None:
                ahead = self._ahead(self._what_decodes(data))
        return Waiting(number, packet, fed, data, is_key, is_damaged, follows, begins, ahead)

    def _glanced_at(self, packet: Any) -> Waiting:
        """A packet that has come, of which nothing but the bytes matters."""
        number = self._read
        self._read += 1
        return Waiting(
            number,
            packet,
            Fed(packet.pts, not packet.is_discard),
            self._bytes(packet),
            is_damaged=bool(packet.is_corrupt),
        )

    def _ahead(self, described: VideoDecoder) -> AheadDecoder | None:
        """What decodes a section on several cores, where there are any."""
        threads = 1 if self._cores is None else self._cores.threads()
        if threads == 1:
            return None
        self._lookahead = max(self._lookahead, threads)
        return AheadDecoder(described, threads, strict=self._strict)

    def _prepare(self, waiting: Waiting) -> None:
        """Have the packet decoded ahead by those that will get it."""
        if waiting.begins:
            for decoder in self._preparing:
                decoder.end()
            self._preparing = [] if waiting.ahead is None else [waiting.ahead]
        elif not waiting.follows:
            self._preparing.clear()
        for decoder in self._preparing:
            decoder.prepare(waiting.number, waiting.data, is_key=waiting.is_key)

    def _begun_ahead(self, described: VideoDecoder) -> AheadDecoder | None:
        """What decodes a section that begins with the packet of now; it has got those that wait."""
        now = self._now
        if now.ahead is not None:
            if now.ahead.known == described:
                return now.ahead
            self._leave(now.ahead)
        made = self._ahead(described)
        if made is None:
            return None
        for waiting in (now, *self._waiting):
            if waiting is not now and waiting.begins:
                made.end()
                return made
            if waiting is not now and not waiting.follows:
                return made
            made.prepare(waiting.number, waiting.data, is_key=waiting.is_key)
        self._preparing.append(made)
        return made

    def _leave(self, decoder: Any) -> None:
        """Nothing more is decoded by this one."""
        if isinstance(decoder, AheadDecoder):
            self._preparing = [it for it in self._preparing if it is not decoder]
            if self._cores is not None:
                self._cores.report(is_damaged=decoder.is_damaged)

    def _bytes(self, packet: Any) -> bytes:
        """What the decoder and the log get of `packet`; b"" where the filter cannot read it.

        FFmpeg's filter for H.265 inserts parameters also before those that a packet has itself. Where
        these are others, the decoder would lose pictures between the two.
        """
        import av

        try:
            made = [packet] if self._filter is None else self._filter.filter(packet)
        except av.error.FFmpegError:
            return b""
        data = bytes(made[0]) if len(made) == 1 else b"".join(map(bytes, made))
        own = data.removeprefix(self._inserted)
        return own if len(own) < len(data) and holds_parameters(self._form, own) else data

    def _decode(self, section: _Section, data: Any, emit: Emit, *, is_key: bool) -> bool:
        """Whether the decoder took the packet."""
        if section.decode(self._number, data, self._taker(section, emit), is_key=is_key):
            return True
        self.damaged += 1
        if self._strict:
            decoder = PacketDecoder(self._learnt(data))
            again = _Section(decoder, self._number)
            again.decode(self._number, data, self._taker(again, emit), is_key=is_key)
        return False

    # -- pictures ------------------------------------------------------------------------------

    def _taker(self, section: _Section, emit: Emit, *, drained: bool = False) -> Take:
        """Takes what comes out of the section's decoder."""
        fed = self._number

        def take(number: int | None, decoded: Any) -> Future[Any] | None:
            origin = section.origin_of(number, decoded, fed, drained)
            if number in section.skipped:
                return None
            waits = self._next is not None and number is not None and self._next.waits_for(number)
            if waits:
                assert self._next is not None
                assert number is not None
                self._hold(number, decoded, origin, self._next.wait)
                return None
            pts, is_shown = self._pop(number)
            if not is_shown:
                return None
            return emit(Picture(decoded, None, pts, origin, lasts=section.decoder.lasts))

        return take

    def _pop(self, number: int | None) -> Fed:
        """The packet of a picture that has come out."""
        found = None if number is None else self._fed.pop(number, None)
        return found or Fed(None, is_shown=True)

    def _drain(self, section: _Section, emit: Emit) -> None:
        if not section.decoder.drain(self._taker(section, emit, drained=True)):
            self.damaged += 1

    # -- sections ------------------------------------------------------------------------------

    def _begin(self, waiting: Waiting, emit: Emit) -> None:
        """Begin a section with this key frame, if one should begin with it."""
        current, data = self._current, waiting.data
        if current is None:
            self._current = self._section(data, is_sure=True)
        elif waiting.begins:
            self._drain(current, emit)
            self._give_up(emit)
            self._current = self._section(data, is_sure=True)
            self._leave(current.decoder)
        elif self._next is None and (
            not current.is_sure
            or self._number - max(current.first, self._tried) >= _LONGEST
            or (self._queue is not None and self._queue.overflowed)
        ):
            described = self._learnt(data)
            section = self._made(described, self._sections)
            self._next = _Successor(section, described, must_agree=current.is_sure)

    def _section(self, data: bytes, *, is_sure: bool) -> _Section:
        """A section that begins with the packet of now."""
        described = self._learnt(data)
        section = self._made(described, self._sections if is_sure else None)
        if is_sure:
            self._begin_logged(section, described)
        return section

    def _made(self, described: VideoDecoder, number: int | None) -> _Section:
        decoder = None if number is None else self._begun_ahead(described)
        return _Section(
            decoder or PacketDecoder(described, strict=self._strict), self._number, number
        )

    def _begin_logged(self, section: _Section, described: VideoDecoder) -> None:
        """The log gets this section from now on."""
        self._sections += 1
        if self._queue is not None:
            assert section.number is not None
            self._queue.begin_section(section.number, described, section.first)

    def _learnt(self, data: bytes) -> VideoDecoder:
        """What decodes a section that begins with this packet; the next ones profit from it."""
        if self._current is not None and self._current.decoder.reorder > self._described.reorder:
            self._described = replace(self._described, reorder=self._current.decoder.reorder)
        return self._what_decodes(data)

    def _what_decodes(self, data: bytes) -> VideoDecoder:
        """What decodes a section that begins with this packet, as far as is known now. FFmpeg takes a
        JPEG that is lower than it was told for half of an interlaced picture, whose other half comes in
        the same packet."""
        if self._form == "mjpeg" and data.count(_JPEG) == 1:
            return replace(self._described, width=0, height=0)
        return self._described

    def _try(self, following: _Successor, data: bytes, emit: Emit, *, is_key: bool) -> None:
        """Decode a packet of the section that may come next; it takes over when the one before has
        given all pictures that are shown before it."""
        section = following.section

        def take(number: int | None, decoded: Any) -> None:
            origin = section.origin_of(number, decoded, self._number, drained=False)
            if section.has_begun and number is not None:
                self._hold(number, decoded, origin, following.held.append)

        was_sure = section.is_sure
        if section.decode(self._number, data, take, is_key=is_key) and was_sure:
            following.packets.append((self._number, data, is_key))
        if following.fails:
            self._give_up(emit)
            self._tried = self._number
        elif following.takes_over:
            self._take_over(following, emit)
        elif len(following.late) > _MOST_LATE:
            following.given.update(it.number for it in following.late)
            self._release(following.late, emit)

    def _take_over(self, following: _Successor, emit: Emit) -> _Section:
        section = following.section
        if self._current is not None:
            self._leave(self._current.decoder)
        self._current, self._next = section, None
        section.skipped = following.given
        self._begin_logged(section, following.described)
        if self._queue is not None:
            assert section.number is not None
            for number, data, is_key in following.packets:
                self._queue.append(section.number, number, data, is_key=is_key)
        self._release([it for it in following.held if it.number not in following.given], emit)
        return section

    def _give_up(self, emit: Emit) -> None:
        """No section follows yet."""
        if self._next is not None:
            self._release(self._next.late, emit)
            self._leave(self._next.section.decoder)
        self._next = None

    def _hold(
        self, number: int, decoded: Any, origin: Origin | None, keep: Callable[[_Held], None]
    ) -> None:
        try:
            keep(_Held(number, kept(decoded), origin))
        except ValueError:
            self.damaged += 1

    def _release(self, held: list[_Held], emit: Emit) -> None:
        for number, found, origin in held:
            pts, is_shown = self._pop(number)
            if is_shown:
                emit(Picture(None, found, pts, origin))
        held.clear()

    def _doubt(self) -> None:
        """A packet is missing."""
        if self._current is not None:
            self._current.doubt()
        if self._next is not None:
            self._next.section.doubt()
