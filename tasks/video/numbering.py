"""Decoded pictures -> frames: which number and which time each one has, and which are left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

from flowrun.runtime.pictures.planar import Kept
from flowrun.tasks.thinning import Thinning
from flowrun.tasks.video.packets import Origin
from flowrun.tasks.video.sections import Picture
from flowrun.tasks.video.settings import VideoSettings
from flowrun.tasks.video.times import Timeline

__all__ = ["Frame", "Numbering"]

_READY_S = 0.005
"""A packet that comes sooner was there already."""
_LEAST_HZ = 2
"""The rate of a source of which that is found out."""
_MOST_READY = 1000
"""Packets that were there already when a live source was opened, at most."""


@dataclass(slots=True)
class Frame:
    """A decoded frame.

    kept: its planes, or its pixels where it has none.
    time_ns: since the file's first frame; for a live source, nanoseconds since 1970.
    origin: the packets of which it is decoded; None where the log must have its pixels.
    """

    kept: Kept
    frame_id: int
    pts: int | None
    time_ns: int
    origin: Origin | None = None


class _Ready(NamedTuple):
    """The first packet of a live source that was not there already when it was opened.

    stamp: its time stamp in seconds.
    time_ns: when it came.
    """

    stamp: Fraction
    time_ns: int


class Numbering:
    """Numbers the frames of a source from 0 on, also where it is opened again or begins again.

    clock: nanoseconds since 1970.
    leave_out: called with a number of frames that are left out, and why.

    start: the time stamp at which the container begins, in seconds.
    period: seconds from one frame to the next; 0 if not known.
    has_first: whether this round has given a frame.
    played_ns: the time before which no frame is wanted any more; None where all are.
    """

    def __init__(
        self,
        config: VideoSettings,
        *,
        clock: Callable[[], int],
        leave_out: Callable[[int, str], None],
    ) -> None:
        self.start = self.period = Fraction(0)
        self.has_first = False
        self.played_ns: int | None = None
        self._clock, self._leave_out = clock, leave_out
        self._start_s = config.start_s
        self._thinning = None if config.max_fps is None else Thinning(config.max_fps)
        self._times = Timeline()
        self._is_live, self._has_clock = False, True
        self._rate = self._base = Fraction(0)
        self._period_ns = 0
        self._next_id = 0
        self._pts: int | None = None
        """Of the last frame; None where it had none."""
        self._at = Fraction(0)
        """What stands for it then, in seconds."""
        self._ready: _Ready | None = None
        self._last_ns = 0
        """The time of the last frame of a live source."""

    def begin(
        self, stream: Any, *, is_live: bool, may_jump: bool = False, has_clock: bool = True
    ) -> None:
        """The frames that follow are of `stream`, an `av.VideoStream` that has just been opened.

        may_jump: whether the container's format allows its clock to.
        has_clock: whether it has one. FFmpeg otherwise counts pictures, as if 25 came in a second.
        """
        # Of a live source that does not give it, FFmpeg guesses the rate from too little.
        rate = stream.average_rate or (None if is_live else stream.guessed_rate)
        self._is_live, self._has_clock = is_live, has_clock
        self._rate = Fraction(rate) if rate else Fraction(0)
        self._base = stream.time_base
        self.period = 1 / self._rate if rate else Fraction(0)
        self._period_ns = int(1_000_000_000 * self.period)
        self.start = (stream.start_time or 0) * self._base
        self._times.begin(
            start=self.start,
            period=self.period,
            may_jump=may_jump,
            reordered=stream.codec_context.reorder_depth,
        )

    @property
    def fps(self) -> float:
        """Frames a second; 0 if not known."""
        return float(self._rate)

    def begin_round(self, *, again: bool) -> None:
        """The frames that follow are those from the beginning.

        again: they have been given before.
        """
        if again:
            self._times.begin_again()
        self.has_first, self._at, self._pts = False, self.start - self.period, None

    def framed(self, picture: Picture) -> partial[Frame] | None:
        """What makes the frame of what is kept of the next picture; None where it is left out."""
        if self._is_live:
            time_ns = self._last_ns = max(self._last_ns, self._live_ns(picture.pts))
        else:
            if picture.pts is None:
                self._at = self._stamp_of_last() + self.period * (1 + picture.passed)
            self._pts = picture.pts
            if self._start_s and self._stamp_of_last() - self.start < self._start_s:
                return None
            time_ns = self._times.at_ns(picture.pts, self._base, passed=picture.passed)
        self.has_first = True
        frame_id = self._next_id + picture.passed
        self._next_id = frame_id + 1
        if self._thinning is not None:
            # For this alone: fractions are slow.
            at_s = self._live_at(picture, time_ns) if self._is_live else self._times.last
            if not self._thinning.keeps(at_s):
                self._leave_out(1, "max_fps")
                return None
        if self.played_ns is not None and time_ns + self._period_ns <= self.played_ns:
            self._leave_out(1, "latest")
            return None
        return partial(
            Frame, frame_id=frame_id, pts=picture.pts, time_ns=time_ns, origin=picture.origin
        )

    def watched(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The packets of a live source that was just opened. First it is found which ones were there
        already: their frames are as old as their time stamps say. An error comes after the packets
        before it."""
        ready: list[Any] = []
        failed: Exception | None = None
        has_ended = False
        self._ready = None
        # The first frame waits for the packet after its own, which is not for long.
        while self._has_clock and self._rate > _LEAST_HZ and len(ready) < _MOST_READY:
            asked_s = time.monotonic()
            try:
                packet = next(packets, None)
            except Exception as error:  # noqa: BLE001  # raised below
                failed, packet = error, None
            if packet is None:
                has_ended = True
                break
            ready.append(packet)
            if time.monotonic() - asked_s >= _READY_S:
                stamp = packet.pts if packet.dts is None else packet.dts
                if stamp is not None and len(ready) > 1:
                    self._ready = _Ready(stamp * self._base, self._clock())
                break
        yield from ready
        if failed is not None:
            raise failed
        if not has_ended:  # PyAV's iterators raise StopIteration into who asks once more
            yield from packets

    def _stamp_of_last(self) -> Fraction:
        return self._at if self._pts is None else self._pts * self._base

    def _stamp(self, pts: int | None) -> Fraction | None:
        """A time stamp in seconds."""
        return None if pts is None else pts * self._base

    def _live_at(self, picture: Picture, time_ns: int) -> Fraction:
        """Seconds from the first frame of a live source to the next one."""
        if not self._has_clock:
            return Fraction(time_ns, 1_000_000_000)
        return self._times.at(self._stamp(picture.pts), passed=picture.passed)

    def _live_ns(self, pts: int | None) -> int:
        """When a frame of a live source was taken, as far as that is known: now, or when it was ready,
        nanoseconds since 1970."""
        ready, now_ns = self._ready, self._clock()
        stamp = None if ready is None else self._stamp(pts)
        if ready is None or stamp is None:
            return now_ns
        if stamp >= ready.stamp:
            self._ready = None
            return now_ns
        return min(now_ns, ready.time_ns - int((ready.stamp - stamp) * 1_000_000_000))
