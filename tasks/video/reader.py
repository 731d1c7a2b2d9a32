"""The thread that decodes a video source a few frames ahead of the cycle."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import VideoPackets
from flowrun.runtime.pictures.video import RgbConverter
from flowrun.tasks.video.opening import VideoError, reason_of
from flowrun.tasks.video.packets import PacketQueue
from flowrun.tasks.video.settings import VideoSettings

__all__ = ["Frame", "Reader"]

_AHEAD = 4
"""How many frames a reader holds ready where every frame is wanted."""


@dataclass(slots=True)
class Frame:
    """A decoded frame.

    time_ns: since the file's first frame; for a live source, nanoseconds since 1970.
    packet: the number of its packet, None where the log cannot have packets for it.
    section: how often the decoder had started again before it.
    color: FFmpeg's numbers of its color space and color range.
    """

    pixels: NDArray[np.uint8]
    frame_id: int
    pts: int | None
    time_ns: int
    packet: int | None = None
    section: int = 0
    color: tuple[int, int] = (0, 0)


class Reader:
    """A thread that decodes `container` into a buffer, and closes it at its end.

    keeps_packets: for the log, with the pictures that they give.
    live: whether frames come at the source's own time.
    error: why it ended, if not because the source is at its end.
    dropped: how many frames it decoded that were not taken.
    damaged: how many packets the decoder refused; the stream goes on after them.
    """

    def __init__(
        self,
        container: Any,
        name: str,
        config: VideoSettings,
        *,
        clock: Callable[[], int],
        wake: Callable[[], None],
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
        # Frame threads decode fastest, but hold back a frame each: not for a live picture.
        stream.thread_type = "SLICE" if self.live else "AUTO"
        self.name = name
        self.width, self.height = stream.codec_context.width, stream.codec_context.height
        rate = stream.average_rate or stream.guessed_rate
        self._rate = Fraction(rate) if rate else None
        self.fps = float(rate) if rate else 0.0
        automatic = "latest" if self.live else "every_frame"
        self.policy = automatic if config.policy == "auto" else config.policy
        self._ended = False
        self.error: VideoError | None = None
        self.dropped = 0
        self.damaged = 0
        self._invalid = av.error.InvalidDataError
        self._errors = av.error.FFmpegError
        self._container, self._stream = container, stream
        self._config = config
        self._clock, self._wake = clock, wake
        self._converter = RgbConverter()
        self._packets = PacketQueue(stream) if keeps_packets else None
        # A file that is played at its own speed is decoded ahead also where only the newest frame
        # is wanted: the cycle's time decides which one that is.
        self._newest_only = self.policy == "latest" and not (config.realtime and not self.live)
        self._played_ns = -1
        self._decoded_s = 0.0
        self._period_ns = int(1_000_000_000 / self._rate) if self._rate else 0
        self._buffer: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._read, name=f"read {name}", daemon=True)

    # -- for the cycle -------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def take(self, wait_s: float) -> Frame | None:
        """The next frame, or None if there is none within `wait_s`."""
        with self._changed:
            if wait_s:
                self._changed.wait_for(lambda: self._buffer or self._ended, wait_s)
            if not self._buffer:
                return None
            self._changed.notify_all()
            return self._buffer.popleft()

    def packets_of(self, frame: Frame) -> VideoPackets | None:
        """What the log needs instead of the frame's pixels; asked once of each frame published."""
        if self._packets is None or frame.packet is None:
            return None
        return self._packets.take(frame.packet, frame.section, frame.color)

    @property
    def has_packets(self) -> bool:
        """Whether packets can replace pixels in the log."""
        return self._packets is not None and self._packets.usable

    @property
    def drained(self) -> bool:
        """Whether all frames were taken and no more will come."""
        with self._changed:
            return self._ended and not self._buffer

    def put_back(self, frame: Frame) -> None:
        with self._changed:
            self._buffer.appendleft(frame)

    def skip_to(self, played_ns: int, frame: Frame) -> Frame:
        """The newest decoded frame that is due at `played_ns`, at least `frame`. From now on the
        reader leaves out what would come too late.
        """
        with self._changed:
            self._played_ns = played_ns
            while self._buffer and self._buffer[0].time_ns <= played_ns:
                frame = self._buffer.popleft()
                self.dropped += 1
            self._changed.notify_all()
        return frame

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False if it is still waiting for its source after `timeout_s`."""
        with self._changed:
            self._stopping = True
            self._buffer.clear()
            self._changed.notify_all()
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
            with self._changed:
                self.error = error
                self._ended = True
                self._changed.notify_all()
            self._container.close()
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
        """Append `frame` to the buffer; False if the reader is to end."""
        with self._changed:
            if self._newest_only:
                self.dropped += len(self._buffer)
                self._buffer.clear()
            else:
                self._changed.wait_for(lambda: len(self._buffer) < _AHEAD or self._stopping)
            if self._stopping:
                return False
            self._buffer.append(frame)
            self._changed.notify_all()
        self._wake()
        return True

    def _frames(self) -> Iterator[Frame]:
        kept = -1
        for frame_id, (decoded, number, since_start_ns) in enumerate(self._decoded()):
            if self._stopping:
                return
            time_ns = self._clock() if self.live else since_start_ns
            slot = self._slot(frame_id, time_ns)
            if slot == kept:
                continue
            kept = slot
            if time_ns + self._period_ns <= self._played_ns:
                self.dropped += 1
                continue
            yield self._frame(decoded, number, frame_id, time_ns)

    def _frame(self, decoded: Any, number: int | None, frame_id: int, time_ns: int) -> Frame:
        pixels, packets = self._converter.rgb(decoded), self._packets
        if packets is None:
            return Frame(pixels, frame_id, decoded.pts, time_ns)
        color = int(decoded.colorspace), int(decoded.color_range)
        if decoded.is_corrupt:
            number = None
        section = packets.section
        if number is not None and not packets.proven:
            packets.prove(number, color, pixels, self._converter)
        return Frame(pixels, frame_id, decoded.pts, time_ns, number, section, color)

    def _slot(self, frame_id: int, time_ns: int) -> int:
        """The frame's place at `max_fps`: of the frames with one place, the first is kept."""
        if self._config.max_fps is None:
            return frame_id
        wanted = Fraction(str(self._config.max_fps))
        if self._rate is None:
            return int(time_ns * wanted / 1_000_000_000)
        return int(frame_id * wanted / self._rate)

    def _decoded(self) -> Iterator[tuple[Any, int | None, int]]:
        """Decoded frames, the number of the packet of each where it is known, and their time since
        the first one, which goes on through a loop."""
        stream, start_s = self._stream, self._config.start_s
        period = 1 / self._rate if self._rate else Fraction(0)
        zero = (stream.start_time or 0) * (stream.time_base or Fraction(1))
        offset = Fraction(0)
        again = False
        while True:
            if start_s or again:
                self._container.seek(int((float(zero) + start_s) * 1_000_000))
                if self._packets is not None:
                    self._packets.begin_section()
            first: Fraction | None = None
            at = zero - period
            self._decoded_s = time.monotonic()
            for decoded, number in self._pictures():
                self._decoded_s = time.monotonic()
                known = decoded.pts is not None
                at = decoded.pts * decoded.time_base if known else at + period
                if not self.live and at - zero < start_s:
                    continue
                if first is None:
                    first = at
                yield decoded, number, int((offset + at - first) * 1_000_000_000)
            if first is None and not self.live:
                what = f"has no frame after start_s {start_s:g}" if start_s else "has no frames"
                raise VideoError(f"{self.name!r} {what}")
            if not self._config.loop or first is None:
                return
            offset += at - first + period
            again = True

    def _pictures(self) -> Iterator[tuple[Any, int | None]]:
        packets = self._packets
        for packet in self._container.demux(self._stream):
            pts = packets.stamp(packet) if packets is not None and packet.size else 0
            try:
                pictures = packet.decode()
            except self._invalid:
                self.damaged += 1
                pictures = []
            if packets is not None and packet.size:
                packets.append(packet, pts)
            for decoded in pictures:
                yield decoded, packets.number_of(decoded) if packets is not None else None


def _streams(container: Any) -> str:
    return ", ".join(stream.type for stream in container.streams) or "none"
