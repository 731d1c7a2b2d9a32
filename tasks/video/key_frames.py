"""`decode: keyframes`: a decoder that gets nothing but key frames. The log gets every packet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice
from typing import Any

from flowrun.tasks.video.ahead import available_cores
from flowrun.tasks.video.decoding import Counts, SourceDecoder
from flowrun.tasks.video.incoming import Waiting
from flowrun.tasks.video.packets import PacketQueue
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
        is_stopped: Callable[[], bool],
    ) -> None:
        super().__init__(stream, queue, after=after)
        self._is_stopped = is_stopped
        self._preparing.lookahead = _MOST_LEADING if waits else 0

    def feed(self, packet: Any, emit: Emit) -> None:
        """As of `SourceDecoder`."""
        super().feed(packet, lambda picture: self._give(picture, emit))

    def drain(self, emit: Emit) -> None:
        """As of `SourceDecoder`."""
        super().drain(lambda picture: self._give(picture, emit))

    def _give(self, picture: Picture, emit: Emit) -> Future[Any] | None:
        if picture.decoded is not None and not picture.decoded.key_frame:
            return None  # of a codec whose packets are not logged
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
        section = None
        if waiting.is_key and not waiting.is_damaged:
            self._fed.clear()
            self._fed[self._number] = waiting.fed
            section = self._section(is_sure=True)
        if self._queue is not None:
            self._queue.append(
                self._sections - 1,
                self._number,
                waiting.data,
                is_key=waiting.is_key,
                time_ns=self._incoming.time_ns(waiting.fed),
            )
        if section is not None and self._take_turn():
            try:
                if self._decode(section, waiting.data, emit, is_key=True):
                    self._drain(section, emit)
                section = None  # its memory serves the next one
            finally:
                _TURNS.release()

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
