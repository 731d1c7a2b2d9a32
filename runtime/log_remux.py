"""A camera's own packets as a film, copied and not encoded again."""

from __future__ import annotations

import io
import statistics
import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from flowrun.msgs.image import VideoDecoder
from flowrun.runtime.log_export import Selection
from flowrun.runtime.log_picture import StoredPicture, shown_format
from flowrun.runtime.log_reader import Log

__all__ = ["TIME_BASE", "Film", "film_of", "last_duration_us", "write_film"]

TIME_BASE = Fraction(1, 1_000_000)
_DEFAULT_US = 40_000
"""Of a single picture of a source that does not say its rate."""
_RAW_FORMATS = {"h264": "h264", "h265": "hevc", "mpeg4": "m4v", "vp9": "ivf", "av1": "ivf"}
"""Codecs that MP4 holds, and FFmpeg's formats of their bare packets."""
_FOURCC = {"vp9": b"VP90", "av1": b"AV01"}
_PROBED = 16
"""Packets from which FFmpeg finds out what MP4's head must say."""


class FilmPacket(NamedTuple):
    """One packet; `pts` and `dts` in microseconds."""

    data: memoryview
    is_key: bool
    pts: int
    dts: int


class Film(NamedTuple):
    """The packets of a film in decoding order, and the film's facts.

    duration_us: of the last picture. moved: pictures that were not taken later than the one in front,
    and are shown 1 us behind it.
    """

    decoder: VideoDecoder
    packets: list[FilmPacket]
    duration_us: int
    moved: int


def film_of(log: Log, selection: Selection, topic: str) -> Film | str:
    """The selected pictures of `topic` as packets, or why they cannot be one film of these.

    They can where they begin with a key frame, and each packet gives one of them. The packets stay in
    the mapped file.
    """
    packets: list[tuple[tuple[int, int], memoryview, bool]] = []
    shown_us: dict[tuple[int, int], int] = {}
    decoder: VideoDecoder | None = None
    size: list[int] | None = None
    first_ns, last, moved, fps = 0, -1, 0, 0.0
    for message in selection.messages(log, topic):
        try:
            picture = StoredPicture.parse(message.payload)
        except ValueError as error:
            return f"cycle {message.cycle} cannot be read: {error}"
        own = picture.own
        if own["codec"] != "packets":
            return f"cycle {message.cycle} is not logged as packets"
        size = size or own["size"]
        if own["size"] != size:
            return f"the size changes in cycle {message.cycle}"
        if picture.decoder is not None:
            decoder = decoder or picture.decoder
            if picture.decoder != decoder:
                return f"the codec or its parameters change in cycle {message.cycle}"
        if not packets:
            if not own["sizes"] or not own["keys"][0]:
                return f"cycle {message.cycle} does not begin with a key frame"
            first_ns, fps = message.tov_ns, own["fps"]
        packets += [((own["section"], number), data, is_key)
                    for number, data, is_key in picture.packets]  # fmt: skip
        pts = (message.tov_ns - first_ns) // 1000
        moved += pts <= last
        last = max(pts, last + 1)
        shown_us[own["section"], own["number"]] = last
    if decoder is None:
        return "no picture is selected"
    if shown_format(decoder.name) not in _RAW_FORMATS:
        return f"MP4 does not hold {decoder.name}"
    numbers = [number for number, _, _ in packets]
    if len(numbers) != len(shown_us) or not all(number in shown_us for number in numbers):
        return "some of the packets are of pictures that are not selected, or were dropped"
    if not all(data for _, data, _ in packets):
        return "a packet of the source was damaged"
    times = [shown_us[number] for number in numbers]
    duration = last_duration_us(list(shown_us.values()), fps)
    decoded = _decode_times(times, duration)
    return Film(
        decoder,
        [FilmPacket(data, is_key, pts, dts)
         for (_, data, is_key), pts, dts in zip(packets, times, decoded, strict=True)],
        duration,
        moved,
    )  # fmt: skip


def last_duration_us(times: list[int], fps: float) -> int:
    """How long the last picture stands, in microseconds: as long as most of the others do.

    times: of the pictures, ascending. fps: what the source says, asked where there is one only.
    """
    if len(times) > 1:
        gaps = [later - sooner for sooner, later in pairwise(times)]
        return max(1, round(statistics.median(gaps)))
    return round(1e6 / fps) if fps > 0 else _DEFAULT_US


def _decode_times(times: list[int], duration: int) -> list[int]:
    """When each packet must be decoded: ascending, and none later than it is shown (`times`).

    What must be decoded before the first picture is shown stands `duration` apart: a film is as long
    as from its first decoding to its last, and would lack these pictures' time.
    """
    order = sorted(times)
    rank = {time: at for at, time in enumerate(order)}
    delay = max(at - rank[time] for at, time in enumerate(times))
    lead = [order[0] - (delay - at) * duration for at in range(delay)]
    return [*lead, *order[: len(order) - delay]]


def write_film(film: Film, path: Path) -> None:
    """Write the MP4."""
    import av

    bare = io.BytesIO(_bare(film))
    name = shown_format(film.decoder.name)
    with (
        av.open(bare, format=_RAW_FORMATS[name]) as probed,
        av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream: Any = container.add_stream_from_template(probed.streams.video[0])
        stream.time_base = TIME_BASE
        for it in film.packets:
            packet = av.Packet(len(it.data))
            packet.update(bytes(it.data))
            packet.stream, packet.time_base = stream, TIME_BASE
            packet.pts, packet.dts, packet.is_keyframe = it.pts, it.dts, it.is_key
            packet.duration = film.duration_us
            container.mux(packet)


def _bare(film: Film) -> bytes:
    """The first packets as a file of FFmpeg's format for them."""
    packets = [bytes(packet.data) for packet in film.packets[:_PROBED]]
    made = film.decoder
    fourcc = _FOURCC.get(shown_format(made.name))
    if fourcc is None:
        return b"".join([made.extradata, *packets])
    head = struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, fourcc, made.width, made.height, 30, 1,
                       len(packets), 0)  # fmt: skip
    return head + b"".join(
        struct.pack("<IQ", len(packet), at) + packet for at, packet in enumerate(packets)
    )
