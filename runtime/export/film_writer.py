"""Films that grow while a run goes on: playable at every moment, also after the process was killed.

    picture -> its packets, as the camera sent them (`Copied`), or encoded (`Encoded`)
            -> `FilmPacket`s in decoding order, in units of 10 us
            -> `FilmWriter`: a file

| file        | while it is written                            | when it is finished                  |
|-------------|------------------------------------------------|--------------------------------------|
| .mp4, .mov  | fragments of half a second                     | the same bytes as a plain MP4        |
| .mkv, .webm | Matroska's clusters of half a second           | with its duration and an index       |

What a killed process has not written is the last fragment, or cluster, and up to 16 pictures whose place
in the film was not known yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import ImageRgb8Msg, VideoDecoder
from flowrun.runtime.export.film import (
    FilmClock,
    FilmPacket,
    add_copied,
    can_copy,
    say_aspect,
)
from flowrun.runtime.pictures.convert import UPRIGHT, swaps_axes
from flowrun.runtime.pictures.encode import CRF, say_colors, yuv_frame
from flowrun.runtime.pictures.squares import square_size
from flowrun.runtime.pictures.stored import shown_format
from flowrun.runtime.pictures.video import PacketDecoder

__all__ = [
    "CODECS",
    "CONTAINERS",
    "Copied",
    "Encoded",
    "FilmError",
    "FilmWriter",
    "Way",
    "copies_into",
]

TICKS_PER_S = 100_000
BASE = Fraction(1, TICKS_PER_S)
_PIECE_MS = 500
_KEY_EVERY = TICKS_PER_S
"""Ticks from one key frame to the next, where pictures are encoded: a player can begin there."""
_NEVER = 100_000
"""Pictures after which encoders make a key frame by themselves."""
_MOST_HELD = 16
"""Pictures that a decoder holds back for their order, at most."""
_FORGOTTEN = 2 * _MOST_HELD
"""How many packets after its own a picture is no longer waited for."""
_REMEMBERED = 512
"""Pictures of which is known when they are shown."""
_LONGEST_GROUP = 3000
"""Packets that are kept for a decoder to begin with."""
_PROBED = 16
"""Packets from which FFmpeg finds out what a container's head must say."""

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
"""Suffix of a film -> FFmpeg's name of its format."""
CODECS = {
    "h264": (
        "libx264",
        {"preset": "veryfast", "tune": "zerolatency", "forced-idr": "1"},
        CRF,
    ),
    "h265": (
        "libx265",
        {
            "preset": "veryfast",
            "tune": "zerolatency",
            "forced-idr": "1",
            "x265-params": "log-level=error",
        },
        23,
    ),
    "vp9": (
        "libvpx-vp9",
        {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "lag-in-frames": "0", "b": "0"},
        31,
    ),
    "av1": ("libsvtav1", {"preset": "10", "svtav1-params": "pred-struct=1:lookahead=0"}, 35),
}
"""Name -> FFmpeg's encoder, its options, the quality (crf) that is used where none is asked for."""
_IN_WEBM = ("vp9", "av1")
_SAY_ASPECT = ("h264", "h265")
"""Codecs whose packets say how wide pixels are; of others they are made square."""


class FilmError(OSError):
    """A film cannot be written."""


def copies_into(suffix: str, image: ImageRgb8Msg) -> bool:
    """Whether a film with this suffix can hold the packets of `image` as they are."""
    assert image.video is not None
    decoder = image.video.decoder
    if CONTAINERS[suffix] == "webm" and shown_format(decoder.name) not in _IN_WEBM:
        return False
    # By PyAV, Matroska's muxer is not told which way up pictures are, nor how wide their pixels.
    is_plain = decoder.orientation == UPRIGHT and image.pixel_aspect == 1
    return can_copy(decoder) and (is_plain or CONTAINERS[suffix] in ("mp4", "mov"))


class Way(Protocol):
    """How pictures become packets."""

    clock: FilmClock
    fps: float
    """What the source says of its rate; 0 where it says nothing."""

    def takes(self, image: ImageRgb8Msg) -> bool:
        """Whether the picture goes into the same film as those before."""
        ...

    def add(self, image: ImageRgb8Msg) -> Iterator[FilmPacket]:
        """The packets that are ready, now that `image` has come."""
        ...

    def rest(self) -> Iterator[FilmPacket]:
        """Those that are left at the end."""
        ...

    def add_stream(self, container: Any, first: list[FilmPacket]) -> Any:
        """A stream of the container for the packets, which begin with those of `first`."""
        ...


