"""`decode: asked`: nothing is decoded until somebody reads a picture. The log gets every packet."""

from __future__ import annotations

import heapq
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from flowrun.runtime.pictures.asked import AskedSection
from flowrun.runtime.pictures.bitstream import appearance, closes
from flowrun.runtime.pictures.planar import Layout, layout_of
from flowrun.runtime.pictures.video import PacketDecoder
from flowrun.tasks.video.codecs import ASKED
from flowrun.tasks.video.decoding import Counts, SourceDecoder
from flowrun.tasks.video.incoming import Waiting
from flowrun.tasks.video.packets import Origin, PacketQueue
from flowrun.tasks.video.sections import Emit, Picture

__all__ = ["AskedDecoder"]

_MOST_REORDERED = 16
"""Pictures that wait for those before them, at the most: no codec has more."""


class _Pending(NamedTuple):
    """A picture that waits for those that are shown before it. They compare by `pts`, then `number`."""

    pts: int
    number: int
    own_pts: int | None


class AskedDecoder(SourceDecoder):
    """As `SourceDecoder`; its pictures are decoded when they are read.

    Each packet gives one, in the order in which they are shown, with as many packets' delay as the
    decoder has. Pictures before the first key frame are left out. A codec of which it is not known
    before what its packets give is decoded as it comes, and so is everything from a key frame on whose
    pixels do not lie in planes, as a JPEG's of four colours.

    is_asked: whether pictures are decoded when they are read.
    """

    def __init__(self, stream: Any, queue: PacketQueue | None, *, after: Counts) -> None:
        super().__init__(stream, queue, after=after)
        self.is_asked = self.logs_packets and self._incoming.codec in ASKED
        self._reorder = self._incoming.reorder
        """How many pictures wait for those that are shown before them."""
        self._pending: list[_Pending] = []
        self._shown: int | None = None
        """When the last picture was shown."""
        self._section_now: AskedSection | None = None
        self._last = -1
        """The number of its last packet."""
        self._opens: int | None = None
        """The time of the key frame with which the section of now began in the middle of a group:
        pictures that are shown before it need what came before it."""
        self._looks: tuple[Any, ...] = ()
        """What the last key frame said of `_layout`."""
        self._layout: Layout | None = None

    def drain(self, emit: Emit) -> None:
        """As of `SourceDecoder`."""
        super().drain(emit)
        self._end_section(emit)

    def restart(self) -> None:
        """As of `SourceDecoder`."""
        super().restart()
        self._section_now = None
        self._pending.clear()
        self._shown = None

    def _looked_at(self, packet: Any) -> Waiting:
        if packet.is_keyframe or not self.is_asked:
            return super()._looked_at(packet)
        return self._incoming.glanced_at(packet)  # most by far

    def _decode_next(self, emit: Emit) -> None:
        waiting = self._waiting[0]
        if self.is_asked and self._section_now is None:
            self.is_asked = self._can_be_asked(waiting)
        if not self.is_asked:
            super()._decode_next(emit)
            return
        self._waiting.popleft()
        self._now, self._number = waiting, waiting.number
        if not waiting.data:
            self.damaged += 1
            self._doubt()
            return
        if waiting.is_damaged:
            self._doubt()
        elif waiting.is_key and (self._section_now is None or waiting.begins):
            self._end_section(emit)
            if not self._knows_layout(waiting):
                self._decode_as_they_come(waiting, emit)
                return
            self._begin_section(waiting)
        if self._queue is not None:
            self._queue.append(
                self._sections - 1,
                self._number,
                waiting.data,
                is_key=waiting.is_key,
                time_ns=self._incoming.time_ns(waiting.fed),
            )
        if self._section_now is not None:
            self._section_now.append(self._number, waiting.data, is_key=waiting.is_key)
            self._last = self._number
            self._show(waiting, emit)

    def _doubt(self) -> None:
        super()._doubt()
        if self._section_now is not None:
            self._section_now.doubt()

    # -- sections ------------------------------------------------------------------------------

    def _can_be_asked(self, waiting: Waiting) -> bool:
        """Whether it is known how the pictures of a section lie that begins with this packet, and in
        which order they are shown."""
        if waiting.fed.pts is None and self._reorder:
            return False
        return not waiting.is_key or self._knows_layout(waiting)

    def _knows_layout(self, key: Waiting) -> bool:
        """Find out how the pictures from this key frame on lie: as those before, where it looks like the
        one before or gives no picture. False where that is not known of such pictures at all."""
        described = self._learnt(key)
        looks = described, appearance(self._incoming.form, key.data)
        if looks == self._looks:
            return self._layout is not None
        found: list[Layout | None] = []

        def take(_number: int | None, decoded: Any) -> None:
            found.append(layout_of(decoded))

        decoder = PacketDecoder(described)
        decoder.decode(key.number, key.data, take, is_key=True)
        decoder.drain(take)
        if found:
            self._looks, self._layout = looks, found[0]
        return self._layout is not None

    def _decode_as_they_come(self, waiting: Waiting, emit: Emit) -> None:
        """Decode this packet, and all that follow."""
        self.is_asked, self._section_now = False, None
        self._waiting.appendleft(waiting)
        super()._decode_next(emit)

    def _begin_section(self, key: Waiting) -> None:
        assert self._layout is not None
        described = replace(self._learnt(key), reorder=self._reorder)
        damaged = partial(self._refuse, key.fed.pts)
        self._section_now = AskedSection(described, self._layout, damaged, strict=self._strict)
        is_closed = closes(self._incoming.form, key.data)
        self._opens = None if is_closed else key.fed.pts
        self._begin_logged(described, key.number)

    def _end_section(self, emit: Emit) -> None:
        """Give what waits: the section has no more packets."""
        while self._pending:
            self._give(heapq.heappop(self._pending), emit, drained=True)
        self._shown = None

    # -- pictures ------------------------------------------------------------------------------

    def _show(self, waiting: Waiting, emit: Emit) -> None:
        """Have the packet's picture wait, and give what is shown next."""
        pts = waiting.fed.pts
        if self._opens is not None and pts is not None and pts < self._opens:
            return
        if waiting.fed.is_shown:
            at = pts if pts is not None else self._shown or 0
            heapq.heappush(self._pending, _Pending(at, waiting.number, pts))
        while len(self._pending) > self._reorder:
            self._give(heapq.heappop(self._pending), emit, drained=False)

    def _give(self, picture: _Pending, emit: Emit, *, drained: bool) -> None:
        assert self._section_now is not None
        if self._shown is not None and picture.pts < self._shown:
            self._reorder = min(self._reorder + 1, _MOST_REORDERED)  # more than was known
        self._shown = picture.pts
        asked = self._section_now.asks_for(picture.number, self._last, drained=drained)
        is_damaged = not self._section_now.is_whole
        origin = Origin(self._sections - 1, picture.number, self._last, drained, is_damaged)
        emit(Picture(None, asked, picture.own_pts, origin))
