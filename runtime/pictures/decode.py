"""One topic's stored pictures, in whichever order they are asked for.

Compressed packets are decoded from the beginning of their section on. Asked for one picture after the
other, each packet is decoded once; a jump costs what lies between its picture and that beginning.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.pictures.asked import AskedPicture, Found, SectionPacket, searched
from flowrun.runtime.pictures.planar import Demand, Kept, Layout, PlanarPicture
from flowrun.runtime.pictures.stored import StoredPicture
from flowrun.runtime.pictures.video import PacketDecoder, repeats

__all__ = ["Passed", "PictureDecoder"]

_FARTHEST = 64
"""Within this number of messages after a picture's own, its packet must have given it: decoders hold
back 16 for their order and one for each of their threads."""

_AHEAD = 4
"""This number of pictures is decoded and converted while one is looked at, where they are asked for one
after the other. Decoding takes 3 to 8 ms at 1080p, converting 5: all cores share them."""

_PASSED_BYTES = 128 << 20
"""Of pictures that were passed over, which a log keeps: at 1080p, 43 of them."""

_NEAR = 8
"""How many cycles after another picture one may be asked for to count as the next."""

Stored = Callable[[int], Iterator[tuple[int, memoryview]]]
"""The messages of the topic from a cycle on: cycle and payload."""


class Passed:
    """Decoded pictures that were passed over on the way to one that was asked for, of all topics of a
    log: who jumps about within a section, as somebody does who drags over a second of a run, is given
    them at once."""

    def __init__(self) -> None:
        self._frames: dict[tuple[object, int, int], tuple[Any, int]] = {}
        """By topic's decoder, section and number, each picture and its size; the newest last."""
        self._size = 0

    def get(self, of: object, section: int, number: int) -> Any:
        """A picture; None where it is not kept."""
        return self._frames.get((of, section, number), (None, 0))[0]

    def add(self, of: object, section: int, number: int, decoded: Any, size: int) -> None:
        """Keep a picture of `size` bytes; the oldest ones make room."""
        key = of, section, number
        self._size += size - self._frames.pop(key, (None, 0))[1]
        self._frames[key] = decoded, size
        while self._size > _PASSED_BYTES:
            self._size -= self._frames.pop(next(iter(self._frames)))[1]


class PictureDecoder:
    """Decodes the pictures of one topic.

    stored: reads the topic's messages.
    ahead: decode ahead on all cores, for a log that is complete.
    passed: where pictures that were passed over are kept; decoders of one log share it.
    """

    def __init__(self, stored: Stored, *, ahead: bool, passed: Passed | None = None) -> None:
        self._as_recorded = _AsRecorded(stored)
        self._ahead = _Ahead(stored, Passed() if passed is None else passed) if ahead else None
        self._differs = -1
        """The section of which decoding ahead gave other pictures."""
        self._newest: tuple[int, Kept] | None = None
        self._lock = threading.Lock()

    def picture(self, cycle: int, picture: StoredPicture) -> Kept:
        """The picture of the message of `cycle`, of which only pixels are kept where the log says no
        more of it.

        `ValueError` where what is stored does not give the recorded one; never another.
        """
        own = picture.own
        if own["codec"] != "packets":
            return picture.unpacked()
        if picture.layout is not None and "crc" not in own:
            return AskedPicture(picture.layout, partial(self.found, cycle, picture))
        with self._lock:
            return self._decoded(cycle, picture)

    def found(self, cycle: int, picture: StoredPicture) -> Found:
        """What the packets of a picture with a layout give, whatever the log says that it is: nobody had
        read it in the run, or it is compared elsewhere. `ValueError` where they are not there."""
        with self._lock:
            return self._as_recorded.asked(cycle, picture)

    def _decoded(self, cycle: int, picture: StoredPicture) -> Kept:
        own = picture.own
        before = cycle if self._newest is None else self._newest[0]
        if self._newest is not None and before == cycle:
            return self._newest[1]
        found = None
        # Of a key frame that somebody jumps to, decoding ahead would decode two more pictures as well.
        is_jump = own["key"] == cycle and not 0 <= cycle - before <= _NEAR
        if self._ahead is not None and own["section"] != self._differs and not is_jump:
            try:
                found = self._ahead.picture(cycle, picture)
            except ValueError:
                found = None
        if found is None:
            if not is_jump:
                self._differs = own["section"]
            found = self._as_recorded.picture(cycle, picture)
        self._newest = cycle, found
        return found


