"""A source's packets -> its pictures, decoded as the log that gets the packets will decode them.

The packets are cut into sections. A section begins with a key frame and a decoder that knows nothing
before it, and ends before the next one: so what is logged of it, decoded again from its beginning,
gives the same pictures, also where packets are missing or damaged. Which pictures are not sure to do so
is said of each; the log gets their pixels:

- those before the first key frame, as of a live source that is joined in the middle;
- those that come out after a packet was damaged, until the next section begins, of a device, or of a
  decoder that does not give them again, see `repeats`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.bitstream import WHOLE
from flowrun.runtime.pictures.planar import kept
from flowrun.runtime.pictures.video import (
    ContainerDecoder,
    LetGo,
    PacketDecoder,
    Take,
    repeats,
)
from flowrun.tasks.video.ahead import AheadDecoder, Cores
from flowrun.tasks.video.by_device import DeviceDecoder
from flowrun.tasks.video.codecs import AT_ONCE, IN_PARTS
from flowrun.tasks.video.hwaccel import Device
from flowrun.tasks.video.incoming import Fed, Incoming, Waiting
from flowrun.tasks.video.packets import Origin, PacketQueue
from flowrun.tasks.video.preparing import Preparing
from flowrun.tasks.video.sections import (
    MOST_HELD,
    MOST_LATE,
    Emit,
    Held,
    Picture,
    Section,
    Successor,
    is_kept,
)

__all__ = ["Counts", "SourceDecoder"]

_LONGEST = 500
"""Packets of a section after which the next key frame begins another, also where groups are open: a
jump in the log decodes no more, and the log of a flight recorder loses no more."""


_SMALL = 1 << 20
"""Pixels of pictures that take little memory. Larger ones that are logged get no spare thread: their
checksums keep the cores busy, and at 1080p it would take 14 MiB."""


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
    device: decodes what is not sure to need the CPU, see `by_device`; None where there is none. Then one
        core decodes the rest, until the device fails.
    after: of the connections of the source before this one; numbers go on after it.
    damaged: how many packets, or pictures, could not be decoded.
    on_refused: called with the time stamp of a packet that the decoder has refused, on any thread.
    logs_packets: whether packets of this codec can be logged.
    passed: how many pictures were not decoded since the last one that came out.
    """

    def __init__(
        self,
        stream: Any,
        queue: PacketQueue | None,
        *,
        cores: int = 1,
        device: Device | None = None,
        after: Counts = _NOTHING,
    ) -> None:
        counts_frames = cores > 1
        self._incoming = Incoming(stream, first=after.packets, counts_frames=counts_frames)
        self.logs_packets = self._incoming.logs_packets
        self.damaged = after.damaged
        self.on_refused: Callable[[int | None], None] | None = None
        self.passed = 0
        self._queue = queue if self.logs_packets else None
        self._context = stream.codec_context
        self._strict = self._incoming.strict
        codec, form = self._incoming.codec, self._incoming.form
        is_parallel = self.logs_packets and (codec in AT_ONCE | IN_PARTS or form in WHOLE)
        is_small = self._context.width * self._context.height <= _SMALL
        self._preparing = Preparing(
            Cores(cores, has_spare=queue is None or is_small)
            if cores > 1 and is_parallel
            else None,
            strict=self._strict,
            in_parts=codec in IN_PARTS,
        )
        self._device = device
        if device is not None and (not self.logs_packets or form in WHOLE):
            device.give_up(f"{codec} is decoded by the CPU alone")
        elif self._uses_device:
            self._preparing.lookahead = 0
        self._waiting: deque[Waiting] = deque()
        self._now: Waiting
        self._number = after.packets - 1
        """Of the packet that is being decoded."""
        self._fed: dict[int, Fed] = {}
        """By number, the packets whose pictures have not come out yet."""
        self._sections = after.sections
        self._current: Section | None = None
        self._next: Successor | None = None
        self._tried = -1
        """The number of the packet with which the last successor failed."""

    @property
    def counts(self) -> Counts:
        """What was counted so far."""
        return Counts(self._incoming.read, self._sections, self.damaged)

    def feed(self, packet: Any, emit: Emit) -> None:
        """Decode the next packet; `emit` is called with each picture that comes out."""
        if not packet.size:  # nothing new, or the container's end: to a decoder, its own end
            return
        waiting = self._looked_at(packet)
        self._waiting.append(waiting)
        self._preparing.prepare(waiting)
        while len(self._waiting) > self._preparing.lookahead:
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
        self._preparing.restart()

    def restart(self) -> None:
        """The stream goes on elsewhere, as after a seek."""
        self._current = self._next = None
        self._fed.clear()
        self._waiting.clear()
        self._preparing.restart()
        self._incoming.restart()
        if not self.logs_packets:
            self._context.flush_buffers()  # it may be at its end

    def close(self) -> None:
        """Nothing more is decoded: other sources get this one's share of the cores."""
        self._preparing.close()

    def _decode_next(self, emit: Emit) -> None:
        """Decode the packet that has waited longest."""
        waiting = self._now = self._waiting.popleft()
        data, is_key = waiting.data, waiting.is_key
        self._number = waiting.number
        self._fed[self._number] = waiting.fed
        if len(self._fed) > 4 * MOST_HELD:  # some gave no picture
            del self._fed[next(iter(self._fed))]
        if not self.logs_packets:
            if self._current is None:
                self._current = Section(ContainerDecoder(self._context), self._number)
            self._decode(self._current, waiting.packet, emit, is_key=is_key)
            return
        if not data:
            self.damaged += 1
            self._doubt()
            return
        if is_key and (not waiting.is_damaged or self._current is None):
            self._begin(waiting, emit)
        current = self._current = self._current or self._section(is_sure=False)
        if waiting.is_damaged:
            self._doubt()
        was_sure = current.is_sure
        took = self._decode(current, data, emit, is_key=is_key)
        if was_sure and (took or current.is_sure) and self._queue is not None:
            assert current.number is not None
            self._queue.append(current.number, self._number, data, is_key=is_key)
        if self._next is not None:
            self._try(self._next, data, emit, is_key=is_key)

    def _count_damaged(self) -> None:
        self.damaged += 1

    def _refuse(self, pts: int | None) -> None:
        """Count the packet of that time stamp as damaged."""
        self.damaged += 1
        if self.on_refused is not None:
            self.on_refused(pts)

    @property
    def _uses_device(self) -> bool:
        return self._device is not None and self._device.is_used

    def _looked_at(self, packet: Any) -> Waiting:
        """A packet that has come."""
        waiting = self._incoming.looked_at(packet)
        if not waiting.begins or self._uses_device:
            return waiting
        described = self._incoming.what_decodes(waiting)
        return waiting._replace(ahead=self._preparing.decoder(described))

    def _decode(self, section: Section, data: Any, emit: Emit, *, is_key: bool) -> bool:
        """Whether the decoder took the packet."""
        if section.decode(self._number, data, self._taker(section, emit), is_key=is_key):
            return True
        self._refuse(self._now.fed.pts)
        if self._strict:
            decoder = PacketDecoder(self._learnt(self._now))
            again = Section(decoder, self._number)
            again.decode(self._number, data, self._taker(again, emit), is_key=is_key)
        return False

    # -- pictures ------------------------------------------------------------------------------

    def _taker(self, section: Section, emit: Emit, *, drained: bool = False) -> Take:
        """Takes what comes out of the section's decoder."""
        fed = self._number

        def take(number: int | None, decoded: Any) -> LetGo | None:
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
            if is_kept(decoded):
                return emit(Picture(None, decoded, pts, origin))
            return emit(Picture(decoded, None, pts, origin, lasts=section.decoder.lasts))

        return take

    def _pop(self, number: int | None) -> Fed:
        """The packet of a picture that has come out."""
        found = None if number is None else self._fed.pop(number, None)
        return found or Fed(None, is_shown=True)

    def _drain(self, section: Section, emit: Emit) -> None:
        if not section.decoder.drain(self._taker(section, emit, drained=True)):
            self.damaged += 1

    # -- sections ------------------------------------------------------------------------------

    def _begin(self, waiting: Waiting, emit: Emit) -> None:
        """Begin a section with this key frame, if one should begin with it."""
        current = self._current
        if current is None:
            self._current = self._section(is_sure=True)
        elif waiting.begins:
            self._drain(current, emit)
            self._give_up(emit)
            self._current = self._section(is_sure=True)
            self._preparing.leave(current.decoder)
        elif self._next is None and (
            not current.is_whole
            or self._number - max(current.first, self._tried) >= _LONGEST
            or (self._queue is not None and self._queue.overflowed)
        ):
            described = self._learnt(self._now)
            section = self._made(described, self._sections)
            self._next = Successor(section, described, must_agree=current.is_whole)

    def _section(self, *, is_sure: bool) -> Section:
        """A section that begins with the packet of now."""
        described = self._learnt(self._now)
        section = self._made(described, self._sections if is_sure else None)
        if is_sure:
            self._begin_logged(described, section.first)
        return section

    def _made(self, described: VideoDecoder, number: int | None) -> Section:
        decoder: PacketDecoder | AheadDecoder | DeviceDecoder | None = None
        if number is not None and self._device is not None and self._device.is_used:
            decoder = DeviceDecoder(
                described,
                self._device,
                logs=self._queue is not None,
                damaged=self._count_damaged,
            )
        elif number is not None:
            decoder = self._preparing.begun(self._now, self._waiting, described)
        return Section(
            decoder or PacketDecoder(described, strict=self._strict),
            self._number,
            number,
            repeats=repeats(described) and not isinstance(decoder, DeviceDecoder),
        )

    def _begin_logged(self, described: VideoDecoder, first: int) -> None:
        """The log gets the next section from now on, which begins with packet `first`."""
        if self._queue is not None:
            self._queue.begin_section(self._sections, described, first)
        self._sections += 1

    def _learnt(self, waiting: Waiting) -> VideoDecoder:
        """What decodes a section that begins with this packet."""
        if self._current is not None:
            self._incoming.learn(self._current.decoder.reorder)
        return self._incoming.what_decodes(waiting)

    def _try(self, following: Successor, data: bytes, emit: Emit, *, is_key: bool) -> None:
        """Decode a packet of the section that may come next; it takes over when the one before has
        given all pictures that are shown before it."""
        section = following.section

        def take(number: int | None, decoded: Any) -> None:
            origin = section.origin_of(number, decoded, self._number, drained=False)
            if section.has_begun and number is not None:
                self._hold(number, decoded, origin, following.held.append)

        was_sure = section.is_sure
        took = section.decode(self._number, data, take, is_key=is_key)
        if was_sure and (took or section.is_sure):
            following.packets.append((self._number, data, is_key))
        if following.fails:
            self._give_up(emit)
            self._tried = self._number
        elif following.takes_over:
            self._take_over(following, emit)
        elif len(following.late) > MOST_LATE:
            following.given.update(it.number for it in following.late)
            self._release(following.late, emit)

    def _take_over(self, following: Successor, emit: Emit) -> Section:
        section = following.section
        if self._current is not None:
            self._preparing.leave(self._current.decoder)
        self._current, self._next = section, None
        section.skipped = following.given
        self._begin_logged(following.described, section.first)
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
            self._preparing.leave(self._next.section.decoder)
        self._next = None

    def _hold(
        self, number: int, decoded: Any, origin: Origin | None, keep: Callable[[Held], None]
    ) -> None:
        try:
            found = decoded if is_kept(decoded) else kept(decoded)
            keep(Held(number, found, origin))
        except ValueError:
            self.damaged += 1

    def _release(self, held: list[Held], emit: Emit) -> None:
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
