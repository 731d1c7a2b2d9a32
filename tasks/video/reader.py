"""The thread that decodes a video source a few frames ahead of the cycle."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import VideoPackets
from flowrun.runtime.pictures.planar import (
    Demand,
    Kept,
    Layout,
    PlanarPicture,
    copied,
    kept,
    layout_of,
)
from flowrun.runtime.task import Playback
from flowrun.tasks.video.ahead import available_cores
from flowrun.tasks.video.decoding import Picture, SourceDecoder
from flowrun.tasks.video.opening import VideoError, reason_of
from flowrun.tasks.video.packets import Origin, PacketQueue
from flowrun.tasks.video.policy import FrameQueue
from flowrun.tasks.video.settings import MaxAge, VideoSettings
from flowrun.tasks.video.thinning import Thinning

__all__ = ["Frame", "Reader"]


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


_Framing = Callable[[Kept], Frame]
_Keeping = Future["Kept | None"]


class Reader:
    """A thread that decodes `container` into a buffer, and closes it at its end.

    keeps_packets: for the log, with the pictures that they give.
    live: whether frames come at the source's own time.
    error: why it ended, if not because the source is at its end.
    dropped: called with a number of frames of a live source that were left out, and why, on any thread.
    playback: what is asked of the source.
    """

    def __init__(
        self,
        container: Any,
        name: str,
        config: VideoSettings,
        *,
        clock: Callable[[], int],
        wake: Callable[[], None],
        playback: Callable[[], Playback],
        dropped: Callable[[int, str], None],
        keeps_packets: bool,
    ) -> None:
        import av

        if not container.streams.video:
            raise VideoError(f"{name!r} has no video stream; it has: {_streams(container)}")
        stream = container.streams.video[0]
        # An http address of a file has a duration: it is played to its end, like a file.
        self.live = config.kind not in ("file", "url") or (
            config.kind == "url" and container.duration is None
        )
        self.name = name
        self.width, self.height = stream.codec_context.width, stream.codec_context.height
        rate = stream.average_rate or stream.guessed_rate
        self._rate = Fraction(rate) if rate else None
        self.fps = float(rate) if rate else 0.0
        automatic = "latest" if self.live else "every_frame"
        policy, max_age_ns = automatic, None
        if isinstance(config.policy, MaxAge):
            policy, max_age_ns = "every_frame", int(config.policy.max_age_ms * 1_000_000)
        elif config.policy != "auto":
            policy = config.policy
        self.policy = policy
        self.error: VideoError | None = None
        self._errors = av.error.FFmpegError
        self._container, self._stream = container, stream
        self._config = config
        self._clock, self._wake = clock, wake
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"keep {name}")
        self._demand = Demand()
        self._keeping: deque[tuple[_Framing, _Keeping]] = deque()
        """Frames that have been decoded, in their order."""
        self._packets = PacketQueue() if keeps_packets else None
        self._decoder = SourceDecoder(
            stream, self._packets, cores=1 if self.live else available_cores()
        )
        # A file that is played at its own speed is decoded ahead also where only the newest frame
        # is wanted: the cycle's time decides which one that is.
        self.frames: FrameQueue[Frame] = FrameQueue(
            newest_only=policy == "latest" and (self.live or not config.realtime),
            is_live=self.live,
            size=config.buffer,
            max_age_ns=max_age_ns,
            playback=playback,
            report=dropped,
        )
        """Those that wait for the cycle."""
        self._in_hand: Frame | None = None
        """The frame that was taken, until its packets are."""
        self._damaged = 0
        """How many damaged packets and pictures `frames` has counted."""
        self._played_ns: int | None = None
        """The time up to which frames were taken, where the newest one is."""
        self._decoded_s: float
        """When the last picture came, by `time.monotonic`."""
        self._period = 1 / self._rate if self._rate else Fraction(0)
        self._period_ns = int(1_000_000_000 * self._period)
        self._next_id = 0
        self._thinning = None if config.max_fps is None else Thinning(config.max_fps)
        self._start = (stream.start_time or 0) * stream.time_base
        self._offset = Fraction(0)
        """How long the earlier rounds of a loop took."""
        self._first: Fraction | None = None
        """The time stamp of this round's first frame; None before it."""
        self._at: Fraction
        """The time stamp of the last frame."""
        self._thread = threading.Thread(target=self._read, name=f"read {name}", daemon=True)

    # -- for the cycle -------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def take(self, wait_s: float, *, now_ns: int | None = None) -> Frame | None:
        """The next frame, or None if there is none within `wait_s`.

        now_ns: the time by which a frame is too old, on the clock of `Frame.time_ns`; None if none is.
        """
        self._in_hand = self.frames.take(wait_s, now_ns=now_ns)
        return self._in_hand

    def packets_of(self, frame: Frame) -> VideoPackets | None:
        """What the log needs instead of the frame's pixels; asked once of each frame published."""
        taken = None
        if self._packets is not None and frame.origin is not None:
            taken = self._packets.take(frame.origin)
        self._in_hand = None
        return taken

    @property
    def has_packets(self) -> bool:
        """Whether packets can replace pixels in the log."""
        return self._packets is not None and self._decoder.logs_packets

    @property
    def damaged(self) -> int:
        """How many packets the decoder refused; the stream goes on after them."""
        return self._decoder.damaged

    def skip_to(self, played_ns: int, frame: Frame) -> Frame:
        """The newest decoded frame that is due at `played_ns`, at least `frame`. From now on the
        reader leaves out what would come too late.
        """
        self._played_ns = played_ns
        self._in_hand = self.frames.skip_to(played_ns, frame)
        return self._in_hand

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False if it is still waiting for its source after `timeout_s`."""
        self.frames.stop()
        if self._thread.ident is None:
            self._container.close()
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- the thread ----------------------------------------------------------------------------

    def _read(self) -> None:
        error: VideoError | None = None
        try:
            for frame in self._frames():
                if not self._put(frame):
                    break
        except self._errors as failed:
            error = VideoError(f"{self.name!r} {self._loss(failed)}")
        except VideoError as failed:
            error = failed
        except Exception as failed:  # noqa: BLE001  # reaches the cycle through `error`
            error = VideoError(f"{self.name!r}: reading failed: {type(failed).__name__}: {failed}")
        finally:
            self.error = error
            self._count_damaged()
            self.frames.end()
            self._container.close()
            self._pool.shutdown()
        self._wake()

    def _loss(self, failed: Exception) -> str:
        if not self.live:
            return f"cannot be decoded: {reason_of(failed)}"
        import av

        # FFmpeg has no one error for it, and its own time starts a little before.
        silent_s = time.monotonic() - self._decoded_s
        if isinstance(failed, av.error.ExitError) or silent_s >= 0.9 * self._config.timeout_s:
            return f"gave no frame for timeout_s {self._config.timeout_s:g}"
        return f"was lost: {reason_of(failed)}"

    def _put(self, frame: Frame) -> bool:
        """Let `frame` wait for the cycle; False if the reader is to end."""
        self._count_damaged()
        if not self.frames.put(frame):
            return False
        self._forget_packets()
        self._wake()
        return True

    def _count_damaged(self) -> None:
        damaged = self.damaged
        if damaged > self._damaged:
            self.frames.count(damaged - self._damaged, "damaged")
            self._damaged = damaged

    def _forget_packets(self) -> None:
        """Drop the packets that only frames needed that were left out: a cycle that takes long, or a
        source that is muted, lets no memory grow."""
        frame = self._in_hand or self.frames.oldest
        if self._packets is not None and frame is not None and frame.origin is not None:
            self._packets.forget_before(frame.origin.section)

    def _frames(self) -> Iterator[Frame]:
        start_s, period = self._config.start_s, self._period
        again = False
        while True:
            self._decoded_s = time.monotonic()
            if start_s or again:
                self._container.seek(int((float(self._start) + start_s) * 1_000_000))
                self._decoder.restart()
            self._first, self._at = None, self._start - period
            yield from self._round()
            if self._first is None and not self.live:
                what = f"has no frame after start_s {start_s:g}" if start_s else "has no frames"
                raise VideoError(f"{self.name!r} {what}")
            if not self._config.loop or self._first is None:
                return
            self._offset += self._at - self._first + period
            again = True

    def _round(self) -> Iterator[Frame]:
        """The frames up to the end of the stream; those before an error come first."""
        packets = iter(self._container.demux(self._stream))
        failed: Exception | None = None
        while True:
            try:
                packet = next(packets, None)
            except self._errors as error:
                failed, packet = error, None
            if packet is None:
                break
            earlier = len(self._keeping)
            self._decoder.feed(packet, self._take)
            # Kept while this packet was decoded; a live picture does not wait for the next.
            yield from self._kept(len(self._keeping) if self.live else earlier)
        self._decoder.drain(self._take)
        yield from self._kept(len(self._keeping))
        if failed is not None:
            raise failed

    def _take(self, picture: Picture) -> Future[Any] | None:
        framing = self._frame(picture)
        if framing is None:
            return None
        if picture.kept is not None:
            self._keeping.append((framing, _done(picture.kept)))
            return None
        number = framing.keywords["frame_id"]
        layout = layout_of(picture.decoded)
        if layout is None:
            pixels = self._pool.submit(_pixels, [picture.decoded])
            self._keeping.append((framing, pixels))
            return pixels
        # Who reads it waits for the copy; who passes it on does not.
        planes = self._pool.submit(_planes, [picture.decoded], layout)
        made = PlanarPicture(layout, planes.result, on_read=partial(self._demand.note, number))
        self._keeping.append((framing, _done(made)))
        if self._packets is not None or self._demand.expects(number):
            self._pool.submit(self._prepare, made, number)
        return planes

    def _prepare(self, picture: PlanarPicture, number: int) -> None:
        """Have ready what will be asked for."""
        if self._packets is not None:
            _ = picture.crc
        if self._demand.expects(number):
            picture.prepare()

    def _kept(self, count: int) -> Iterator[Frame]:
        """The first frames that are being kept, when they are."""
        for _ in range(count):
            framing, future = self._keeping.popleft()
            found = future.result()
            if found is None:
                self._decoder.damaged += 1
                continue
            yield framing(found)

    def _frame(self, picture: Picture) -> partial[Frame] | None:
        """What makes the frame of what is kept of a picture; None where it is to be left out."""
        self._decoded_s = time.monotonic()
        pts, base = picture.pts, self._stream.time_base
        self._at = pts * base if pts is not None else self._at + self._period
        start_s = self._config.start_s
        if start_s and not self.live and self._at - self._start < start_s:
            return None
        if self._first is None:
            self._first = self._at
        since_start = self._offset + self._at - self._first
        time_ns = self._clock() if self.live else int(since_start * 1_000_000_000)
        frame_id = self._next_id
        self._next_id += 1
        if self._thinning is not None and not self._thinning.keeps(since_start):
            self.frames.count(1, "max_fps")
            return None
        if self._played_ns is not None and time_ns + self._period_ns <= self._played_ns:
            self.frames.count(1, "latest")
            return None
        return partial(Frame, frame_id=frame_id, pts=pts, time_ns=time_ns, origin=picture.origin)


def _pixels(decoded: list[Any]) -> Kept | None:
    """The pixels of the one picture of the list, which is then empty: nothing holds the picture. None
    where its colours cannot be converted."""
    try:
        return kept(decoded.pop())
    except ValueError:
        return None


def _planes(decoded: list[Any], layout: Layout) -> NDArray[np.uint8]:
    """The planes of the one picture of the list, which is then empty."""
    return copied(decoded.pop(), layout)


def _done(found: Kept) -> _Keeping:
    future: _Keeping = Future()
    future.set_result(found)
    return future


def _streams(container: Any) -> str:
    return ", ".join(stream.type for stream in container.streams) or "none"