class Encoded:
    """Pictures, encoded.

    like: the first of them: all have its size and the shape of its pixels.
    codec: of `CODECS`.
    crf: the quality; None for the codec's own.
    """

    def __init__(
        self, like: ImageRgb8Msg, clock: FilmClock, *, codec: str, crf: int | None
    ) -> None:
        import av

        self.clock = clock
        self._size = size = like.height, like.width
        self._aspect = like.pixel_aspect
        self._is_squared = codec not in _SAY_ASPECT and self._aspect != 1
        if self._is_squared:
            size = square_size(*size, self._aspect)
        encoder, options, usual = CODECS[codec]
        context: Any = av.CodecContext.create(encoder, "w")
        if codec in _SAY_ASPECT:
            say_aspect(context, self._aspect)
        set_up_encoder(context, size, BASE, crf=usual if crf is None else crf, more=options)
        context.framerate = Fraction(like.fps or 30).limit_denominator(1000)
        context.gop_size = _NEVER
        self._context, self._coded_size = context, size
        self._codec = codec
        self.fps = like.fps
        self._key_at: int | None = None

    def takes(self, image: ImageRgb8Msg) -> bool:
        return (image.height, image.width) == self._size and image.pixel_aspect == self._aspect

    def add(self, image: ImageRgb8Msg) -> Iterator[FilmPacket]:
        import av

        height, width = self._coded_size
        pixels = image.resized(width, height) if self._is_squared else image.pixels
        frame = yuv_frame(even(pixels))
        frame.pts, frame.time_base = self.clock.at(image.tov_ns), BASE
        if self._key_at is None or frame.pts - self._key_at >= _KEY_EVERY:
            self._key_at = frame.pts
            frame.pict_type = av.video.frame.PictureType.I
        yield from map(_own, self._context.encode(frame))

    def rest(self) -> Iterator[FilmPacket]:
        yield from map(_own, self._context.encode(None))

    def add_stream(self, container: Any, first: list[FilmPacket]) -> Any:
        height, width = self._coded_size
        decoder = VideoDecoder(self._codec, b"", width, height, "yuv420p", "", 0, 0, (0, 0))
        aspect = 1.0 if self._is_squared else self._aspect
        return add_copied(container, decoder, _probed(first), BASE, aspect)


def _probed(first: list[FilmPacket]) -> list[memoryview]:
    return [packet.data for packet in first[:_PROBED]]


def _own(packet: Any) -> FilmPacket:
    return FilmPacket(memoryview(bytes(packet)), packet.is_keyframe, packet.pts, packet.dts)


@dataclass(slots=True)
class _Waiting:
    """A packet whose place in the film is not known yet.

    pts: when its picture is shown; None where that is not known, or the run has left it out.
    """

    number: int
    data: bytes | memoryview
    is_key: bool
    pts: int | None = None
    is_left_out: bool = False


