"""`VideoWriter`: pictures as films, while the run goes on."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveInt

from flowrun.msgs.basic import BoolMsg
from flowrun.msgs.image import ImageRgb8Msg, VideoPackets
from flowrun.msgs.message import Message
from flowrun.runtime.errors import UsageError
from flowrun.runtime.export.film import FilmClock, FilmPacket
from flowrun.runtime.export.film_writer import (
    BASE,
    CONTAINERS,
    Copied,
    Encoded,
    FilmError,
    FilmWriter,
    Way,
    copies_into,
)
from flowrun.runtime.task import Context, Input, Task, TaskConfig
from flowrun.tasks.sinks.outbox import Outbox
from flowrun.tasks.sinks.places import NewFile, is_own, note_own, path_of, problems_of

__all__ = ["VideoWriter"]

_NS_PER_S = 1_000_000_000
_END_S = 20.0
"""Seconds that the end of a run waits for pictures that are not in the film yet."""
_UNIT_NS = _NS_PER_S * BASE.numerator // BASE.denominator
_PROBED = 16
"""Packets that are known when a film begins, unless it ends before."""
_LATE_NS = 2 * _NS_PER_S
"""How late what comes at `when` may be, against the pictures that it is about."""
_PAUSE_NS = 10 * _NS_PER_S
_MOST_MOMENTS = 10_000
"""Stretches that wait for their pictures, at most: more only if no pictures come."""
_MOST_KEPT = 20_000
"""Packets that are kept for a film that begins before now, and up to as many more to begin with a key
frame."""
_WORST_OF_H264 = 51


class _Picture(NamedTuple):
    """A picture, and the packets that came with it."""

    image: ImageRgb8Msg
    video: VideoPackets | None


class VideoWriter(Task):
    """Write the pictures as a film.

    Takes pictures at `image`. Each is shown at its own time: since the first one, by `tov_ns`. Whatever
    ends the run, the film plays: it is finished at the end, after Ctrl-C, SIGTERM or an error of any
    task; after a kill it has all but the last second or so. The ending of the name says what kind of
    file it is: .mp4, .m4v or .mov (written as fragments, an ordinary MP4 once finished), .mkv, .webm.

    `codec: auto` copies a camera's own packets where nothing was drawn, the log keeps them and the file
    can hold them: nothing is decoded for it, and pictures that the run left out are in the film too,
    where others need them. A copy begins with a key frame. Everything else is encoded, as H.264, or VP9
    in .webm; an odd last row or column is cut off then. Pictures are upright and of the right shape, as
    in an export of the log.

    A message at `when` says what is written. A `BoolMsg`: from when it is true until it is false. Any
    other, such as an `AlertMsg`: the moment that it is about. Each time from `before_s` before to
    `after_s` after it, by the times of pictures, and as a film of its own. It begins with a key frame,
    so perhaps a little earlier. What comes at `when` may be 2 s late, as detections are; what is
    encoded is so all the time then.

    A film has pictures of one size: where that changes, or the camera's stream, another one begins. If
    a film cannot be written, as on a full disk, `on_error` decides; if the run goes on, another film is
    begun 10 s later. A replay writes nothing.
    """

    class Config(TaskConfig):
        path: str
        """The film; a relative one starts at the graph file. {run}, {start} (UTC) and {task} in it have
        values of the run."""
        fps: Literal["source"] | Annotated[float, Field(gt=0, le=1000)] = "source"
        """source: each picture at its own time; a number: N a second, whenever they were taken."""
        codec: Literal["auto", "copy", "h264", "h265", "vp9", "av1"] = "auto"
        """copy: the camera's packets, or an error; auto: these where that is possible."""
        crf: Annotated[int, Field(ge=0, le=63)] | None = None
        """Quality of what is encoded, less is better; null: 18 for h264, 23 for h265, 31 for vp9, 35 for
        av1."""
        before_s: NonNegativeFloat = 0.0
        """Seconds that are written before what comes at `when`; 20,000 pictures at most."""
        after_s: NonNegativeFloat = 0.0
        """Seconds that are written after it."""
        if_exists: Literal["number", "refuse", "replace"] = "number"
        """What to do where the file exists: write NAME-2, refuse to run, or replace it."""
        queue: PositiveInt = 60
        """The most pictures that wait to be written. Beyond that a cycle waits; or, if a source of the
        run is live, the oldest is dropped and counted."""

    acts_outside = True

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._outbox: Outbox[_Picture] | None = None
        self._films: _Films | None = None

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        refuses = config.if_exists == "refuse"
        found = list(
            problems_of(config.path, graph_dir, suffixes=tuple(CONTAINERS), must_be_new=refuses)
        )
        for text in found:
            yield "path", text
        if not found and _is_webm(config.path) and config.codec in ("h264", "h265"):
            yield "codec", f"a .webm holds no {config.codec}; codecs: auto, copy, vp9, av1"
        if config.codec in ("auto", "h264", "h265") and (config.crf or 0) > _WORST_OF_H264:
            yield "crf", f"{config.codec} takes at most {_WORST_OF_H264}; got {config.crf}"

    def start(self, ctx: Context) -> None:
        if "image" not in ctx.fed_by:
            raise UsageError(f"task {ctx.task_id!r}: nothing is connected to its input 'image'")
        self._films = _Films(ctx, self.config, is_asked="when" in ctx.fed_by)
        self._outbox = Outbox(
            ctx, self._films.take, most=self.config.queue, waits=lambda: not ctx.follows_live
        )

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg] | None, when: Input[Message] | None
    ) -> None:
        del ctx
        assert self._films is not None
        assert self._outbox is not None
        if when is not None:
            self._films.moments.note(when)
        if image is not None:
            self._outbox.put(_Picture(image.copy(), image.video))

    def stop(self, ctx: Context) -> None:
        del ctx
        if self._outbox is None or self._films is None:
            return
        try:
            self._outbox.close(_END_S)
        finally:
            if not self._outbox.is_alive:
                self._films.close()