class _Messages:
    """The messages of a topic, one after the other, from some cycle on."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._source: Iterator[tuple[int, memoryview]] = iter(())
        self.next_cycle = 0
        """The first cycle that was not read."""

    def read(self) -> tuple[int, StoredPicture] | None:
        """The next one that holds packets; None if there is none. A log that grows may have more
        later."""
        while True:
            entry = next(self._source, None)
            if entry is None:
                self._source = self._stored(self.next_cycle)
                entry = next(self._source, None)
                if entry is None:
                    return None
            cycle, payload = entry
            self.next_cycle = cycle + 1
            picture = StoredPicture.parse(payload)
            if picture.holds_packets:
                return cycle, picture

    def read_first(self, key: int) -> tuple[StoredPicture, VideoDecoder]:
        """Read the message of cycle `key`; `ValueError` if no section begins there."""
        read = self.read() if self.next_cycle <= key else None
        if read is None or read[0] != key:
            self._source, self.next_cycle = self._stored(key), key
            read = self.read()
        if read is None or read[0] != key:  # a flight recorder's log begins after it
            raise ValueError("it comes before the first key frame in the log")
        decoder = read[1].decoder
        if decoder is None:
            raise ValueError("a section without its decoder")
        return read[1], decoder


class _AsRecorded:
    """Decodes each section as its source did: the same packets, from the first one, in one thread."""

    def __init__(self, stored: Stored) -> None:
        self._messages = _Messages(stored)
        self._decoder: PacketDecoder | None = None
        self._section: int | None = None
        self._next_number: int
        """Of the packet that comes next in the section."""
        self._is_whole = self._repeats = True
        """Whether no packet of the section is damaged, as far as is known; whether its decoder gives the
        same pictures again if one is."""
        self._kept: dict[int, Kept] = {}
        """By number, pictures that came out and may be asked for."""

    def picture(self, cycle: int, picture: StoredPicture) -> Kept:
        """`ValueError` where it is not the recorded one."""
        try:
            found = self._find(cycle, picture)
        except ValueError:
            self._section = None
            raise
        if found is None and picture.layout is not None:
            searched = self._searched(cycle, picture, picture.layout)
            found = PlanarPicture(picture.layout, searched.data)
        if found is None:
            raise ValueError("its packets do not give it")
        return picture.checked(found)

    def asked(self, cycle: int, picture: StoredPicture) -> Found:
        """A picture of which the log says no more than its packets and its layout."""
        assert picture.layout is not None
        try:
            found = self._find(cycle, picture)
        except ValueError:
            self._section = None
            raise
        if isinstance(found, PlanarPicture) and found.layout == picture.layout:
            return Found(found.data, self._is_whole, self._is_whole or self._repeats)
        return self._searched(cycle, picture, picture.layout)

    def _searched(self, cycle: int, picture: StoredPicture, layout: Layout) -> Found:
        """The picture, decoded from the beginning of its section on."""
        self._section = None
        first, decoder = self._messages.read_first(picture.own["key"])
        return searched(decoder, self._packets(first, cycle), picture.own["number"], layout)

    def _packets(self, first: StoredPicture, cycle: int) -> Iterator[SectionPacket]:
        """Those of the messages from `first` to that of `cycle`."""
        picture = first
        while True:
            for packet in picture.packets:
                yield SectionPacket(packet.number, packet.data, packet.is_key)
            read = self._messages.read() if self._messages.next_cycle <= cycle else None
            if read is None or read[0] > cycle:
                return
            picture = read[1]

    def _find(self, cycle: int, picture: StoredPicture) -> Kept | None:
        own = picture.own
        if self._section != own["section"] or self._messages.next_cycle > cycle:
            first, decoder = self._messages.read_first(own["key"])
            self._decoder = PacketDecoder(decoder)
            self._section, self._next_number = first.own["section"], first.own["first"]
            self._is_whole, self._repeats = True, repeats(decoder)
            self._kept.clear()
            self._feed(first, is_wanted=own["key"] == cycle)
        while self._messages.next_cycle <= cycle:
            read = self._messages.read()
            if read is None or read[0] > cycle:
                break
            self._feed(read[1], is_wanted=read[0] == cycle)
        found = self._kept.get(own["number"])
        while found is not None and self._kept.pop(next(iter(self._kept))) is not found:
            pass  # one that comes earlier was never published
        return found

    def _feed(self, picture: StoredPicture, *, is_wanted: bool) -> None:
        """Decode the packets of the next message. Pictures that came before are of no interest: those
        kept are this one, and what came with it and may be another message's."""
        own = picture.own
        packets = picture.packets
        decoder = self._decoder
        if own["section"] != self._section or decoder is None:
            raise ValueError("packets of another section come before it")
        if packets and own["first"] != self._next_number:
            raise ValueError("packets before it are missing in the log")
        at_end = False

        def take(number: int | None, decoded: Any) -> None:
            self._is_whole &= not decoded.is_corrupt
            is_own = number == own["number"]
            if number is not None and (is_wanted if is_own else at_end):
                with suppress(ValueError):  # it was left out of the run too
                    self._kept[number] = picture.kept(decoded)

        for at, packet in enumerate(packets, 1):
            at_end = at == len(packets)
            took = decoder.decode(packet.number, packet.data, take, is_key=packet.is_key)
            self._is_whole &= took
        self._next_number += len(packets)
        if own["drained"]:
            at_end = True
            took = decoder.drain(take)
            self._is_whole &= took
        while len(self._kept) > _FARTHEST:  # of pictures that were never published
            del self._kept[next(iter(self._kept))]


