"""A camera's own packets as a film, copied and not encoded again."""

from __future__ import annotations

import io
import statistics
import struct
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.export.unseen import Timed, UnseenPackets
from flowrun.runtime.log.reader import Log
from flowrun.runtime.pictures.bitstream import closes, with_parameters
from flowrun.runtime.pictures.convert import UPRIGHT, matrix_of, swaps_axes
from flowrun.runtime.pictures.stored import StoredPacket, StoredPicture, shown_format
from flowrun.runtime.pictures.video import PacketDecoder

__all__ = [
    "Film",
    "FilmClock",
    "FilmPacket",
    "FilmTimes",
    "add_copied",
    "at_rate",
    "can_copy",
    "film_of",
    "film_times",
    "last_duration",
    "say_aspect",
    "write_film",
]

_FINEST_US, _COARSEST_US = 1, 1000
_MOST_UNITS = 1 << 29
"""Between two pictures: MP4 has 31 bits for it, and some are needed for the pictures' order."""
_LONGEST_MS = 1 << 31
"""The duration of a film whose end can be moved."""
_FINEST_ASPECT = 1000
"""Denominator of a pixel's aspect, at most."""
_DEFAULT_US = 40_000
"""The duration of a single picture whose source does not say its rate."""
_RAW_FORMATS = {"h264": "h264", "h265": "hevc", "mpeg4": "m4v", "vp9": "ivf", "av1": "ivf"}
"""Codecs that MP4 holds, and FFmpeg's formats of their bare packets."""
_FOURCC = {"vp9": b"VP90", "av1": b"AV01"}
_GAPS = 255
"""Times between pictures by which the last one's duration is chosen."""
_MOST_HELD = 16
"""Pictures that a decoder holds back for their order, at most."""
_PROBED = 16
"""Packets from which FFmpeg finds out what MP4's head must say."""