class Copied:
    """A camera's own packets.

    like: the first picture. Packets before the first key frame are left out, as are those from a gap in
        them to the next one.
    """

    def __init__(self, like: ImageRgb8Msg, clock: FilmClock) -> None:
        assert like.video is not None
        self.clock = clock
        self.fps = like.fps
        self._decoder = like.video.decoder
        self._aspect = like.pixel_aspect
        self._waiting: deque[_Waiting] = deque()
        self._next: int | None = None
        self._last_dts: int | None = None
        self._order = _Order(self._decoder)

    def takes(self, image: ImageRgb8Msg) -> bool:
        video = image.video
        return (
            video is not None
            and _same(video.decoder, self._decoder)
            and image.pixel_aspect == self._aspect
        )

    def add(self, image: ImageRgb8Msg) -> Iterator[FilmPacket]:
        video = image.video
        assert video is not None
        number = video.first - len(video.before)
        for packet in video.before:
            waits = self._take(number, packet.data, is_key=packet.is_key)
            number += 1
            if waits is not None and packet.time_ns is not None and video.time_ns is not None:
                tov_ns = image.tov_ns + packet.time_ns - video.time_ns
                waits.pts = self._order.shown[waits.number] = self.clock.between(tov_ns)
            elif waits is not None:
                waits.is_left_out = True
        for data, is_key in video.packets:
            self._take(number, data, is_key=is_key)
            number += 1
        pts = self.clock.at(image.tov_ns)
        self._order.shown[video.number] = pts
        for waits in self._waiting:
            if waits.number == video.number:
                waits.pts = pts
            elif waits.number < video.number - _FORGOTTEN and waits.pts is None:
                waits.is_left_out = True
        yield from self._ready(_MOST_HELD)

    def rest(self) -> Iterator[FilmPacket]:
        # Those at the end without a picture were never shown: the film ends before them.
        while self._waiting and self._waiting[-1].pts is None:
            self._waiting.pop()
        for waits in self._waiting:
            waits.is_left_out = waits.pts is None
        self._order.end()
        yield from self._ready(0)

    def add_stream(self, container: Any, first: list[FilmPacket]) -> Any:
        turned = swaps_axes(self._decoder.orientation)
        return add_copied(
            container,
            self._decoder,
            _probed(first),
            BASE,
            1 / self._aspect if turned else self._aspect,
        )

    def _take(self, number: int, data: bytes | memoryview, *, is_key: bool) -> _Waiting | None:
        if number != self._next and not is_key:
            return None  # a key frame has not come yet, or packets are missing
        self._next = number + 1
        asked_from = self._waiting[0].number if self._waiting else number
        self._order.add(number, data, is_key=is_key, asked_from=asked_from)
        self._waiting.append(_Waiting(number, data, is_key))
        return self._waiting[-1]

    def _ready(self, window: int) -> Iterator[FilmPacket]:
        """Those of which it is known when they are decoded: before all that are shown later. So many
        must be known after them (`window`)."""
        waiting = self._waiting
        while len(waiting) > window:
            known = [waiting[at] for at in range(min(len(waiting), _MOST_HELD + 1))]
            if any(it.pts is None and not it.is_left_out for it in known):
                return
            for it in known:
                if it.pts is None:
                    it.pts = self._order.guessed(it.number)
            packet = waiting.popleft()
            assert packet.pts is not None
            shown = [it.pts for it in known if it.pts is not None]
            first = min(shown)
            # Each one that is decoded before the picture shown at `first` needs a time of its own.
            at = next(k for k, it in enumerate(known) if it.pts == first)
            dts = first - at
            if self._last_dts is not None:
                dts = max(dts, self._last_dts + 1)
            self._last_dts = dts
            yield FilmPacket(memoryview(packet.data), packet.is_key, max(packet.pts, dts), dts)