def _is_webm(path: str) -> bool:
    return CONTAINERS[Path(path).suffix.lower()] == "webm"


class Moments:
    """Which times are written. The cycle's thread notes them, the outbox's asks.

    before_ns, after_ns: what is written around each.
    """

    def __init__(self, before_ns: int, after_ns: int) -> None:
        self._before_ns, self._after_ns = before_ns, after_ns
        self._lock = threading.Lock()
        self._open_ns: int | None = None
        """Since when a `BoolMsg` is true."""
        self._closed: deque[tuple[int, int]] = deque(maxlen=_MOST_MOMENTS)

    def note(self, message: Message) -> None:
        """Note what came at `when`."""
        at_ns = message.tov_ns
        with self._lock:
            if not isinstance(message, BoolMsg):
                self._close(at_ns, at_ns)
            elif message.value and self._open_ns is None:
                self._open_ns = at_ns
            elif not message.value and self._open_ns is not None:
                self._close(self._open_ns, at_ns)
                self._open_ns = None

    def _close(self, begin_ns: int, end_ns: int) -> None:
        if self._closed:
            last_begin_ns, last_end_ns = self._closed[-1]
            around_ns = self._before_ns + self._after_ns
            if begin_ns - last_end_ns <= around_ns and last_begin_ns - end_ns <= around_ns:
                self._closed[-1] = min(begin_ns, last_begin_ns), max(end_ns, last_end_ns)
                return
        self._closed.append((begin_ns, end_ns))

    def begin_ns(self, tov_ns: int) -> int | None:
        """When the stretch begins in which a picture of `tov_ns` is written; None if it is in none.
        What ends more than 2 s before is forgotten: ask for pictures in their order."""
        with self._lock:
            while self._closed and self._closed[0][1] + self._after_ns < tov_ns - _LATE_NS:
                self._closed.popleft()
            stretches = [(begin_ns, end_ns + self._after_ns) for begin_ns, end_ns in self._closed]
            if self._open_ns is not None:
                stretches.append((self._open_ns, tov_ns))
        begins = (
            begin_ns - self._before_ns
            for begin_ns, end_ns in stretches
            if begin_ns - self._before_ns <= tov_ns <= end_ns
        )
        return min(begins, default=None)


class _Ready(NamedTuple):
    """A packet, and when its picture was taken."""

    packet: FilmPacket
    tov_ns: int


