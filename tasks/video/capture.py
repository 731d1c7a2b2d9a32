"""`VideoCapture`: frames of a file, an RTSP camera, a URL or a local device, by PyAV.

A reader thread decodes and converts a few frames ahead, so that this work overlaps with the cycle.
It keeps the compressed packets too: with them the log can do without the pixels.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from flowrun.msgs.image import ImageRgb8Msg, VideoPackets
from flowrun.runtime.pictures.video import RgbConverter
from flowrun.runtime.task import Context, Output, Task, TaskConfig
from flowrun.tasks.video.opening import (
    SourceType,
    VideoError,
    kind_of,
    missing_file,
    open_video,
    reason_of,
)
from flowrun.tasks.video.packets import PacketQueue

__all__ = ["VideoCapture", "VideoError"]

_AHEAD = 4
"""How many frames a reader holds ready where every frame is wanted."""
_WAIT_S = 1.0
"""The longest that a cycle waits for the next frame of a file, which is always under way."""
_STOP_S = 3.0
"""How long `stop` waits for a reader whose live source is silent; it then ends by `timeout_s`."""
_LOG_EVERY_NS = 10_000_000_000


class VideoCapture(Task):
    """Publish the frames of a video source.

    A file gives every frame, as fast as the graph takes them, and ends at its end: the same frames
    in the same cycles every run. `realtime: true` plays it at its own speed, like a camera. A live
    source (RTSP, device, URL without a duration) gives the newest frame; frames that no cycle took
    are counted in `dropped`.

    `tov_ns` is, for a file, the cycle's time at its first frame plus the frame's own time stamp
    since then; for a live source, when the frame came out of the decoder.
    """

    class Config(TaskConfig):
        source_uri: str
        """The source: a path (relative ones start at the graph file), rtsp://..., http://..., or
        /dev/video0."""
        source_type: Literal["auto", "file", "rtsp", "url", "v4l2"] = "auto"
        """What the source is; auto: as `source_uri` looks."""
        policy: Literal["auto", "every_frame", "latest"] = "auto"
        """Which frames to publish; auto: `every_frame` for files, `latest` for live sources."""
        realtime: bool = False
        """Play a file at its own speed."""
        loop: bool = False
        """Start a file again at its end, for ever."""
        start_s: NonNegativeFloat = 0.0
        """Where a file starts."""
        max_fps: PositiveFloat | None = None
        """Keep frame k only if floor(k * max_fps / fps) changes: the same frames every run."""
        width: PositiveInt | None = None
        """The width to ask of a device (v4l2), in pixels."""
        height: PositiveInt | None = None
        """The height to ask of a device (v4l2), in pixels."""
        fps: PositiveFloat | None = None
        """The frames per second to ask of a device (v4l2)."""
        timeout_s: PositiveFloat = 10.0
        """How long a live source may take to answer, or to give the next frame."""

        @model_validator(mode="after")
        def _check(self) -> VideoCapture.Config:
            kind = self.kind
            if kind != "v4l2" and not self.width is self.height is self.fps is None:
                raise ValueError(
                    f"width, height and fps are asked of a v4l2 device, not of a {kind}"
                )
            if (self.width is None) != (self.height is None):
                raise ValueError("give both width and height, or neither")
            if kind in ("rtsp", "v4l2") and (self.realtime or self.loop or self.start_s):
                raise ValueError(
                    f"realtime, loop and start_s are for files, not for a {kind} source"
                )
            return self

        @property
        def kind(self) -> SourceType:
            """`source_type`, inferred from `source_uri` where it is `auto`."""
            return kind_of(self.source_uri) if self.source_type == "auto" else self.source_type

    config: Config
    picture_codecs = ("packets", "raw", "zstd", "ffv1")

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self.dropped = 0
        """How many decoded frames no cycle took."""
        self._reader: _Reader | None = None
        self._base_ns: int | None = None
        self._logged, self._logged_ns = (0, 0), 0
        self._told = False

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        text = missing_file(config, graph_dir)
        if text is not None:
            yield "source_uri", text

    def start(self, ctx: Context) -> None:
        config = self.config
        container, name = open_video(config, ctx.graph_dir)
        try:
            self._reader = _Reader(
                container, name, config,
                clock=ctx.clock_ns, wake=ctx.wake, keeps_packets=ctx.logs_packets,
            )  # fmt: skip
        except BaseException:
            container.close()
            raise
        reader = self._reader
        ctx.log.info("source opened", source=name, width=reader.width, height=reader.height,
                     fps=round(reader.fps, 3), policy=reader.policy)  # fmt: skip
        reader.start()

    def process(self, ctx: Context, image: Output[ImageRgb8Msg]) -> None:
        reader = self._reader
        assert reader is not None
        realtime = self.config.realtime and not reader.live
        # Waiting for a file's next frame, and not passing the cycle by, pairs the frames of
        # several files in the same way every run.
        waits = not reader.live and (not realtime or self._base_ns is None)
        frame = reader.take(_WAIT_S if waits else 0.0)
        if frame is None:
            self._end(ctx, reader)
            return
        if self._base_ns is None:
            self._base_ns = ctx.now_ns
        if realtime:
            played_ns = ctx.now_ns - self._base_ns
            if frame.time_ns > played_ns:
                reader.put_back(frame)
                ctx.wake_at(self._base_ns + frame.time_ns)
                return
            if reader.policy == "latest":
                frame = reader.skip_to(played_ns, frame)
        if reader.dropped > self.dropped:
            ctx.dropped(reader.dropped - self.dropped)
        self.dropped = reader.dropped
        self._log_losses(ctx, reader)
        self._publish(ctx, image, frame)

    def _publish(self, ctx: Context, image: ImageRgb8Msg, frame: _Frame) -> None:
        reader = self._reader
        assert reader is not None
        pixels = frame.pixels
        if pixels.flags.c_contiguous:
            image.pixels = pixels
        else:
            np.copyto(image.allocate_pixels(*pixels.shape[:2]), pixels)
        image.frame_id = frame.frame_id
        image.pts = frame.pts
        image.fps = reader.fps
        image.source = reader.name
        image.video = reader.packets_of(frame)
        if ctx.logs_packets and not self._told and not reader.has_packets:
            self._told = True
            ctx.log.warning(
                "the log keeps pixels: packets do not give them back", source=reader.name
            )
        assert self._base_ns is not None
        image.publish(tov_ns=frame.time_ns if reader.live else self._base_ns + frame.time_ns)

    def _end(self, ctx: Context, reader: _Reader) -> None:
        if not reader.drained:
            return
        if reader.dropped > self.dropped:
            ctx.dropped(reader.dropped - self.dropped)
        self.dropped = reader.dropped
        self._log_losses(ctx, reader, now=True)
        if reader.error is not None and not reader.live:
            raise reader.error
        if reader.error is not None:
            ctx.log.error("source lost", source=reader.name, reason=str(reader.error))
        ctx.finish()

    def _log_losses(self, ctx: Context, reader: _Reader, *, now: bool = False) -> None:
        losses = (reader.dropped, reader.damaged)
        if losses != self._logged and (now or ctx.now_ns - self._logged_ns >= _LOG_EVERY_NS):
            ctx.log.warning("frames lost", dropped=reader.dropped, damaged=reader.damaged)
            self._logged, self._logged_ns = losses, ctx.now_ns

    def stop(self, ctx: Context) -> None:
        if self._reader is not None and not self._reader.stop(_STOP_S):
            ctx.log.warning("reader still waits for the source; left behind")


@dataclass(slots=True)
class _Frame:
    """time_ns: since the file's first frame; for a live source, nanoseconds since 1970. packet: the
    number of its packet, None where the log cannot have packets for it."""

    pixels: NDArray[np.uint8]
    frame_id: int
    pts: int | None
    time_ns: int
    packet: int | None = None
    section: int = 0
    color: tuple[int, int] = (0, 0)


class _Reader:
    """A thread that decodes `container` into a buffer, and closes it at its end.

    keeps_packets: for the log, with the pictures that they give.
    live: whether frames come at the source's own time.
    error: why it ended, if not because the source is at its end.
    dropped: how many frames it decoded that were not taken.
    damaged: how many packets the decoder refused; the stream goes on behind them.
    """

    def __init__(
        self,
        container: Any,
        name: str,
        config: VideoCapture.Config,
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
        # is wanted: which one that is, the cycle's time says.
        self._newest_only = self.policy == "latest" and not (config.realtime and not self.live)
        self._played_ns = -1
        self._decoded_s = 0.0
        self._period_ns = int(1_000_000_000 / self._rate) if self._rate else 0
        self._buffer: deque[_Frame] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._read, name=f"read {name}", daemon=True)

    # -- for the cycle -------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def take(self, wait_s: float) -> _Frame | None:
        """The next frame, or None if there is none within `wait_s`."""
        with self._changed:
            if wait_s:
                self._changed.wait_for(lambda: self._buffer or self._ended, wait_s)
            if not self._buffer:
                return None
            self._changed.notify_all()
            return self._buffer.popleft()

    def packets_of(self, frame: _Frame) -> VideoPackets | None:
        """What the log needs instead of the frame's pixels; asked once of each frame published."""
        if self._packets is None or frame.packet is None:
            return None
        return self._packets.take(frame.packet, frame.section, frame.color)

    @property
    def has_packets(self) -> bool:
        """Whether packets can stand for pixels in the log."""
        return self._packets is not None and self._packets.usable

    @property
    def drained(self) -> bool:
        """Whether all frames were taken and no more will come."""
        with self._changed:
            return self._ended and not self._buffer

    def put_back(self, frame: _Frame) -> None:
        with self._changed:
            self._buffer.appendleft(frame)

    def skip_to(self, played_ns: int, frame: _Frame) -> _Frame:
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

    def _put(self, frame: _Frame) -> bool:
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

    def _frames(self) -> Iterator[_Frame]:
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

    def _frame(self, decoded: Any, number: int | None, frame_id: int, time_ns: int) -> _Frame:
        pixels, packets = self._converter.rgb(decoded), self._packets
        if packets is None:
            return _Frame(pixels, frame_id, decoded.pts, time_ns)
        color = int(decoded.colorspace), int(decoded.color_range)
        if decoded.is_corrupt:
            number = None
        section = packets.section
        if number is not None and not packets.proven:
            packets.prove(number, color, pixels, self._converter)
        return _Frame(pixels, frame_id, decoded.pts, time_ns, number, section, color)

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
