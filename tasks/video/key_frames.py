"""`decode: keyframes`: a decoder that gets nothing but key frames. The log gets every packet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from flowrun.runtime.pictures.asked import AskedSection
from flowrun.runtime.pictures.bitstream import appearance, closes
from flowrun.runtime.pictures.planar import Layout, layout_of
from flowrun.runtime.pictures.video import LetGo
from flowrun.tasks.video.ahead import available_cores
from flowrun.tasks.video.codecs import ASKED
from flowrun.tasks.video.decoding import Counts, SourceDecoder
from flowrun.tasks.video.incoming import Waiting
from flowrun.tasks.video.packets import Origin, PacketQueue
from flowrun.tasks.video.sections import Emit, Picture

__all__ = ["KeyFrameDecoder"]

_TURNS = threading.BoundedSemaphore(available_cores())
"""Those of many cameras that decode at once: more than cores only take more memory, 10 MiB each at
1080p."""
_LOOK_S = 0.05
_MOST_LEADING = 16
"""Packets after a key frame whose pictures may be shown before it."""


class KeyFrameDecoder(SourceDecoder):
    """As `SourceDecoder`, of the key frames alone: each is a section of its own, in one packet.

    The packets after it are in the log before those of the next key frame's picture, and give none.

    is_read: whether the next picture is decoded at once, as somebody will read it. If not, it is decoded
        when it is first read, where it looks like the one that was decoded last.
    is_stopped: whether nobody wants pictures any more.
    waits: whether packets may wait for later ones. Then pictures that come after a key frame and are
        shown before it are counted before it, as those of open groups.
    """

    def __init__(
        self,
        stream: Any,
        queue: PacketQueue | None,
        *,
        waits: bool,
        after: Counts,
        is_read: Callable[[], bool],
        is_stopped: Callable[[], bool],
    ) -> None:
        super().__init__(stream, queue, after=after)
        self._is_read, self._is_stopped = is_read, is_stopped
        self._can_ask = self.logs_packets and self._incoming.codec in ASKED
        self._looks: tuple[Any, ...] = ()
        """What the last key frame that was decoded at once said of `_layout`."""
        self._layout: Layout | None = None
        self._preparing.lookahead = _MOST_LEADING if waits else 0

    def feed(self, packet: Any, emit: Emit) -> None:
        """As of `SourceDecoder`."""
        super().feed(packet, lambda picture: self._give(picture, emit))

    def drain(self, emit: Emit) -> None:
        """As of `SourceDecoder`."""
        super().drain(lambda picture: self._give(picture, emit))

    def _give(self, picture: Picture, emit: Emit) -> LetGo | None:
        if picture.decoded is not None and not picture.decoded.key_frame:
            return None  # of a codec whose packets are not logged
        if picture.decoded is not None and self._layout is None:
            self._layout = layout_of(picture.decoded)
        passed, self.passed = max(0, self.passed - 1), 0
        return emit(picture._replace(passed=passed))

    def _looked_at(self, packet: Any) -> Waiting:
        if packet.is_keyframe or not self.logs_packets:
            return super()._looked_at(packet)
        return self._incoming.glanced_at(packet)  # most by far

    def _decode_next(self, emit: Emit) -> None:
        waiting = self._waiting[0]
        leading = self._leading(waiting) if waiting.is_key else 0
        self.passed += waiting.fed.is_shown + leading
        if not self.logs_packets:
            super()._decode_next(emit)
        else:
            self._waiting.popleft()
            self._log(waiting, emit)
        self.passed -= leading

    def _log(self, waiting: Waiting, emit: Emit) -> None:
        """Have the packet logged, and decoded if it is a key frame."""
        self._now, self._number = waiting, waiting.number
        if not waiting.data:
            self.damaged += 1
            return
        section = asked = None
        if waiting.is_key and not waiting.is_damaged:
            self._fed.clear()
            self._fed[self._number] = waiting.fed
            asked = self._asked(waiting)
            section = None if asked is not None else self._section(is_sure=True)
        if self._queue is not None:
            self._queue.append(
                self._sections - 1,
                self._number,
                waiting.data,
                is_key=waiting.is_key,
                time_ns=self._incoming.time_ns(waiting.fed),
            )
        if asked is not None and waiting.fed.is_shown:
            emit(asked)
        elif section is not None and self._take_turn():
            try:
                if self._decode(section, waiting.data, emit, is_key=True):
                    self._drain(section, emit)
                section = None  # its memory serves the next one
            finally:
                _TURNS.release()

    def _asked(self, key: Waiting) -> Picture | None:
        """The key frame's picture, decoded when it is read; None where it is to be decoded at once."""
        if not self._can_ask:
            return None
        form = self._incoming.form
        described = self._learnt(key)
        looks = described, appearance(form, key.data), closes(form, key.data)
        if looks != self._looks:
            self._looks, self._layout = looks, None
        if self._layout is None or self._is_read():
            return None
        damaged = partial(self._refuse, key.fed.pts)
        section = AskedSection(described, self._layout, damaged, strict=self._strict)
        section.append(key.number, key.data, is_key=True)
        self._begin_logged(described, key.number)
        asked = section.asks_for(key.number, key.number, drained=True)
        origin = Origin(self._sections - 1, key.number, key.number, drained=True)
        return Picture(None, asked, key.fed.pts, origin)

    def _take_turn(self) -> bool:
        """Wait until a core is free; False if the source was stopped."""
        while not _TURNS.acquire(timeout=_LOOK_S):
            if self._is_stopped():
                return False
        return True

    def _leading(self, key: Waiting) -> int:
        """How many of the packets that wait are shown before this key frame."""
        if key.fed.pts is None:
            return 0
        count = 0
        for later in islice(self._waiting, 1, None):
            if later.is_key:
                break
            count += later.fed.is_shown and (later.fed.pts or key.fed.pts) < key.fed.pts
        return count
