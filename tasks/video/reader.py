"""The thread that decodes a video source a few frames ahead of the cycle."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flowrun.msgs.image import UnseenPacket, VideoPackets
from flowrun.runtime.pictures.planar import Kept, PlanarPicture
from flowrun.runtime.pictures.video import LetGo
from flowrun.runtime.simulated import is_simulated
from flowrun.runtime.task import Playback
from flowrun.tasks.video.address import AddressError
from flowrun.tasks.video.ahead import available_cores
from flowrun.tasks.video.asked import AskedDecoder
from flowrun.tasks.video.connection import Connection, Opened
from flowrun.tasks.video.decoding import Counts, SourceDecoder
from flowrun.tasks.video.hwaccel import Device
from flowrun.tasks.video.keeping import Keeping
from flowrun.tasks.video.key_frames import KeyFrameDecoder
from flowrun.tasks.video.lengths import is_cut_off
from flowrun.tasks.video.numbering import Frame, Numbering
from flowrun.tasks.video.opening import VideoError, reason_of
from flowrun.tasks.video.packets import PacketQueue
from flowrun.tasks.video.pipes import PipedContainer
from flowrun.tasks.video.policy import FrameQueue
from flowrun.tasks.video.sections import Picture
from flowrun.tasks.video.settings import MaxAge, VideoSettings
from flowrun.tasks.video.stills import PictureFiles
from flowrun.tasks.video.streams import chosen_stream
from flowrun.tasks.video.web import gives_parts, missing_index

__all__ = ["Reader"]

_STOP_S = 0.5
"""How long `stop` waits for a source that gives something all the time, so that it is closed."""
_HDR = (16, 18)
"""FFmpeg's numbers of the transfer functions PQ and HLG."""
_NO_CLOCK, _MAY_JUMP = 0x80, 0x200
"""AVFMT_NOTIMESTAMPS and AVFMT_TS_DISCONT, of an enumeration that `av` does not export."""
_FOLLOW = "follow"
"""FFmpeg's option to wait at the end of a file for what is added to it."""
_BYTES_A_PIXEL = 5
"""Of planes, and of what is made of them."""


class _StoppedError(Exception):
    """The reader was stopped while packets come that give no picture."""


