"""All packets of a source of which a run decoded only some, and when their pictures are shown."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from flowrun.msgs.image import UnseenPacket
from flowrun.runtime.events import Packets, unpack
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CONTROL_TOPIC
from flowrun.runtime.pictures.stored import StoredPicture

__all__ = ["Timed", "UnseenPackets"]

_MOST_LEADING = 16
"""Packets after a key frame whose pictures may be shown before it."""


class Timed(NamedTuple):
    """A packet, and when its picture is shown, in nanoseconds as `tov_ns`.

    begins_again: whether it is a key frame at which the stream's own clock went back.
    """

    data: bytes | memoryview
    is_key: bool
    shown_ns: int
    begins_again: bool = False


class _Seen(NamedTuple):
    """A picture that the run published, and the packet that gave it."""

    packet: UnseenPacket
    tov_ns: int


class UnseenPackets:
    """The packets of the selected pictures of `topic`, and all between and after them."""

    def __init__(self, log: Log, selection: Selection, topic: str) -> None:
        self.found = False
        """Whether there is a packet of which no picture was decoded."""
        self._first = next((it.cycle for it in log.messages(topic)), None)
        task = topic.removeprefix("/").split("/")[0]
        self._left = [
            (message.cycle, event)
            for message in log.messages(CONTROL_TOPIC, **selection.bounds)
            if type(event := unpack(message.fields)) is Packets and event.task == task
        ]
        self._packets: list[UnseenPacket | _Seen] = []

    def add(self, cycle: int, picture: StoredPicture, tov_ns: int) -> None:
        """Add the packets of the next picture."""
        before = picture.before
        self._add_left(cycle)
        if not self._packets and cycle != self._first:
            before = []  # of what the selection does not show
        if not self._packets:
            key = next((at for at, it in enumerate(before) if it.is_key), len(before))
            before = before[key:]
        self.found |= bool(before)
        self._packets += before
        for packet in picture.packets:
            own = UnseenPacket(packet.data, packet.is_key, picture.own.get("time_ns"))
            self._packets.append(_Seen(own, tov_ns))

    def timed(self, step_ns: int) -> list[Timed]:
        """All of them, in decoding order.

        step_ns: from one picture to the next, where nothing says it.
        """
        self._add_left(None)
        seen = [at for at, it in enumerate(self._packets) if isinstance(it, _Seen)]
        ends = [-1, *seen, len(self._packets)]
        found: list[Timed] = []
        for index, (begin, end) in enumerate(pairwise(ends)):
            earlier, here, later = (self._seen(ends, at) for at in (index - 1, index, index + 1))
            anchors = _Anchors(earlier, here, later, step_ns)
            if here is not None:
                went_back = earlier is not None and _is_after(earlier.packet, here.packet)
                found.append(Timed(here.packet.data, here.packet.is_key, here.tov_ns, went_back))
            between = self._packets[begin + 1 : end]
            assert all(isinstance(it, UnseenPacket) for it in between)
            found += anchors.timed([it for it in between if isinstance(it, UnseenPacket)])
        return found

    def _seen(self, ends: list[int], index: int) -> _Seen | None:
        at = ends[index] if 0 <= index < len(ends) else -1
        it = self._packets[at] if 0 <= at < len(self._packets) else None
        return it if isinstance(it, _Seen) else None

    def _add_left(self, until: int | None) -> None:
        """Add what sources gave when they stopped, in cycles before `until`."""
        while self._left and (until is None or self._left[0][0] < until):
            _, event = self._left.pop(0)
            if self._packets:
                self._packets += event.packets
                self.found = True


class _Anchors(NamedTuple):
    """The published pictures around some packets: two before them, and the one after them."""

    earlier: _Seen | None
    here: _Seen | None
    later: _Seen | None
    step_ns: int

    def timed(self, packets: list[UnseenPacket]) -> list[Timed]:
        """Those whose pictures can be shown. Where the stream does not say when, they are spread
        evenly."""
        found = []
        for at, packet in enumerate(packets, 1):
            if self._is_cut_off(at, packet, packets[0]):
                continue
            shown_ns = self._shown_ns(packet, is_near=at <= _MOST_LEADING)
            if shown_ns is None:
                shown_ns = self._spread(at, len(packets))
            found.append(Timed(packet.data, packet.is_key, shown_ns))
        return found

    def _is_cut_off(self, at: int, packet: UnseenPacket, first: UnseenPacket) -> bool:
        """Whether it is shown before the first key frame of all, and needs what came before that."""
        if self.earlier is not None or at > _MOST_LEADING or packet.time_ns is None:
            return False
        key = (first if self.here is None else self.here.packet).time_ns
        later = None if self.here is None or self.later is None else self.later.packet.time_ns
        began_again = key is not None and later is not None and later <= key
        return key is not None and packet.time_ns < key and not began_again

    def _shown_ns(self, packet: UnseenPacket, *, is_near: bool) -> int | None:
        own, here, later = packet.time_ns, self.here, self.later
        if own is None:
            return None
        if here is not None and is_near and (between := _between(self.earlier, own, here)):
            return between
        if between := _between(here, own, later):
            return between
        for seen in (here, later):  # the stream's clock began again, or there is one of them only
            if seen is None or seen.packet.time_ns is None:
                continue
            shown_ns = seen.tov_ns + own - seen.packet.time_ns
            if (here is None or here.tov_ns < shown_ns) and (
                later is None or shown_ns < later.tov_ns
            ):
                return shown_ns
        return None

    def _spread(self, at: int, count: int) -> int:
        if self.here is None:
            assert self.later is not None
            return self.later.tov_ns - (count + 1 - at) * self.step_ns
        if self.later is None:
            return self.here.tov_ns + at * self.step_ns
        return self.here.tov_ns + (self.later.tov_ns - self.here.tov_ns) * at // (count + 1)


def _is_after(left: UnseenPacket, right: UnseenPacket) -> bool:
    return None not in (left.time_ns, right.time_ns) and (left.time_ns or 0) >= (right.time_ns or 0)


def _between(left: _Seen | None, own: int, right: _Seen | None) -> int | None:
    """When a picture is shown whose time is between those of two that were published, as far between
    them as the stream says; None where it is not."""
    if left is None or right is None:
        return None
    begin, end = left.packet.time_ns, right.packet.time_ns
    if begin is None or end is None or not begin < own < end:
        return None
    return left.tov_ns + (right.tov_ns - left.tov_ns) * (own - begin) // (end - begin)
