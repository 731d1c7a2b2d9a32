"""A camera's newest packets while it runs, for viewers who decode them themselves.

The packets are those that the log keeps. Nothing is copied or encoded for viewers: all of them read the
same list, and one that does not keep up goes on at the next key frame.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from flowrun.msgs.image import ImageRgb8Msg, VideoPackets
from flowrun.runtime.broadcast import Listeners

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LiveVideo", "Shown"]

_LATE = 32
"""How many pictures a viewer may be behind when a key frame comes, without losing them."""
_MOST_BYTES = 16 << 20
"""Of packets that are kept for one camera. If a key frame's pictures are more, who comes later waits for
the next one."""
_NO_PACKETS = "its pictures come without packets"
_DAMAGED = "packets of its pictures were missing or damaged"
_BEGUN_BEFORE = "its last key frame is not kept"


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture that a camera has published, as its packets.

    cycle: the cycle that published it.
    tov_ns: its time.
    video: its packets.
    fps: of the camera, 0 where that is not known.
    pixel_aspect: width of a pixel divided by its height.
    """

    cycle: int
    tov_ns: int
    video: VideoPackets
    fps: float
    pixel_aspect: float

    @property
    def first(self) -> int:
        """The number of its first packet, with those of which no picture was decoded."""
        return self.video.first - len(self.video.before)

    @property
    def end(self) -> int:
        """The number of the packet after its last one."""
        return self.video.first + len(self.video.packets)

    @property
    def size(self) -> int:
        return sum(len(data) for data, _ in self.video.with_unseen)


class LiveVideo:
    """The pictures of one camera from its last key frame on, numbered from 1. The cycle's thread offers
    them; any thread may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Shown] = deque()
        self._size = 0
        self._number = 0
        """Of the newest."""
        self._entry: int | None = None
        """The number of the newest with which a decoder can begin; None while that is not kept."""
        self._listeners = Listeners()
        self._withheld = ""
        self._had_packets = False
        self._closed = False

    @property
    def withheld(self) -> str:
        """Why a viewer who has nothing yet gets no packets of the newest picture; "" if it does, or
        there is none. Of damaged packets it would make other pictures than the run."""
        return self._withheld or (_BEGUN_BEFORE if self._number and self._entry is None else "")

    @property
    def had_packets(self) -> bool:
        """Whether any of its pictures has come with packets, so that more of them may."""
        return self._had_packets

    @property
    def closed(self) -> bool:
        """Whether `close` was called: no more pictures will come."""
        return self._closed

    def offer(self, cycle: int, image: ImageRgb8Msg) -> None:
        """Take the packets of a picture that was published. Never blocks for a viewer."""
        video = image.video
        with self._lock:
            self._had_packets |= video is not None
            if video is None or video.is_damaged:
                self._number += 1
                self._withheld = _NO_PACKETS if video is None else _DAMAGED
                self._forget()
            else:
                self._append(Shown(cycle, image.tov_ns, video, image.fps, image.pixel_aspect))
        self._listeners.call()

    def _append(self, shown: Shown) -> None:
        video, newest = shown.video, self._kept[-1] if self._kept else None
        self._number += 1
        if video.begins and video.packets:
            while len(self._kept) > _LATE:
                self._size -= self._kept.popleft().size
            self._entry = self._number
            self._withheld = ""
        elif newest is None or newest.end != shown.first:
            # Packets are missing: what comes now is of no use until something begins.
            self._withheld = self._withheld or (_DAMAGED if newest else _BEGUN_BEFORE)
            self._forget()
            return
        self._kept.append(shown)
        self._size += shown.size
        while self._size > _MOST_BYTES:
            self._size -= self._kept.popleft().size
        if self._entry is not None and self._entry <= self._number - len(self._kept):
            self._entry = None

    def _forget(self) -> None:
        self._kept.clear()
        self._size = 0
        self._entry = None

    def after(self, number: int) -> list[Shown] | None:
        """The pictures that followed picture `number`, none if it is the newest; None where some of them
        are not kept any more."""
        with self._lock:
            missing = self._number - number
            if missing > len(self._kept):
                return None
            return list(islice(self._kept, len(self._kept) - missing, None))

    def entry(self) -> int | None:
        """The number of the newest picture with which a decoder can begin; None: it has yet to come."""
        return self._entry

    @property
    def number(self) -> int:
        """The number of the newest picture; pictures that were of no use to anybody count too."""
        return self._number

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """As `Broadcast.subscribe`."""
        return self._listeners.add(listener)

    def close(self) -> None:
        """No more pictures will come."""
        self._closed = True
        self._listeners.call()