class FilmTimes(NamedTuple):
    """When the pictures of a film are shown.

    unit_us: the unit of all times of the film, in microseconds: 1, or more where pictures are minutes
        apart.
    times: of the pictures, ascending, from 0.
    moved: pictures that were not taken later than the one before, and are shown a unit after it.
    cut: pictures that came days after the one before, and are shown sooner.
    """

    unit_us: int
    times: list[int]
    moved: int
    cut: int

    @property
    def base(self) -> Fraction:
        """The unit in seconds."""
        return Fraction(self.unit_us, 1_000_000)

    @property
    def options(self) -> dict[str, str]:
        """Of FFmpeg's MP4 muxer."""
        return {"movflags": "+faststart", "video_track_timescale": str(1_000_000 // self.unit_us)}

    @property
    def notes(self) -> list[str]:
        """What the film does not show as it was."""
        found = []
        if self.moved:
            found.append(
                f"{self.moved} pictures were not taken later than the one before: {self.unit_us} us "
                "after it instead"
            )
        if self.cut:
            found.append(f"{self.cut} pictures came days after the one before: sooner instead")
        return found


class FilmClock:
    """When each picture of a film is shown, one after another, from 0.

    unit_ns: the unit of all times of the film, in nanoseconds.
    fps: shown at this rate, whenever they were taken; None: at their own times.
    """

    def __init__(self, unit_ns: int, *, fps: float | None = None) -> None:
        self.moved = self.cut = 0
        """As of `FilmTimes`."""
        self._unit_ns = unit_ns
        self._fps = fps
        self._begin_ns: int | None = None
        self._last = -1
        self._left_out = 0
        self._count = 0
        self._gaps: deque[int] = deque(maxlen=_GAPS)
        self._taken: deque[tuple[int, int]] = deque(maxlen=_GAPS)

    def at(self, tov_ns: int) -> int:
        """When the next picture, taken at `tov_ns`, is shown."""
        if self._begin_ns is None:
            self._begin_ns = tov_ns
        if self._fps is not None:
            time = round(self._count * 1_000_000_000 / self._fps / self._unit_ns)
        else:
            time = self.between(tov_ns)
        if time - self._last > _MOST_UNITS:
            self._left_out += time - self._last - _MOST_UNITS
            time = self._last + _MOST_UNITS
            self.cut += 1
        self.moved += time <= self._last
        time = max(time, self._last + 1)
        if self._count:
            self._gaps.append(time - self._last)
        self._last = time
        self._count += 1
        self._taken.append((time, tov_ns))
        return time

    def taken_ns(self, time: int) -> int:
        """When the picture was taken that is shown at `time`, one of the last 255, or the one before
        that time."""
        for shown, tov_ns in reversed(self._taken):
            if shown <= time:
                return tov_ns
        return self._taken[0][1] if self._taken else 0

    def between(self, tov_ns: int) -> int:
        """When a picture would be shown that was taken then, near the last one."""
        return (tov_ns - (self._begin_ns or 0)) // self._unit_ns - self._left_out

    def usual_gap(self, fps: float) -> int:
        """How long most pictures are shown.

        fps: what the source says, asked where there is one picture only.
        """
        return _usual(self._gaps, fps, self._unit_ns)


def film_times(tov_ns: list[int]) -> FilmTimes:
    """When the pictures taken at `tov_ns` are shown."""
    longest_us = max((later - sooner for sooner, later in pairwise(tov_ns)), default=0) // 1000
    unit_us = _FINEST_US if longest_us < _MOST_UNITS else _COARSEST_US
    clock = FilmClock(1000 * unit_us)
    times = [clock.at(tov) for tov in tov_ns]
    return FilmTimes(unit_us, times, clock.moved, clock.cut)


class FilmPacket(NamedTuple):
    """One packet; `pts` and `dts` in the film's unit."""

    data: memoryview
    is_key: bool
    pts: int
    dts: int


class Film(NamedTuple):
    """The packets of a film in decoding order, and the film's facts.

    times: of its pictures.
    duration: of the last picture, in the film's unit.
    hidden: number of pictures after it that the run never published: others cannot be decoded without
        their packets, but the film ends before them.
    pixel_aspect: as its packets have it, so before they are turned.
    """

    decoder: VideoDecoder
    packets: list[FilmPacket]
    times: FilmTimes
    duration: int
    hidden: int
    pixel_aspect: float

    @property
    def end(self) -> int:
        """When it ends, in its unit."""
        return self.times.times[-1] + self.duration

    @property
    def pictures(self) -> int:
        """Pictures that it shows."""
        return len(self.packets) - self.hidden


def film_of(log: Log, selection: Selection, topic: str) -> Film | str:
    """The selected pictures of `topic` as packets, or why they cannot be one film of these.

    They can where they begin with a key frame, and each packet gives one of them, or a picture that
    comes after them all. Where the run decoded key frames alone, the film has all pictures: those of
    the packets between them too. The packets stay in the mapped file.
    """
    packets: list[StoredPacket] = []
    taken: dict[int, int] = {}
    entered: dict[int, int] = {}
    decoder: VideoDecoder | None = None
    size: list[int] | None = None
    fps, pixel_aspect = 0.0, 1.0
    unseen = UnseenPackets(log, selection, topic)
    for message in selection.messages(log, topic):
        try:
            picture = StoredPicture.parse(message.payload)
        except ValueError as error:
            return f"cycle {message.cycle} cannot be read: {error}"
        own = picture.own
        if own["codec"] != "packets":
            return f"cycle {message.cycle} is not logged as packets"
        if picture.is_damaged:
            return f"packets of cycle {message.cycle}, or before it, are missing or damaged"
        size = size or own["size"]
        if own["size"] != size:
            return f"the size changes in cycle {message.cycle}"
        if picture.decoder is not None:
            decoder = decoder or picture.decoder
            if replace(picture.decoder, reorder=decoder.reorder) != decoder:
                return f"the codec or its parameters change in cycle {message.cycle}"
        if not packets:
            if not own["sizes"] or not own["keys"][0]:
                return f"cycle {message.cycle} does not begin with a key frame"
            fps = own["fps"]
            pixel_aspect = own.get("pixel_aspect", 1.0)
        if packets and own["sizes"] and own["section"] != packets[-1].section:
            entered[len(packets)] = message.cycle
        packets += picture.packets
        taken[own["number"]] = message.tov_ns
        unseen.add(message.cycle, picture, message.tov_ns)
    if decoder is None:
        return "no picture is selected"
    if shown_format(decoder.name) not in _RAW_FORMATS:
        return f"MP4 does not hold {decoder.name}"
    pixel_aspect = 1 / pixel_aspect if swaps_axes(decoder.orientation) else pixel_aspect
    whole = unseen.timed(round(1e9 / fps) if fps > 0 else 1000 * _DEFAULT_US)
    if unseen.found:
        return _whole(decoder, whole, fps, pixel_aspect)
    for at, cycle in entered.items():
        if not _goes_on(decoder, packets, at, taken):
            return f"its stream jumps in cycle {cycle}, to the middle of a group of pictures"
    film = film_times(list(taken.values()))
    duration = last_duration(film, fps)
    hidden = _after(decoder, packets, taken)
    if hidden is None or len(taken) + len(hidden) != len(packets):
        return "some of the packets are of pictures that are not selected, or were dropped"
    end = film.times[-1] + duration
    if hidden and end * film.unit_us // 1000 >= _LONGEST_MS:
        return "it is longer than 24 days"
    shown = dict(zip(taken, film.times, strict=True))
    shown |= {number: end + at * duration for at, number in enumerate(hidden)}
    times = [shown[packet.number] for packet in packets]
    return Film(
        decoder,
        [
            FilmPacket(packet.data, packet.is_key, pts, dts)
            for packet, pts, dts in zip(packets, times, _decode_times(times, duration), strict=True)
        ],
        film,
        duration,
        len(hidden),
        pixel_aspect,
    )


def at_rate(film: Film, fps: Fraction) -> Film:
    """The same pictures in their order, shown at one rate, whenever they were taken."""
    order = sorted(packet.pts for packet in film.packets)
    times = [round(number * 1_000_000 / fps) for number in range(len(order))]
    shown = dict(zip(order, times, strict=True))
    duration = max(1, round(1_000_000 / fps))
    at = [shown[packet.pts] for packet in film.packets]
    return film._replace(
        packets=[
            packet._replace(pts=pts, dts=dts)
            for packet, pts, dts in zip(film.packets, at, _decode_times(at, duration), strict=True)
        ],
        times=FilmTimes(_FINEST_US, times[: film.pictures], 0, 0),
        duration=duration,
    )


def _whole(
    decoder: VideoDecoder, packets: list[Timed], fps: float, pixel_aspect: float
) -> Film | str:
    """The film that shows the picture of each packet, or why it is none."""
    form = shown_format(decoder.name)
    if any(it.begins_again and not closes(form, it.data) for it in packets):
        return "its stream jumps to the middle of a group of pictures"
    order = sorted(range(len(packets)), key=lambda at: packets[at].shown_ns)
    film = film_times([packets[at].shown_ns for at in order])
    duration = last_duration(film, fps)
    shown = dict(zip(order, film.times, strict=True))
    times = [shown[at] for at in range(len(packets))]
    made = [
        FilmPacket(memoryview(packet.data), packet.is_key, pts, dts)
        for packet, pts, dts in zip(packets, times, _decode_times(times, duration), strict=True)
    ]
    return Film(decoder, made, film, duration, 0, pixel_aspect)


def _after(
    decoder: VideoDecoder, packets: list[StoredPacket], shown: Collection[int]
) -> list[int] | None:
    """Numbers of the packets whose pictures come after all those `shown`, in their order; None where
    a packet gives a picture in between, or none at all."""
    missing = [at for at, packet in enumerate(packets) if packet.number not in shown]
    if not missing:
        return []
    if len(missing) > _MOST_HELD:
        return None
    # Strictly earlier: pictures shown before a key frame may need what comes before it. Decoders want
    # some pictures to settle where groups are open: farther and farther back.
    keys = [at for at in range(missing[0]) if packets[at].is_key] or [0]
    back = 1
    while True:
        begin = keys[-min(back, len(keys))]
        order = _decoded_order(decoder, packets[begin:])
        last = max((at for at, number in enumerate(order) if number in shown), default=-1)
        after = order[last + 1 :]
        if len(after) == len(missing) and last >= 0:
            return after
        if back >= len(keys):
            return None
        back *= 4


def _goes_on(
    decoder: VideoDecoder, packets: list[StoredPacket], at: int, shown: Collection[int]
) -> bool:
    """Whether one decoder gives the pictures around packet `at`, with which a section begins, in their
    order: a key frame that does not begin a group of its own has a place among those before it, by
    which a player orders them. After a jump it is another one.

    shown: numbers of the pictures, in their order.
    """
    if closes(shown_format(decoder.name), packets[at].data):
        return True
    keys = [0, *(key for key in range(1, at) if packets[key].is_key)]
    order = _decoded_order(decoder, packets[keys[-min(2, len(keys))] : at + 2 * _MOST_HELD])
    near = {packet.number for packet in packets[keys[-1] : at + 2 * _MOST_HELD]}
    return [it for it in order if it in near] == [it for it in shown if it in near]


def _decoded_order(decoder: VideoDecoder, packets: list[StoredPacket]) -> list[int]:
    """The numbers of the pictures that come out, in their order."""
    try:
        made = PacketDecoder(decoder, ahead=True)
    except ValueError:  # this FFmpeg has none
        return []
    order: list[int] = []

    def take(number: int | None, _picture: Any) -> None:
        if number is not None:
            order.append(number)

    for packet in packets:
        made.decode(packet.number, packet.data, take, is_key=packet.is_key)
    made.drain(take)
    return order


def last_duration(film: FilmTimes, fps: float) -> int:
    """How long the last picture is shown, in the film's unit: as long as most of the others are.

    fps: what the source says, asked where there is one picture only.
    """
    gaps = [later - sooner for sooner, later in pairwise(film.times)]
    return _usual(gaps, fps, 1000 * film.unit_us)


def _usual(gaps: Collection[int], fps: float, unit_ns: int) -> int:
    """How long most pictures are shown."""
    if gaps:
        return max(1, round(statistics.median(gaps)))
    us = round(1e6 / fps) if fps > 0 else _DEFAULT_US
    return max(1, 1000 * us // unit_ns)


def _decode_times(times: list[int], duration: int) -> list[int]:
    """When each packet must be decoded: ascending, and none later than it is shown (`times`).

    What must be decoded before the first picture is shown is `duration` apart: a film is as long
    as from its first decoding to its last, and would lack these pictures' time.
    """
    order = sorted(times)
    rank = {time: at for at, time in enumerate(order)}
    delay = max(at - rank[time] for at, time in enumerate(times))
    lead = [order[0] - (delay - at) * duration for at in range(delay)]
    return [*lead, *order[: len(order) - delay]]


def say_aspect(stream: Any, pixel_aspect: float) -> None:
    """Have the film say how wide the pixels of its stream are shown."""
    if pixel_aspect != 1:
        stream.sample_aspect_ratio = Fraction(pixel_aspect).limit_denominator(_FINEST_ASPECT)


def can_copy(decoder: VideoDecoder) -> bool:
    """Whether a film can hold packets for `decoder` as they are."""
    return shown_format(decoder.name) in _RAW_FORMATS


def add_copied(
    container: Any,
    decoder: VideoDecoder,
    first: Sequence[memoryview],
    base: Fraction,
    pixel_aspect: float,
) -> Any:
    """A stream for packets of a camera. `ValueError` where FFmpeg cannot read them.

    first: the first packets, some of which must have been probed for the container's head.
    base: the unit of the stream's times, in seconds.
    pixel_aspect: as the packets have it, so before they are turned.
    """
    import av

    name = shown_format(decoder.name)
    try:
        with av.open(io.BytesIO(_bare(decoder, first)), format=_RAW_FORMATS[name]) as probed:
            stream: Any = container.add_stream_from_template(probed.streams.video[0], opaque=True)
    except (av.error.InvalidDataError, av.error.EOFError, IndexError) as error:
        raise ValueError(f"FFmpeg finds no {name} in its packets") from error
    stream.time_base = base
    say_aspect(stream, pixel_aspect)
    if decoder.orientation != UPRIGHT:
        stream.set_display_matrix(struct.unpack("<9i", matrix_of(decoder.orientation)))
    return stream


def write_film(film: Film, path: Path) -> None:
    """Write the MP4. `ValueError` where FFmpeg cannot read the packets."""
    import av

    with av.open(str(path), "w", format="mp4", options=film.times.options) as container:
        first = [packet.data for packet in film.packets[:_PROBED]]
        stream = add_copied(container, film.decoder, first, film.times.base, film.pixel_aspect)
        for it in film.packets:
            packet = av.Packet(len(it.data))
            packet.update(bytes(it.data))
            packet.stream, packet.time_base = stream, film.times.base
            packet.pts, packet.dts, packet.is_keyframe = it.pts, it.dts, it.is_key
            packet.duration = film.duration
            container.mux(packet)
    if film.hidden:
        _end_at(path, film.end * film.times.unit_us)


def _end_at(path: Path, end_us: int) -> None:
    """Let the film end there: in the edit list, which players follow, and in the heads.

    FFmpeg's muxer has no word for it. It writes version 0 of these boxes up to 49 days, and no film
    here is longer.
    """
    with path.open("r+b") as file:
        (start, end) = _boxes(file, 0, path.stat().st_size)[b"moov"]
        head = _boxes(file, start, end)
        track = _boxes(file, *head[b"trak"])
        edits = _boxes(file, *track[b"edts"])
        file.seek(head[b"mvhd"][0] + 12)
        (timescale,) = struct.unpack(">I", file.read(4))
        duration = struct.pack(">I", end_us * timescale // 1_000_000)
        # Where the duration is: after version, flags and what else comes first.
        for (box, _), offset in (
            (head[b"mvhd"], 16),
            (track[b"tkhd"], 20),
            (edits[b"elst"], 8),
        ):
            file.seek(box + offset)
            file.write(duration)


def _boxes(file: IO[bytes], start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """The boxes of an MP4 file from `start` to `end`: name -> where its content begins and ends."""
    found = {}
    while start < end:
        file.seek(start)
        size, name = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            content = start + 16
        found[name] = content, start + size
        start += size
    return found


def _bare(decoder: VideoDecoder, first: Sequence[memoryview]) -> bytes:
    """The first packets as a file of FFmpeg's format for them."""
    name = shown_format(decoder.name)
    packets = [bytes(data) for data in first]
    packets[0] = bytes(with_parameters(name, packets[0], decoder.extradata))
    fourcc = _FOURCC.get(name)
    if fourcc is None:
        return b"".join([decoder.extradata if name == "mpeg4" else b"", *packets])
    head = struct.pack(
        "<4sHH4sHHIIII",
        b"DKIF",
        0,
        32,
        fourcc,
        decoder.width,
        decoder.height,
        30,
        1,
        len(packets),
        0,
    )
    return head + b"".join(
        struct.pack("<IQ", len(packet), at) + packet for at, packet in enumerate(packets)
    )
