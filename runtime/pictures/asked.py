"""Pictures that are decoded when somebody first reads them.

Which picture a message shows follows from its packets alone, as `searched` finds it, so that a replay
shows the same. A decoder that goes on from one picture to the next only saves work.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.planar import Layout, PlanarPicture, copied, layout_of
from flowrun.runtime.pictures.video import PacketDecoder, Take, repeats

__all__ = [
    "AskedPicture",
    "AskedSection",
    "Found",
    "SectionPacket",
    "UnprovenPicture",
    "searched",
]

_MOST_BYTES = 64 << 20
"""Of packets that a section keeps. Past it, all but the last few are decoded and dropped."""
_NEWEST = 64
"""How many packets are never dropped: decoders hold back 16 pictures, and some wait for a cycle."""

Data = NDArray[np.uint8]
"""Planes, as `PlanarPicture.data`."""


class SectionPacket(NamedTuple):
    """One packet of a section, numbered in decoding order."""

    number: int
    data: bytes | memoryview
    is_key: bool


class Found(NamedTuple):
    """What was found of a picture.

    is_whole: False where packets that it may need are damaged, or it did not come out.
    is_sure: False where decoding its packets again may give another one.
    """

    data: Data
    is_whole: bool = True
    is_sure: bool = True


class _Search:
    """Looks for a picture among those that come out of a decoder.

    number: that of its packet.
    layout: how it lies; one that lies otherwise is another picture.
    """

    def __init__(self, number: int, layout: Layout) -> None:
        self._number, self._layout = number, layout
        self.found: Data | None = None
        self.last: Data | None = None
        """The picture that came out last."""
        self.is_whole = True

    def take(self, number: int | None, decoded: Any) -> None:
        """As `Take`."""
        self.is_whole &= not decoded.is_corrupt
        if layout_of(decoded) != self._layout or self.found is not None:
            return
        self.last = copied(decoded, self._layout)
        if number == self._number:
            self.found = self.last


def searched(
    described: VideoDecoder, packets: Iterable[SectionPacket], number: int, layout: Layout
) -> Found:
    """The picture of packet `number`, decoded from the beginning of its section.

    It is what a decoder gives that gets `packets` and is then drained. Where that gives none, it is
    the last one that came out, or one whose planes are all 0.
    """
    search = _Search(number, layout)
    decoder = PacketDecoder(described)
    for packet in packets:
        took = decoder.decode(packet.number, packet.data, search.take, is_key=packet.is_key)
        search.is_whole &= took  # not at once: `take` changes it meanwhile
        if search.found is not None:
            break
    else:
        took = decoder.drain(search.take)
        search.is_whole &= took
    data = search.last if search.found is None else search.found
    is_whole = search.is_whole and search.found is not None
    return Found(_empty(layout) if data is None else data, is_whole, is_whole or repeats(described))


class _Step(NamedTuple):
    """How far a section is decoded: up to packet `fed`; `drained`: and its decoder drained."""

    fed: int
    drained: bool = False


class AskedSection:
    """The packets of one section, decoded when somebody asks for a picture. For any thread.

    Whether a picture is whole follows from the packets up to its own, however late it is read and
    however much is known by then of those after it.

    described: what decodes it.
    layout: how its pictures lie.
    damaged: called for each picture that was asked for and is not whole.
    strict: as of `PacketDecoder`; what is refused then is decoded as far as it goes, and is not whole.
    """

    def __init__(
        self,
        described: VideoDecoder,
        layout: Layout,
        damaged: Callable[[], None],
        *,
        strict: bool,
    ) -> None:
        self._described, self._layout, self._damaged = described, layout, damaged
        self._strict = strict
        self._lock = threading.Lock()
        self._packets: list[SectionPacket] = []
        self._size = 0
        self.is_whole = True
        """Whether no packet that came is known to be missing or damaged; what decoding showed does not
        count, as it depends on what was read."""
        self._hurt = _Step(sys.maxsize)
        """The first step at which decoding showed damage."""
        self._is_complete = True
        """Whether no packet was dropped."""
        self._decoder: PacketDecoder | None = None
        """The one that goes on from picture to picture."""
        self._next = 0
        """Number of the packet that it gets next."""
        self._out: dict[int, Data] = {}
        """By number, pictures that it gave and that may be asked for."""

    def append(self, number: int, data: bytes, *, is_key: bool) -> None:
        """Keep the next packet; always on the same thread. It does not wait for a picture that is being
        decoded: who decodes one passes over packets that come meanwhile."""
        self._packets.append(SectionPacket(number, data, is_key))
        self._size += len(data)
        if self._size > _MOST_BYTES and len(self._packets) > 2 * _NEWEST:
            with self._lock:
                self._shorten()

    def doubt(self) -> None:
        """A packet is missing, or damaged."""
        self.is_whole = False

    def asks_for(self, number: int, fed: int, *, drained: bool) -> AskedPicture:
        """The picture of packet `number`, as a decoder gives it that got the packets up to `fed`.

        drained: whether the section has no more.
        """
        find = partial(self._picture, number, _Step(fed, drained), came_whole=self.is_whole)
        return AskedPicture(self._layout, find)

    def _picture(self, number: int, step: _Step, *, came_whole: bool) -> Found:
        with self._lock:
            data = self._next_data(number, step)
            if data is None:
                found = self._searched(number, step.fed)
                self._note(step, is_whole=found.is_whole)
                data = found.data
            is_whole = came_whole and step < self._hurt
        if not is_whole:
            self._damaged()
        return Found(data, is_whole, is_whole or repeats(self._described))

    def _note(self, step: _Step, *, is_whole: bool) -> None:
        if not is_whole:
            self._hurt = min(self._hurt, step)

    def _next_data(self, number: int, step: _Step) -> Data | None:
        """The picture, where the decoder that goes on still gives it."""
        if number not in self._out and self._can_reach(step.fed):
            self._advance(step.fed, number)
            if step.drained:
                assert self._decoder is not None
                took = self._decoder.drain(self._keeper(step, None))
                self._note(step, is_whole=took)
                self._decoder = None  # it has 10 MiB at 1080p
        return self._out.pop(number, None)

    def _searched(self, number: int, fed: int) -> Found:
        if not self._is_complete:
            raise ValueError(
                f"the picture of packet {number} was read too late: what it needs was dropped"
            )
        self._decoder = None
        packets = [it for it in self._packets if it.number <= fed]
        return searched(self._described, packets, number, self._layout)

    def _can_reach(self, fed: int) -> bool:
        if self._decoder is None and self._is_complete:
            self._decoder = PacketDecoder(self._described, strict=self._strict)
            self._next = self._packets[0].number
            self._out.clear()
        return self._decoder is not None and self._next <= fed + 1

    def _advance(self, fed: int, number: int | None) -> None:
        """Decode the packets up to `fed`; keep picture `number`, and what comes with the last."""
        assert self._decoder is not None
        for packet in self._packets[self._next - self._packets[0].number :]:
            if packet.number > fed:
                break
            step = _Step(packet.number)
            keep = self._keeper(step, None if packet.number == fed else number)
            took = self._decoder.decode(packet.number, packet.data, keep, is_key=packet.is_key)
            self._note(step, is_whole=took)
            self._next = packet.number + 1

    def _keeper(self, step: _Step, only: int | None) -> Take:
        """Keeps one picture of those that come out at `step`, or all."""

        def take(number: int | None, decoded: Any) -> None:
            self._note(step, is_whole=not decoded.is_corrupt)
            if number is None or only not in (None, number) or layout_of(decoded) != self._layout:
                return
            self._out[number] = copied(decoded, self._layout)
            while len(self._out) > _NEWEST:
                del self._out[next(iter(self._out))]

        return take

    def _shorten(self) -> None:
        """Decode all packets but the newest, and drop them."""
        newest = self._packets[-_NEWEST:]
        if self._can_reach(newest[0].number - 1):
            self._advance(newest[0].number - 1, -1)
        self._is_complete = False
        self._packets = newest
        self._size = sum(len(it.data) for it in newest)


class AskedPicture(PlanarPicture):
    """A picture that nothing is decoded of until it is read. `on_read` is called before that.

    find: decodes it; called once.
    """

    def __init__(self, layout: Layout, find: Callable[[], Found]) -> None:
        self.is_read = False
        self.is_whole = self.is_sure = True
        """As of `Found`; known when it is read."""
        self._asking = threading.Lock()
        self._found: Data | None = None
        self._find: Callable[[], Found] | None = find
        super().__init__(layout, _not_here)

    @property
    def data(self) -> Data:
        with self._asking:
            if self._find is not None:
                self._note_reading()
                found = self._find()
                self._found, self.is_whole, self.is_sure = found
                self._find, self.is_read = None, True
        assert self._found is not None
        return self._found

    def settle(self) -> bool:
        """Whether the log must say what it shows, as somebody has read it. The log asks once, when it
        takes the picture."""
        return self.is_read


class UnprovenPicture(AskedPicture):
    """A picture that was decoded already, by what may decode otherwise than a replay does.

    Read before the log takes it, it is what was decoded, and the log gets its planes. Read for the first
    time after that, it is what its packets give, as in the replay.

    decoded: gives its planes.
    by_packets: the same picture, as its packets give it.
    on_decoded_read: called when what was decoded is read.
    """

    def __init__(
        self,
        layout: Layout,
        decoded: Callable[[], Data],
        by_packets: AskedPicture,
        on_decoded_read: Callable[[], None],
    ) -> None:
        self._by_packets = by_packets
        super().__init__(layout, partial(_unproven, decoded, on_decoded_read))

    def settle(self) -> bool:
        with self._asking:
            if not self.is_read:
                self._find = partial(_by_packets, self._by_packets)
            return self.is_read


def _unproven(decoded: Callable[[], Data], on_read: Callable[[], None]) -> Found:
    on_read()
    return Found(decoded(), is_sure=False)


def _by_packets(picture: AskedPicture) -> Found:
    return Found(picture.data, picture.is_whole, picture.is_sure)


def _not_here() -> Data:
    raise AssertionError("an asked picture has no data but what it finds")


def _empty(layout: Layout) -> Data:
    """The planes of a picture of which nothing is known: all 0."""
    return np.zeros(layout.size, np.uint8)