class _Ahead:
    """Decodes ahead on all cores, and through sections that follow each other: the pictures are those
    of `_AsRecorded` where no packet was damaged."""

    def __init__(self, stored: Stored, passed: Passed) -> None:
        self._messages = _Messages(stored)
        self._decoder: PacketDecoder | None = None
        self._described: VideoDecoder | None = None
        self._section: int | None = None
        self._next_number: int
        self._asked: int | None = None
        """The last cycle asked for since decoding began at a key frame."""
        self._decoded: dict[int, Any] = {}
        """By number, pictures that came out and were not asked for yet."""
        self._stored_as: dict[int, StoredPicture] = {}
        """By number, the messages of pictures that were not asked for yet."""
        self._demand = Demand()
        self._passed = passed

    def picture(self, cycle: int, picture: StoredPicture) -> Kept | None:
        """None, or `ValueError`, where it is not the recorded one."""
        passed = self._passed.get(self, picture.own["section"], picture.own["number"])
        if passed is not None:
            return _kept(passed, picture, self._demand)
        # Pictures come out in the order in which they are shown, which is that of the cycles.
        asked, self._asked = self._asked, None
        own_key = picture.own["key"]
        follows = asked is not None and asked < cycle and own_key < self._messages.next_cycle
        if not follows:
            self._begin(own_key)
        found = self._find(cycle, picture, goes_on=follows)
        if found is not None:
            self._asked = cycle
        return found

    def _begin(self, key: int) -> None:
        self._decoder = self._described = self._section = None
        self._decoded.clear()
        self._stored_as.clear()
        first, _ = self._messages.read_first(key)
        self._feed(first)

    def _find(self, cycle: int, picture: StoredPicture, *, goes_on: bool) -> Kept | None:
        wanted = picture.own["number"]
        after = 0
        while wanted not in self._decoded and after < _FARTHEST:
            if not self._feed_next():
                self._drain()
                break
            after += self._messages.next_cycle > cycle + 1
        if wanted not in self._decoded:
            return None
        for made in list(self._decoded):  # earlier ones were never published, or not asked for
            decoded = self._decoded.pop(made)
            self._stored_as.pop(made, None)
            if made == wanted:
                break
            if picture.layout is not None and not isinstance(decoded, Future):
                self._passed.add(self, picture.own["section"], made, decoded, picture.layout.size)
        if goes_on:
            self._prepare()
        if isinstance(decoded, Future):
            found: Kept = decoded.result()
            return found
        return _kept(decoded, picture, self._demand)

    def _prepare(self) -> None:
        """Decode the pictures that are usually asked for next; their planes, and the pixels if they
        are usually read, are got ready meanwhile."""
        for _ in range(_AHEAD):
            if len(self._decoded) >= _AHEAD or not self._feed_next():
                break
        for made, decoded in self._decoded.items():
            stored = self._stored_as.get(made)
            if stored is not None and not isinstance(decoded, Future):
                self._decoded[made] = _pool(os.getpid()).submit(
                    _kept, decoded, stored, self._demand
                )

    def _feed_next(self) -> bool:
        """Decode the packets of the next message; False if there is none."""
        read = self._messages.read()
        if read is not None:
            self._feed(read[1])
        return read is not None

    def _feed(self, picture: StoredPicture) -> None:
        own = picture.own
        self._stored_as[own["number"]] = picture
        while len(self._stored_as) > _FARTHEST:
            del self._stored_as[next(iter(self._stored_as))]
        if picture.decoder is not None and own["section"] != self._section:
            self._change(picture.decoder, own["first"])
        self._section = own["section"]
        for packet in picture.packets:
            if self._decoder is None or packet.number != self._next_number:
                raise ValueError("packets before it are missing in the log")
            self._decoder.decode(packet.number, packet.data, self._take, is_key=packet.is_key)
            self._next_number += 1

    def _change(self, decoder: VideoDecoder, first: int) -> None:
        """Begin a section. The same decoder goes on where the section follows the one before."""
        if decoder != self._described or first != self._next_number:
            self._drain()
            self._decoder, self._described = PacketDecoder(decoder, ahead=True), decoder
            self._next_number = first

    def _drain(self) -> None:
        if self._decoder is not None:
            self._decoder.drain(self._take)
        self._decoder = None

    def _take(self, number: int | None, decoded: Any) -> None:
        # Kept, against what `Take` says: memory does not matter to pictures without damage.
        if number is not None:
            self._decoded[number] = decoded
        while len(self._decoded) > _FARTHEST:  # of pictures that were never published
            del self._decoded[next(iter(self._decoded))]


@functools.cache
def _pool(_process: int) -> ThreadPoolExecutor:
    """One a process: a fork has none of its parent's threads."""
    return ThreadPoolExecutor(
        min(_AHEAD, os.cpu_count() or 1), thread_name_prefix="flowrun-pictures"
    )


def _kept(decoded: Any, picture: StoredPicture, demand: Demand) -> Kept:
    """What is kept of a decoded picture; `ValueError` if it is not the recorded one. Its pixels are
    made if they are in demand."""
    number = picture.own["frame_id"]
    found = picture.checked(picture.kept(decoded, on_read=partial(demand.note, number)))
    if isinstance(found, PlanarPicture) and demand.expects(number):
        found.prepare()
    return found