class _Order:
    """In which order the pictures of packets are shown, and so when one is shown that the run left out:
    between those around it.

    It is that of the packets, but where a picture was shown out of it: then a decoder has to say.
    """

    def __init__(self, decoder: VideoDecoder) -> None:
        self._decoder = decoder
        self._group: deque[tuple[int, bytes | memoryview, bool]] = deque()
        """The packets from a key frame on, with which a decoder can begin."""
        self._made: PacketDecoder | None = None
        self._has_ended = False
        self._order: deque[int] = deque(maxlen=_REMEMBERED)
        """Numbers in the order in which their pictures are shown, once a decoder says it."""
        self.shown: dict[int, int] = {}
        """When pictures are shown, by the number of their packets."""

    def add(self, number: int, data: bytes | memoryview, *, is_key: bool, asked_from: int) -> None:
        """Note the packet that comes next.

        asked_from: the first packet of which somebody may still ask.
        """
        for old in [it for it in self.shown if it < asked_from - _MOST_HELD]:
            del self.shown[old]
        if self._made is not None:
            self._decode(number, data, is_key)
            return
        self._group.append((number, data, is_key))
        if is_key or len(self._group) > _LONGEST_GROUP:
            keys = [key for key, _, begins in self._group if begins and key <= asked_from]
            while keys and self._group[0][0] < keys[-1]:
                self._group.popleft()
        if len(self._group) > _LONGEST_GROUP:
            self._group.popleft()

    def guessed(self, number: int) -> int:
        """When the picture is shown, where the run left it out."""
        if self._made is None and self._is_reordered():
            self._made = PacketDecoder(self._decoder)
            for packet in self._group:
                self._decode(*packet)
            if self._has_ended:
                self._made.drain(self._note)
        order = list(self._order) if number in self._order else sorted({*self.shown, number})
        at = order.index(number)
        before = next((k for k in range(at - 1, -1, -1) if order[k] in self.shown), None)
        after = next((k for k in range(at + 1, len(order)) if order[k] in self.shown), None)
        if before is None and after is None:
            pts = 0
        elif before is None:
            assert after is not None
            pts = self.shown[order[after]] - (after - at)
        elif after is None:
            pts = self.shown[order[before]] + (at - before)
        else:
            first, last = self.shown[order[before]], self.shown[order[after]]
            # Without a decoder, numbers that are not known yet have their places too.
            steps = after - before if self._order else order[after] - order[before]
            done = at - before if self._order else number - order[before]
            pts = first + max(1, (last - first) * done // steps)
        self.shown[number] = pts
        return pts

    def end(self) -> None:
        """No packets follow."""
        self._has_ended = True
        if self._made is not None:
            self._made.drain(self._note)

    def _is_reordered(self) -> bool:
        times = [self.shown[number] for number in sorted(self.shown)]
        return self._decoder.reorder > 0 or times != sorted(times)

    def _decode(self, number: int, data: bytes | memoryview, is_key: bool) -> None:  # noqa: FBT001
        assert self._made is not None
        self._made.decode(number, data, self._note, is_key=is_key)

    def _note(self, number: int | None, _picture: Any) -> None:
        if number is not None:
            self._order.append(number)


def _same(one: VideoDecoder, other: VideoDecoder) -> bool:
    """Whether one film holds the packets of both."""
    return (one.name, one.extradata, one.width, one.height, one.orientation) == (
        other.name,
        other.extradata,
        other.width,
        other.height,
        other.orientation,
    )


class FilmWriter:
    """A film that grows. `FilmError` where the file cannot be written.

    path: the file, which is replaced; its suffix is one of `CONTAINERS`.
    way: what makes its packets.
    first: packets that are known already, beginning with a key frame; their times are moved, so that
        the film begins at 0.
    """

    def __init__(self, path: Path, way: Way, first: list[FilmPacket]) -> None:
        import av

        self.path = path
        self._way = way
        self._held: FilmPacket | None = None
        self._begin = min(packet.pts for packet in first)
        self._end = self._begin
        self._count = 0
        form = CONTAINERS[path.suffix.lower()]
        options = {"flush_packets": "1"}
        if form in ("mp4", "mov"):
            options |= {
                "movflags": "+hybrid_fragmented",
                "frag_duration": str(1000 * _PIECE_MS),
                "video_track_timescale": str(TICKS_PER_S),
            }
        else:
            options |= {"cluster_time_limit": str(_PIECE_MS)}
        try:
            self._container = av.open(str(path), "w", format=form, options=options)
            self._stream = way.add_stream(self._container, first)
        except (OSError, ValueError) as error:
            raise FilmError(_said(path, error)) from None
        self._stream.time_base = BASE

    def write(self, packet: FilmPacket) -> None:
        """Add the packet that comes next in decoding order."""
        held, self._held = self._held, packet
        self._end = max(self._end, packet.pts)
        if held is not None:
            self._mux(held, packet.dts - held.dts)

    @property
    def pictures(self) -> int:
        """Number of pictures that the film has."""
        return self._count + (self._held is not None)

    def close(self) -> None:
        """Finish the film: its last picture is shown as long as most of the others are."""
        try:
            if self._held is not None:
                last = self._end + self._way.clock.usual_gap(self._way.fps)
                self._mux(self._held, max(1, last - self._held.dts))
        finally:
            self._held = None
            try:
                self._container.close()
            except (OSError, ValueError) as error:
                raise FilmError(_said(self.path, error)) from None

    def _mux(self, it: FilmPacket, duration: int) -> None:
        import av

        packet: Any = av.Packet(bytes(it.data))
        packet.stream, packet.time_base = self._stream, BASE
        packet.pts, packet.dts = it.pts - self._begin, it.dts - self._begin
        packet.is_keyframe, packet.duration = it.is_key, duration
        try:
            self._container.mux(packet)
        except (OSError, ValueError) as error:
            raise FilmError(_said(self.path, error)) from None
        self._count += 1


def _said(path: Path, error: Exception) -> str:
    return f"cannot write {path}: {getattr(error, 'strerror', None) or error}"


def even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels without an odd last row or column, which H.264 in yuv420p has no place for."""
    height, width = pixels.shape[:2]
    return pixels[: height - height % 2, : width - width % 2]


def set_up_encoder(
    context: Any,
    size: tuple[int, int],
    base: Fraction,
    *,
    crf: int,
    more: dict[str, str],
) -> None:
    """Have an encoder take pictures of `size`, (height, width), with times in `base`. `ValueError` where
    they are too small.

    more: options of the encoder besides its quality.
    """
    height, width = (length - length % 2 for length in size)
    if not height or not width:
        raise ValueError(f"a picture of {size[1]}x{size[0]} is too small for H.264")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base = base
    context.options = {"crf": str(crf), **more}
    say_colors(context)