class Reader:
    """A thread that opens a source, decodes it into a buffer, and closes it; a live one that is lost it
    opens again.

    keeps_packets: for the log, with the pictures that they give.
    device: what decodes besides the CPU; None where nothing does.
    live: whether frames come at the source's own time. Known when the source was opened.
    error: why it ended, if not because the source is at its end.
    dropped: called with a number of frames of a live source that were left out, and why, on any thread.
    playback: what is asked of the source.
    """

    def __init__(
        self,
        connection: Connection,
        config: VideoSettings,
        *,
        clock: Callable[[], int],
        wake: Callable[[], None],
        playback: Callable[[], Playback],
        dropped: Callable[[int, str], None],
        keeps_packets: bool,
        device: Device | None = None,
    ) -> None:
        import av

        self.live = config.may_be_live
        self.name = connection.name
        self.width = self.height = 0
        self.fps = 0.0
        self.is_hdr = False
        """Whether the stream says that its levels are those of HDR."""
        self.pixel_aspect = 1.0
        """Width of a pixel divided by its height, as the pictures lie in the stream."""
        self._is_open = self._ended = False
        self._opened = threading.Event()
        """Set when the source is open, or will not be."""
        self.error: VideoError | None = None
        self._errors = av.error.FFmpegError
        self._connection = connection
        self._device = device
        self._container: Any = None
        self._stream: Any = None
        self._may_seek: bool | None = None
        """Whether the source can be gone back in; None until that was asked."""
        self._config = config
        self._wake = wake
        self._keeping = Keeping(
            self.name,
            needs_crc=keeps_packets,
            lose=self._count_lost,
            is_awaited=lambda: not (self.frames.has_more() if self.live else self.frames.is_ahead),
        )
        is_partial = config.decode != "all"
        self._packets = PacketQueue(keeps_all=is_partial) if keeps_packets else None
        self._decoder: SourceDecoder
        """Of this connection."""
        max_age = config.policy.max_age_ms if isinstance(config.policy, MaxAge) else None
        self.frames: FrameQueue[Frame] = FrameQueue(
            newest_only=self._newest_only,
            is_live=self.live,
            size=config.buffer,
            max_age_ns=None if max_age is None else int(max_age * 1_000_000),
            playback=playback,
            report=dropped,
        )
        """Those that wait for the cycle."""
        self._in_hand: Frame | None = None
        """The frame that was taken, until its packets are."""
        self._given: Kept | None = None
        """What was taken last, until nothing more was there to take."""
        self._damaged = 0
        """How many damaged packets and pictures `frames` has counted."""
        self._unconverted = 0
        """Pictures since the beginning of the film, or loop, whose colours cannot be converted."""
        self._is_stopped = False
        self._came_s = time.monotonic()
        """When the last packet came, or a connection began, by `time.monotonic`."""
        self._numbering = Numbering(config, clock=clock, leave_out=self.frames.count)
        # The command ends the process itself where such a thread is left: FFmpeg calls Python while it
        # waits, which crashes when Python has gone.
        self._thread = threading.Thread(
            target=self._read, name=f"flowrun-read {self.name}", daemon=True
        )

    @property
    def policy(self) -> str:
        """Which frames are given."""
        if isinstance(self._config.policy, MaxAge):
            return "every_frame"
        automatic = "latest" if self.live else "every_frame"
        return automatic if self._config.policy == "auto" else self._config.policy

    @property
    def _newest_only(self) -> bool:
        # A file that is played at its own speed is decoded ahead also where only the newest frame
        # is wanted: the cycle's time decides which one that is.
        is_timed = self._config.realtime or is_simulated()
        return self.policy == "latest" and (self.live or not is_timed)

    # -- for the cycle -------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def take(
        self, wait_s: float, *, now_ns: int | None = None, until_ns: int | None = None
    ) -> Frame | None:
        """The next frame, or None if there is none within `wait_s`.

        now_ns: the time by which a frame is too old, on the clock of `Frame.time_ns`; None if none is.
        until_ns: the time up to which frames are taken, on the same clock; None if all are.
        """
        frame = self._in_hand = self.frames.take(wait_s, now_ns=now_ns, until_ns=until_ns)
        if frame is not None:
            self._given = frame.kept
        elif self._given is not None:
            # While the cycle has nothing else to do: the decoder would wait for it.
            if isinstance(self._given, PlanarPicture):
                self._given.leave_decoder()
            self._given = None
        return frame

    def packets_of(self, frame: Frame) -> VideoPackets | None:
        """What the log needs instead of the frame's pixels; asked once of each frame published."""
        taken = None
        if self._packets is not None and frame.origin is not None:
            taken = self._packets.take(frame.origin)
        self._in_hand = None
        return taken

    def take_rest(self) -> tuple[UnseenPacket, ...]:
        """At its end: what the log needs besides the packets of frames, see `Context.keep_packets`."""
        return () if self._packets is None else self._packets.take_rest()

    @property
    def has_packets(self) -> bool:
        """Whether packets can replace pixels in the log."""
        return self._packets is not None and self._is_open and self._decoder.logs_packets

    @property
    def damaged(self) -> int:
        """How many packets the decoder refused; the stream goes on after them."""
        return self._decoder.damaged if self._is_open else 0

    def skip_to(self, played_ns: int, frame: Frame, wait_s: float = 0.0) -> Frame:
        """The newest decoded frame that is due at `played_ns`, at least `frame`. From now on the
        reader leaves out what would come too late.

        wait_s: how long to wait for each frame that is not decoded; the reader then leaves out none.
        """
        if not wait_s:
            self._numbering.played_ns = played_ns
        self._in_hand = self.frames.skip_to(played_ns, frame, wait_s)
        return self._in_hand

    def wait_until_open(self) -> None:
        """Return when the source is open. Raises the error if it cannot be opened."""
        self._opened.wait()
        if not self._is_open and self.error is not None:
            raise self.error

    def interrupt(self) -> None:
        """Open and read nothing more; from any thread."""
        self._is_stopped = True
        self._connection.stop()
        interrupt = getattr(self._container, "interrupt", None)
        if interrupt is not None:
            interrupt()
        self.frames.stop()
        self._opened.set()

    def stop(self) -> bool:
        """End the thread, or leave it where its source is silent: it ends by itself when that has not
        answered for `timeout_s`. False if it was left."""
        if is_simulated() and self._thread.is_alive():
            self.frames.wait_until_full()  # what it has read then is the same each time
        self.interrupt()
        if self._thread.ident is None:
            return True
        is_silent = self.live and time.monotonic() - self._came_s > _STOP_S
        is_waiting = not self._ended and (is_silent or not self._is_open)
        self._thread.join(0 if is_waiting else _STOP_S)
        return not self._thread.is_alive()

    # -- the thread ----------------------------------------------------------------------------

    def _read(self) -> None:
        error: VideoError | None = None
        try:
            for frame in self._frames():
                if not self._put(frame):
                    break
        except _StoppedError:
            pass
        except VideoError as failed:
            error = failed
        except OSError as failed:  # such as of a picture of a folder that was removed meanwhile
            code = "not_found" if isinstance(failed, FileNotFoundError) else "failed"
            text = f"cannot read {str(failed.filename or self.name)!r}: {reason_of(failed)}"
            error = VideoError(text, code=code)
        except Exception as failed:  # noqa: BLE001  # reaches the cycle through `error`
            error = VideoError(f"{self.name!r}: reading failed: {type(failed).__name__}: {failed}")
        finally:
            self.error = error
            self._ended = True
            self._count_damaged()
            self.frames.end()
            self._opened.set()
            self._keeping.stop()
            if self._is_open:
                self._decoder.close()
            if self._container is not None:
                self._container.close()
        self._wake()

    def _frames(self) -> Iterator[Frame]:
        """The frames of one connection after the other."""
        lost: VideoError | None = None
        while (opened := self._connection.open(lost)) is not None:
            lost, is_whole = VideoError(f"{self.name!r} has ended", code="ended"), True
            try:
                self._use(opened)
                if opened.is_again and not self.live:
                    return  # what was live is over: the server has it as a whole now
                yield from self._rounds()
            except VideoError as failed:  # of a snapshot, or of what has no video stream
                if not self.live:
                    raise
                lost, is_whole = failed, False
            except self._errors as failed:
                lost = self._loss(failed)
                if not self.live:
                    raise lost from failed
                # So FFmpeg says that a server has given all of which it has not said the length.
                is_whole = failed.errno == errno.EIO and lost.code == "ended"
            if self.live and is_whole and self._connection.is_over(self._container):
                return
            self._container.close()
            if not self.live:
                return

    def _use(self, opened: Opened) -> None:
        """Read from a source that was opened."""
        self._container = container = opened.container
        self.live = opened.is_live
        try:
            self._stream = stream = chosen_stream(container, self.name, self._config.stream)
        except AddressError as error:
            raise VideoError(str(error), code=error.code) from None
        counts = self._decoder.counts if self._is_open else Counts()
        self._decoder = self._new_decoder(stream, counts, is_live=opened.is_live)
        self._decoder.on_refused = self._name_file
        flags = container.format.flags
        self._numbering.begin(
            stream,
            is_live=opened.is_live,
            may_jump=bool(flags & _MAY_JUMP),
            has_clock=not flags & _NO_CLOCK,
        )
        self._keeping.is_live = opened.is_live
        self.width, self.height = stream.codec_context.width, stream.codec_context.height
        self.fps = self._numbering.fps
        self.pixel_aspect = float(stream.sample_aspect_ratio or 1)
        self.is_hdr = stream.codec_context.color_trc in _HDR
        size = _BYTES_A_PIXEL * self.width * self.height
        self.frames.begin(newest_only=self._newest_only, is_live=self.live, frame_size=size)
        self._is_open = True
        self._opened.set()

    def _new_decoder(self, stream: Any, counts: Counts, *, is_live: bool) -> SourceDecoder:
        # Of others, the same pictures are given in each run.
        is_timed = is_live or (self._config.realtime and not is_simulated())
        if self._config.decode == "keyframes":
            return KeyFrameDecoder(
                stream,
                self._packets,
                waits=not is_live,
                after=counts,
                is_read=lambda: not is_timed or self._keeping.expects_next,
                is_stopped=lambda: self._is_stopped,
            )
        if self._config.decode == "asked":
            return AskedDecoder(stream, self._packets, after=counts)
        # More cores give a picture some packets later, for which a program that writes lets wait.
        is_written = isinstance(self._container, PipedContainer) or _FOLLOW in self._config.options
        cores = 1 if is_live or is_written else available_cores()
        return SourceDecoder(stream, self._packets, cores=cores, device=self._device, after=counts)

    def _loss(self, failed: Any) -> VideoError:
        import av

        # FFmpeg has no one error for it, and its own time starts a little before.
        silent_s = time.monotonic() - self._came_s if self.live else 0.0
        if isinstance(failed, av.error.ExitError) or silent_s >= 0.9 * self._config.timeout_s:
            text = f"{self.name!r} gave no frame for timeout_s {self._config.timeout_s:g}"
            return VideoError(text, code="timeout")
        if self._config.is_web and isinstance(failed, OSError) and failed.errno == errno.EIO:
            has_none = not (self.live or self._numbering.has_first)
            if has_none and (lack := missing_index(self._config)) is not None:
                return VideoError(f"{self.name!r} has no frames: {lack}", code="codec")
            return self._ended_early()
        if not self.live and self._numbering.has_first:
            text = f"{self.name!r} is damaged, and FFmpeg cannot read on: {failed.strerror}"
            return VideoError(text, code="codec")
        if not self.live:
            text = f"{self.name!r} cannot be decoded: {reason_of(failed)}"
            return VideoError(text, code="codec")
        return VideoError(f"{self.name!r} was lost: {reason_of(failed)}", code="ended")

    def _ended_early(self) -> VideoError:
        too_early = "" if self.live else " before the end of the film"
        return VideoError(f"{self.name!r} has ended the connection{too_early}", code="ended")

    def _put(self, frame: Frame) -> bool:
        """Let `frame` wait for the cycle; False if the reader is to end."""
        self._count_damaged()
        if not self.frames.put(frame):
            return False
        self._wake()
        self._forget_packets()
        return True

    def _count_damaged(self) -> None:
        damaged = self.damaged
        if damaged > self._damaged:
            self.frames.count(damaged - self._damaged, "damaged")
            self._damaged = damaged

    def _name_file(self, pts: int | None) -> None:
        if isinstance(self._container, PictureFiles) and pts is not None:
            self._connection.note_damaged(self._container.file_of(pts))

    def _forget_packets(self) -> None:
        """Drop the packets that only frames needed that were left out: a cycle that takes long, or a
        source that is muted, lets no memory grow."""
        frame = self._in_hand or self.frames.oldest
        if self._packets is not None and frame is not None and frame.origin is not None:
            self._packets.forget_before(frame.origin.section)

    def _rounds(self) -> Iterator[Frame]:
        """The frames up to the end of the source, and from its beginning again if it is a loop."""
        start_s = self._config.start_s
        again = False
        while True:
            self._came_s = time.monotonic()
            if start_s or again:
                self._seek(float(self._numbering.start) + start_s, again=again)
                self._decoder.restart()
            self._numbering.begin_round(again=again)
            damaged, self._unconverted, is_empty = self.damaged, 0, True
            for frame in self._round():
                is_empty = False
                yield frame
            if is_empty and not self.live:
                self._refuse_empty(is_damaged=self.damaged > damaged)
            if not self._config.loop or not self._numbering.has_first:
                return
            again = True

    def _refuse_empty(self, *, is_damaged: bool) -> None:
        """Raise the error of a film that has given nothing from its beginning to its end, unless nobody
        wanted what it has."""
        start_s, context = self._config.start_s, self._stream.codec_context
        if self._unconverted:
            what = f"has pictures that cannot be converted ({context.pix_fmt})"
        elif self._numbering.has_first:
            return
        elif start_s:
            what = f"has no frame after start_s {start_s:g}"
        elif is_damaged:
            what = f"has no frame that can be decoded ({context.name})"
        elif (lack := missing_index(self._config)) is not None:
            what = f"has no frames: {lack}"
        else:
            what = "has no frames"
        raise VideoError(f"{self.name!r} {what}", code="codec")

    def _seek(self, to_s: float, *, again: bool) -> None:
        """Go on at a time. A source that cannot be sought is read from its beginning."""
        if self._may_seek is None:
            self._may_seek = gives_parts(self._config)
        refused: Exception | None = None
        if self._may_seek:
            try:
                self._container.seek(int(to_s * 1_000_000))
            except self._errors as failed:
                refused = failed
            else:
                return
        if not again:
            return
        if isinstance(self._container, PipedContainer):
            text = f"{self.name!r} cannot be read again from its beginning; leave loop out"
            raise VideoError(text) from refused
        self._container.close()
        self._container = self._connection.open_again()
        self._stream = chosen_stream(self._container, self.name, self._config.stream)

    def _round(self) -> Iterator[Frame]:
        """The frames up to the end of the stream; those before an error come first."""
        packets = iter(self._container.demux(self._stream))
        if self.live:
            packets = self._numbering.watched(packets)
        failed: Exception | None = None
        is_unknown = self._has_unknown_length
        count = 0
        end = 0
        """Where the last picture of a film ends, by its stream's clock."""
        is_part = False
        """Whether the last packet is the beginning of one."""
        stamps: list[int] = []
        while True:
            try:
                packet = next(packets, None)
            except self._errors as error:
                failed, packet = error, None
            if packet is None:
                break
            if self._is_stopped:
                raise _StoppedError
            count += 1
            self._came_s = time.monotonic()
            if self.live:
                if count == 1 and self._connection.is_repeated(packet, self._container):
                    raise _StoppedError
                if packet.dts is not None:
                    stamps[1:] = [packet.dts]
            elif packet.size:
                is_part = packet.is_corrupt
                if is_unknown and packet.pts is not None:
                    end = max(end, packet.pts + (packet.duration or 0))
            earlier = len(self._keeping)
            self._decoder.feed(packet, self._take)
            # Kept while this packet was decoded; a live picture does not wait for the next.
            yield from self._keeping.take(len(self._keeping) if self.live else earlier)
        self._decoder.drain(self._take)
        yield from self._keeping.take(len(self._keeping))
        if self.live and stamps:
            self._connection.note_end(float((stamps[-1] - stamps[0]) * self._stream.time_base))
        # Of others it says that packets are missing, or that their sum is wrong.
        is_part = is_part and not self._container.format.flags & _MAY_JUMP
        if failed is not None and not self._is_end(failed, count, is_part=is_part):
            raise failed
        # FFmpeg does not notice where a server cuts such a film off.
        is_cut = is_part or (is_unknown and is_cut_off(self._stream, end))
        if is_cut and self._config.kind == "url":
            raise self._ended_early()
        if is_cut:
            self._connection.note_cut_off()

    @property
    def _has_unknown_length(self) -> bool:
        """Whether the server of a film does not say how long it is."""
        return not self.live and self._config.kind == "url" and self._container.size < 0

    def _is_end(self, failed: Exception, count: int, *, is_part: bool) -> bool:
        """Whether an error after `count` packets, the last of which may be a part, is how a film ends:
        FFmpeg expects more of a file whose length the server does not say, and, within an MP4 in
        fragments, after half a packet."""
        import av

        if is_part and isinstance(failed, av.error.InvalidDataError):
            return True
        is_closed = isinstance(failed, OSError) and failed.errno == errno.EIO
        return self._has_unknown_length and is_closed and count >= self._stream.frames

    def _take(self, picture: Picture) -> LetGo | None:
        self._connection.note_picture()
        framed = self._numbering.framed(picture)
        return None if framed is None else self._keeping.begin(framed, picture)

    def _count_lost(self) -> None:
        self._unconverted += 1
        self._decoder.damaged += 1