class _Films:
    """The films of a task, one after another, on the outbox's thread.

    is_asked: whether `when` is connected.
    """

    def __init__(self, ctx: Context, config: VideoWriter.Config, *, is_asked: bool) -> None:
        self._ctx, self._config, self._is_asked = ctx, config, is_asked
        before_ns = round(config.before_s * _NS_PER_S)
        self.moments = Moments(before_ns, round(config.after_s * _NS_PER_S))
        self._keeps_ns = before_ns + _LATE_NS
        self._way: Way | None = None
        self._writer: FilmWriter | None = None
        self._file: NewFile | None = None
        """The film's, for itself alone."""
        self._kept: deque[_Ready] = deque()
        """The last packets, from a key frame on."""
        self._done = 0
        """How many of them are in a film, or in none for good."""
        self._has_key = False
        """Whether a key frame has come, with which a film can begin."""
        self._again_ns: int | None = None
        """When a film is begun again, after one that could not be written."""
        self._has_cut = False
        self._has_too_many = False

    def take(self, picture: _Picture) -> None:
        """Add a picture. Raises `FilmError`, and `SinkFileError` where another has the file."""
        image = picture.image
        image.video = picture.video
        if self._again_ns is not None and 0 <= self._again_ns - image.tov_ns <= _PAUSE_NS:
            self._ctx.dropped(1, "no film")
            return
        self._again_ns = None
        try:
            if self._way is None or not self._way.takes(image):
                self.close()
                self._way = self._way_of(image)
            for packet in self._way.add(image):
                self._keep(packet)
            self._write()
        except BaseException:
            self._again_ns = image.tov_ns + _PAUSE_NS
            self._give_up()
            raise

    def close(self) -> None:
        """Finish the film. Raises what `take` does."""
        try:
            if self._way is not None:
                for packet in self._way.rest():
                    self._keep(packet)
                self._write(is_end=True)
                self._end_film()
        except BaseException:
            self._give_up()
            raise
        self._reset()

    def _reset(self) -> None:
        self._way = None
        self._kept.clear()
        self._done, self._has_key = 0, False

    def _way_of(self, image: ImageRgb8Msg) -> Way:
        """How `image`, and those like it, become packets."""
        config = self._config
        clock = FilmClock(_UNIT_NS, fps=None if config.fps == "source" else config.fps)
        suffix, codec, video = Path(config.path).suffix.lower(), config.codec, image.video
        if codec in ("auto", "copy"):
            if video is not None and copies_into(suffix, image):
                return Copied(image, clock)
            if codec == "copy":
                why = (
                    "the pictures come without a camera's packets: a task has drawn them, or the log "
                    "does not keep packets"
                    if video is None
                    else f"a {suffix} does not hold {video.decoder.name} as it comes from this camera"
                )
                raise FilmError(f"codec: copy: {why}; codec: auto encodes them")
            codec = "vp9" if _is_webm(config.path) else "h264"
        if (image.height | image.width) & 1 and not self._has_cut:
            self._has_cut = True
            self._ctx.log.info(
                "an odd last row or column is cut off", width=image.width, height=image.height
            )
        return Encoded(image, clock, codec=codec, crf=config.crf)

    def _keep(self, packet: FilmPacket) -> None:
        assert self._way is not None
        self._has_key = self._has_key or packet.is_key
        if self._has_key:
            self._kept.append(_Ready(packet, self._way.clock.taken_ns(packet.pts)))

    def _write(self, *, is_end: bool = False) -> None:
        """Write what is to be written of what is kept, and forget what is too old.

        is_end: whether no packets follow.
        """
        while self._done < len(self._kept):
            packet, tov_ns = self._kept[self._done]
            begin_ns = self.moments.begin_ns(tov_ns) if self._is_asked else tov_ns
            if begin_ns is None:
                self._end_film()
                if not is_end and tov_ns > self._kept[-1].tov_ns - self._keeps_ns:
                    break  # something about it may come yet
            elif self._writer is not None:
                self._writer.write(packet)
            elif (first := self._first_for(begin_ns)) is not None:
                if len(self._kept) - first < _PROBED and not is_end:
                    return
                self._begin(first)
            self._done += 1
        self._forget()

    def _first_for(self, begin_ns: int) -> int | None:
        """The place of the key frame with which a film begins that holds `begin_ns`, or as much of the
        stretch as is there; None without one."""
        keys = [at for at, it in enumerate(self._kept) if it.packet.is_key]
        early = [at for at in keys if self._kept[at].tov_ns <= begin_ns]
        return early[-1] if early else keys[0] if keys else None

    def _begin(self, first: int) -> None:
        """Begin a film with what is kept from `first` on, up to what is written next."""
        assert self._way is not None
        packets = [it.packet for it in self._kept]
        self._file = self._new_file(self._kept[first].tov_ns)
        path = self._file.path
        self._writer = FilmWriter(path, self._way, packets[first:])
        self._ctx.log.info("writes a film", path=str(path), copied=isinstance(self._way, Copied))
        for packet in packets[first : self._done + 1]:
            self._writer.write(packet)

    def _forget(self) -> None:
        """Forget what no film can begin with any more."""
        forgotten = self._too_early() if self._is_asked else self._done
        for _ in range(forgotten):
            self._kept.popleft()
        self._done = max(0, self._done - forgotten)

    def _too_early(self) -> int:
        """How many of the oldest packets are before all films that may begin yet."""
        old_ns = self._kept[-1].tov_ns - self._keeps_ns if self._kept else 0
        too_many = len(self._kept) - _MOST_KEPT
        first = 0
        for at, (packet, tov_ns) in enumerate(self._kept):
            if at > too_many and (at >= self._done or tov_ns > old_ns):
                break
            if packet.is_key:
                first = at
        if len(self._kept) - first > 2 * _MOST_KEPT:
            first = self._done or too_many
        if first > self._done and not self._has_too_many:
            self._has_too_many = True
            self._ctx.log.warning("keeps no more pictures than that for before_s", most=_MOST_KEPT)
        return first

    def _new_file(self, tov_ns: int) -> NewFile:
        wanted = path_of(self._config.path, self._ctx, tov_ns)
        replaces = self._config.if_exists == "replace" and not is_own(wanted, self._ctx)
        made = NewFile(wanted, replaces=replaces)
        note_own(made.path, self._ctx)
        return made

    def _end_film(self) -> None:
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
        finally:
            self._release()
        if writer is not None:
            self._ctx.log.info("film finished", path=str(writer.path), pictures=writer.pictures)

    def _give_up(self) -> None:
        """The film cannot be written on: what comes begins another one."""
        writer, self._writer = self._writer, None
        self._reset()
        if writer is not None:
            with contextlib.suppress(FilmError):
                writer.close()
        self._release()

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
