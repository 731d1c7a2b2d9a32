"""Which of the decoded frames a cycle gets: those that wait for it, and why others are left out.

| policy        | a source that waits, as a file          | a live source                              |
|---------------|-----------------------------------------|--------------------------------------------|
| every_frame   | waits while the queue is full           | the oldest frame makes room: "buffer full" |
| latest        | by its own time, if it has one          | the newest frame takes its place: "latest" |
| max_age_ms    | as every_frame; "too old" when taken    | as every_frame; "too old" when taken       |
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from flowrun.runtime.task import Playback

__all__ = ["FrameQueue"]

_MOST_AHEAD, _LEAST_AHEAD = 4, 2
"""How many frames of a file are decoded ahead."""
_AHEAD_BYTES = 24 << 20
"""What they may have, of more than the least."""
_LIVE = 16
"""How many frames of a live source wait for a cycle that takes long."""


class _Timed(Protocol):
    @property
    def time_ns(self) -> int: ...


F = TypeVar("F", bound=_Timed)


class FrameQueue(Generic[F]):
    """Frames on their way from the thread that decodes to the cycle that takes them.

    newest_only: whether a new frame takes the place of those that wait.
    is_live: whether the source does not wait for room.
    size: the most frames that wait; None for a default.
    max_age_ns: frames that are older when they are taken are left out; None for no limit.
    playback: what is asked of the source.
    report: called with a number of frames of a live source and why they were left out, on any thread.
    """

    def __init__(
        self,
        *,
        newest_only: bool,
        is_live: bool,
        size: int | None,
        max_age_ns: int | None,
        playback: Callable[[], Playback],
        report: Callable[[int, str], None],
    ) -> None:
        self._asked_size = size
        self._ahead = _LEAST_AHEAD
        self._set_kind(newest_only=newest_only, is_live=is_live)
        self._max_age_ns = max_age_ns
        self._playback = playback
        self._report = report
        self._frames: deque[tuple[F, Counter[str]]] = deque()
        """Each with what was left out between it and the frame before."""
        self._lost: Counter[str] = Counter()
        """What was left out after the newest frame."""
        self._found: Counter[str] = Counter()
        """What was left out before the frames that were taken, and is not reported yet."""
        self._changed = threading.Condition()
        self._waits = False
        """Whether who decodes waits for room."""
        self._ended = False
        self._stopped = False
        self.lost: Counter[str] = Counter()
        """How many frames were left out, by cause."""

    # -- for the thread that decodes -----------------------------------------------------------

    def begin(self, *, newest_only: bool, is_live: bool, frame_size: int) -> None:
        """The source is open, and shows what it is.

        frame_size: bytes of a frame.
        """
        with self._changed:
            fits = _AHEAD_BYTES // max(1, frame_size)
            self._ahead = max(_LEAST_AHEAD, min(_MOST_AHEAD, fits))
            self._set_kind(newest_only=newest_only, is_live=is_live)

    def put(self, frame: F) -> bool:
        """Append a frame, when there is room for it; False if nobody takes frames any more."""
        with self._changed:
            if self._is_live and (playback := self._playback()) != "running":
                self._drop_all(playback)
                self._count(1, playback)
                return not self._stopped
            if self._newest_only:
                self._drop_all("latest")
            elif self._is_live and len(self._frames) >= self._size:
                self._drop_first("buffer full")
            elif len(self._frames) >= self._size:
                self._waits = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: len(self._frames) < self._size or self._stopped)
                self._waits = False
            if self._stopped:
                return False
            self._frames.append((frame, self._lost))
            self._lost = Counter()
            self._changed.notify_all()
        return True

    def count(self, number: int, cause: str) -> None:
        """Count frames that were left out before the next one that is put."""
        with self._changed:
            self._count(number, cause)

    def end(self) -> None:
        """Report that no frame comes any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # -- for the cycle: most by far of what it asks finds nothing, and is then asked without the lock --

    @property
    def oldest(self) -> F | None:
        """The frame that is taken next."""
        try:
            return self._frames[0][0]
        except IndexError:
            return None

    def take(
        self, wait_s: float, *, now_ns: int | None = None, until_ns: int | None = None
    ) -> F | None:
        """The next frame that is not too old at `now_ns`; None if there is none within `wait_s`, or if
        its time is after `until_ns`: it stays then, and nobody is woken."""
        if not wait_s:
            first = self.oldest
            if first is None or (until_ns is not None and first.time_ns > until_ns):
                return None
        with self._changed:
            if wait_s and not self._frames:
                self._changed.wait_for(lambda: self._frames or self._ended, wait_s)
            limit_ns = self._max_age_ns
            while self._frames and limit_ns is not None and now_ns is not None:
                if self._frames[0][0].time_ns >= now_ns - limit_ns:
                    break
                self._drop_first("too old")
            if not self._frames:
                return None
            if until_ns is not None and self._frames[0][0].time_ns > until_ns:
                return None
            return self._take()

    def skip_to(self, played_ns: int, frame: F, wait_s: float = 0.0) -> F:
        """The newest frame that is due at `played_ns`, at least `frame`.

        wait_s: how long to wait for each frame that is not there yet.
        """
        with self._changed:
            while True:
                if wait_s:
                    self._changed.wait_for(lambda: self._frames or self._ended, wait_s)
                if not self._frames or self._frames[0][0].time_ns > played_ns:
                    return frame
                frame = self._take()
                self._count_of_taken("latest")

    def wait_until_full(self) -> None:
        """Return when who decodes has no room for another frame, or has ended."""
        with self._changed:
            self._changed.notify_all()  # there may be room that nobody has told of
            self._changed.wait_for(
                lambda: (
                    (self._waits and len(self._frames) >= self._size)
                    or self._ended
                    or self._stopped
                )
            )

    def has_more(self) -> bool:
        """Whether a frame waits."""
        return bool(self._frames)

    @property
    def is_ahead(self) -> bool:
        """Whether who decodes will wait for the cycle: most of the frames that may wait do."""
        return len(self._frames) > self._size // 2

    def take_lost(self) -> Mapping[str, int]:
        """How many frames of a source that is not live were left out before those that were taken, by
        cause, since this was last called; at the end, all."""
        if not (self._found or self._ended):
            return {}
        with self._changed:
            if self._ended and not self._frames:
                self._found += self._lost
                self._lost = Counter()
            if not self._found:
                return {}
            found, self._found = self._found, Counter()
            return found

    @property
    def drained(self) -> bool:
        """Whether all frames were taken and no more will come."""
        return self._ended and not self._frames  # in this order: nothing is put after the end

    def stop(self) -> None:
        """Take no frame any more."""
        with self._changed:
            self._stopped = True
            self._frames.clear()
            self._changed.notify_all()

    # -- with the lock -------------------------------------------------------------------------

    def _set_kind(self, *, newest_only: bool, is_live: bool) -> None:
        self._newest_only = newest_only
        self._is_live = is_live
        self._size = 1 if newest_only else self._asked_size or (_LIVE if is_live else self._ahead)

    def _take(self) -> F:
        frame, lost = self._frames.popleft()
        if lost:
            self._found += lost
        if (
            len(self._frames) <= self._size // 2
        ):  # waking who decodes costs as much for one as for two
            self._changed.notify_all()
        return frame

    def _drop_first(self, cause: str) -> None:
        _, lost = self._frames.popleft()
        following = self._frames[0][1] if self._frames else self._lost
        following.update(lost)
        if not self._is_live:
            following[cause] += 1
        self._add(1, cause)
        self._changed.notify_all()

    def _drop_all(self, cause: str) -> None:
        while self._frames:
            self._drop_first(cause)

    def _count(self, number: int, cause: str) -> None:
        if not self._is_live:
            self._lost[cause] += number
        self._add(number, cause)

    def _count_of_taken(self, cause: str) -> None:
        if not self._is_live:
            self._found[cause] += 1
        self._add(1, cause)

    def _add(self, number: int, cause: str) -> None:
        self.lost[cause] += number
        if self._is_live:
            self._report(number, cause)
