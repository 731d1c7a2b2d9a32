"""`VideoCapture`: frames of a file, an RTSP camera, a URL or a local device, by PyAV.

A reader thread decodes a few frames ahead, so that this work overlaps with the cycle. It, or a second
one, keeps their planes, and makes their pixels ahead where somebody has read those of the last ones.
The compressed packets are kept too: with them the log can do without the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np

from flowrun.msgs.envelope import TIME_ENDS
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.pictures.asked import AskedPicture
from flowrun.runtime.pictures.convert.kernel import is_compiled
from flowrun.runtime.pictures.planar import Kept, PlanarPicture
from flowrun.runtime.simulated import is_simulated
from flowrun.runtime.task import Context, Output, Task, TaskConfig
from flowrun.tasks.video.connection import Connection
from flowrun.tasks.video.hwaccel import Device, HardwareError, find_device
from flowrun.tasks.video.numbering import Frame
from flowrun.tasks.video.opening import VideoError, name_of, problems_of
from flowrun.tasks.video.reader import Reader
from flowrun.tasks.video.settings import MaxAge, VideoSettings

__all__ = ["VideoCapture", "VideoError"]

_WAIT_S = 1.0
"""The longest that a cycle waits for the next frame of a file, which is always under way."""
_SIMULATED_S = 60.0
"""The same where time stands still meanwhile."""
_LOG_EVERY_NS = 10_000_000_000
_AS_ASKED = frozenset({"max_fps", "paused", "muted"})
"""Causes of which the log has no line: somebody asked for them."""


class VideoCapture(Task):
    """Publish the frames of a video source.

    A file gives every frame, as fast as the graph takes them, and ends at its end: the same frames
    in the same cycles every run. `realtime: true` plays it at its own speed, like a camera. A live
    source (RTSP, device, URL without a duration) gives the newest frame; frames that no cycle took
    are counted in `dropped`. If it is lost, it is connected again (`reconnect`), and its frame ids go
    on; how it is doing is in the log and in the run's report.

    `tov_ns` is, for a file, the cycle's time at its first frame plus the frame's own time stamp
    since then, where the container's clock may jump or begin again: that is continued. For a live
    source it is when the frame came out of the decoder, or was ready for it when the source was opened.
    """

    Config = VideoSettings
    example_config = MappingProxyType({"source_uri": "test"})
    several = "source_uri"
    several_configs = "sources"
    picture_codecs = ("packets", "raw", "zstd", "ffv1")

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._reader: Reader | None = None
        self._base_ns: int | None = None
        self._logged: dict[str, int] = {}
        """What was left out when that was last logged."""
        self._logged_ns = 0
        self._left_out: dict[str, int] = {}
        """What was left out when nothing of it was left to log."""
        self._damaged = self._damaged_logged = 0
        """How many pictures were given of damaged packets, and how many when that was last logged."""
        self._damaged_ns = 0
        self._told = self._told_colors = False
        self._has_failed = False
        self._given = 0
        """How many frames there were up to the last one that was published."""

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        yield from problems_of(config, graph_dir)

    @classmethod
    def simulates(cls, config: TaskConfig) -> str | None:
        assert isinstance(config, cls.Config)
        if config.may_be_live or config.address.is_input:
            return f"reads {name_of(config)!r}: set its source_uri to a film, or to test"
        return None

    def start(self, ctx: Context) -> None:
        try:
            self._start(ctx)
        except VideoError as error:
            ctx.report("error", error.code)
            raise

    def _start(self, ctx: Context) -> None:
        config = self.config
        connection = Connection(
            config,
            ctx.graph_dir,
            report=ctx.report,
            log=ctx.log,
            draw=lambda: float(ctx.rng.random()),
        )
        self._reader = reader = Reader(
            connection,
            config,
            clock=ctx.clock_ns,
            wake=ctx.wake,
            playback=lambda: ctx.playback,
            dropped=ctx.dropped,
            keeps_packets=ctx.logs_packets,
            device=self._device(ctx, connection.name),
        )
        if config.may_be_live:
            ctx.report("connecting")
        reader.start()
        if connection.may_wait:
            ctx.live()
            return
        reader.wait_until_open()
        ctx.log.info(
            "source opened",
            source=reader.name,
            width=reader.width,
            height=reader.height,
            fps=round(reader.fps, 3),
            policy=reader.policy,
        )
        if isinstance(config.policy, MaxAge) and not (reader.live or config.realtime):
            ctx.log.info(
                "frames of a file have no age unless it has realtime: true", source=reader.name
            )
        if reader.live:
            ctx.live()
            if config.realtime:
                ctx.log.info("realtime is for files: a live source plays at its own speed anyway")

    def _device(self, ctx: Context, source: str) -> Device | None:
        """What decodes besides the CPU. `VideoError` where a device that is named does not open."""
        wanted = self.config.hwaccel
        try:
            kind, reasons = find_device(wanted)
        except HardwareError as error:
            text = f"{source!r}: hwaccel: {error}; auto takes what opens, none decodes on the CPU"
            raise VideoError(text, code="not_found") from None
        if kind is None:
            if wanted != "none":
                ctx.log.warning("no device decodes: the CPU does", source=source, **reasons)
            return None
        ctx.log.info("a device decodes", source=source, hwaccel=kind)
        return Device(kind, source=source, log=ctx.log)

    def process(self, ctx: Context, image: Output[ImageRgb8Msg]) -> None:
        reader = self._reader
        assert reader is not None
        frame = self._next_live(ctx, reader) if reader.live else self._next_of_file(ctx, reader)
        if frame is not None:
            self._report_lost(ctx, reader)
            self._publish(ctx, image, frame)
            if frame.origin is not None and frame.origin.is_damaged:
                self._damaged += 1
                self._report_damaged(ctx, reader)
        elif reader.frames.drained:
            self._end(ctx, reader)

    def _next_live(self, ctx: Context, reader: Reader) -> Frame | None:
        frame = reader.take(0.0, now_ns=ctx.now_ns)
        if frame is not None and reader.frames.has_more():
            ctx.wake_at(0)
        return frame

    def _next_of_file(self, ctx: Context, reader: Reader) -> Frame | None:
        # Waiting for a file's next frame, and not passing the cycle by, pairs the frames of
        # several files in the same way every run.
        if not self.config.realtime:
            frame = reader.take(_SIMULATED_S if is_simulated() else _WAIT_S)
            if frame is not None and self._base_ns is None:
                self._base_ns = ctx.now_ns - ctx.paused_ns
            return frame
        plays_ns = ctx.now_ns - ctx.paused_ns
        played_ns = 0 if self._base_ns is None else plays_ns - self._base_ns
        wait_s = _SIMULATED_S if is_simulated() else _WAIT_S if self._base_ns is None else 0.0
        frame = reader.take(wait_s, now_ns=played_ns, until_ns=played_ns)
        waiting = reader.frames.oldest if frame is None else frame
        if waiting is not None and self._base_ns is None:
            self._base_ns = plays_ns
        if frame is None:
            if waiting is not None:
                ctx.wake_at(ctx.now_ns - played_ns + waiting.time_ns)
        elif reader.policy == "latest":
            frame = reader.skip_to(played_ns, frame, _SIMULATED_S if is_simulated() else 0.0)
        return frame

    def _tell_decoding(self, ctx: Context, reader: Reader, found: Kept) -> None:
        if self.config.decode == "asked" and not isinstance(found, AskedPicture):
            ctx.log.info(
                "all pictures are decoded: decode: asked is for H.264, H.265 and MJPEG with times",
                source=reader.name,
            )

    def _publish(self, ctx: Context, image: ImageRgb8Msg, frame: Frame) -> None:
        reader = self._reader
        assert reader is not None
        if not self._told_colors:
            self._told_colors = True
            self._tell_colors(ctx, reader)
            self._tell_decoding(ctx, reader, frame.kept)
        found = frame.kept
        image.pixel_aspect = reader.pixel_aspect
        if isinstance(found, PlanarPicture):
            image.show(found)
            if found.is_turned:
                image.pixel_aspect = 1 / reader.pixel_aspect
        elif found.flags.c_contiguous:
            image.hand_over("pixels", found)
        else:
            np.copyto(image.allocate_pixels(*found.shape[:2]), found)
        image.frame_id = frame.frame_id
        self._given = frame.frame_id + 1
        image.pts = frame.pts
        image.fps = reader.fps
        image.source = reader.name
        image.video = reader.packets_of(frame)
        if ctx.logs_packets and not self._told and not reader.has_packets:
            self._told = True
            ctx.log.warning(
                "the log keeps pixels: packets do not give them back", source=reader.name
            )
        tov_ns = frame.time_ns
        if not reader.live:
            assert self._base_ns is not None
            tov_ns += self._base_ns + (ctx.paused_ns if self.config.realtime else 0)
        image.publish(tov_ns=min(max(0, tov_ns), TIME_ENDS - 1))  # files say what they like

    def _tell_colors(self, ctx: Context, reader: Reader) -> None:
        if reader.is_hdr:
            ctx.log.warning("HDR pictures are not tone mapped: they look pale", source=reader.name)
        if not is_compiled():
            ctx.log.warning(
                "pictures are converted ten times slower: install a C compiler, then flowrun again"
            )

    def _end(self, ctx: Context, reader: Reader) -> None:
        self._report_lost(ctx, reader, now=True)
        self._report_damaged(ctx, reader, now=True)
        if reader.error is not None and not self._has_failed:
            self._has_failed = True
            ctx.report("error", reader.error.code)
            raise reader.error
        if self._given == 1 and self.config.is_web:
            ctx.log.warning(
                "a single picture came: poll_s: 1 fetches it again every second", source=reader.name
            )
        ctx.keep_packets(reader.take_rest())
        ctx.finish()

    def _report_lost(self, ctx: Context, reader: Reader, *, now: bool = False) -> None:
        for cause, count in reader.frames.take_lost().items():
            ctx.dropped(count, cause)
        left_out = dict(reader.frames.lost)  # a copy: another thread counts meanwhile
        if left_out == self._left_out:
            return
        lost = {cause: n for cause, n in left_out.items() if cause not in _AS_ASKED}
        if lost != self._logged:
            if not now and ctx.now_ns - self._logged_ns < _LOG_EVERY_NS:
                return
            ctx.log.warning("frames lost", **{it.replace(" ", "_"): n for it, n in lost.items()})
            self._logged, self._logged_ns = lost, ctx.now_ns
        self._left_out = left_out

    def _report_damaged(self, ctx: Context, reader: Reader, *, now: bool = False) -> None:
        is_due = now or ctx.now_ns - self._damaged_ns >= _LOG_EVERY_NS
        if self._damaged > self._damaged_logged and is_due:
            ctx.log.warning(
                "packets missing or damaged",
                source=reader.name,
                damaged_pictures=self._damaged,
            )
            self._damaged_logged, self._damaged_ns = self._damaged, ctx.now_ns

    def interrupt(self, ctx: Context) -> None:  # noqa: ARG002
        if self._reader is not None:
            self._reader.interrupt()

    def stop(self, ctx: Context) -> None:
        if self._reader is not None:
            self._reader.stop()
            ctx.keep_packets(self._reader.take_rest())
