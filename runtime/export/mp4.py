"""The pictures of one topic as a film that plays at the times at which they were taken.

The packets of a camera are copied where they make a film by themselves (`log_remux`); all else is
encoded as H.264.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import LogError, LogNotFound
from flowrun.runtime.export.film import (
    FilmTimes,
    film_of,
    film_times,
    last_duration,
    say_aspect,
    write_film,
)
from flowrun.runtime.export.film_writer import even, set_up_encoder
from flowrun.runtime.export.selection import ExportReport, Selection
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CODEC
from flowrun.runtime.pictures.encode import CRF, yuv_frame
from flowrun.runtime.pictures.stored import StoredPicture

__all__ = ["export_mp4"]


def export_mp4(log: Log, selection: Selection, path: Path) -> ExportReport:
    """Write the film to `path`.

    A picture's time in the film is its `tov_ns` after that of the first, in microseconds, or in
    milliseconds where two are more than minutes apart; one that is not later than the picture
    before comes right after it. One that cannot be decoded is left out and counted. The last is
    shown as long as most of the others do. Of a run that decoded key frames alone, the film has the
    pictures between them too, where packets are copied. Packets are copied without decoding them,
    so without comparing their pictures with the checksums of the log. What is encoded must have
    even sizes (H.264 in yuv420p): an odd last column or row is cut off, and a note says so.
    `LogError` where a picture has another size than the first.
    """
    pictures = [name for name, topic in log.topics.items() if topic.is_picture]
    topic = selection.one_topic(log, "mp4", pictures)
    log.frames(topic)  # raises where it holds no pictures
    report = ExportReport()
    if log.topics[topic].metadata.get(CODEC) == "packets":
        film = film_of(log, selection, topic)
        if not isinstance(film, str):
            try:
                write_film(film, path)
            except ValueError as error:
                film = str(error)
            else:
                report.count = film.pictures
                report.notes += film.times.notes
                return report
        report.notes.append(f"encoded again, as {film}")
        between = _unseen(log, selection, topic)
        if between:
            report.notes.append(
                f"only the pictures that the run decoded: {between} packets between them are left out"
            )
    _encode(log, selection, topic, path, report)
    return report


def _unseen(log: Log, selection: Selection, topic: str) -> int:
    """Number of packets of which the run decoded no picture."""
    count = 0
    for message in log.messages(topic, **selection.bounds):
        with suppress(ValueError):
            count += len(StoredPicture.parse(message.payload).before)
    return count


def _encode(log: Log, selection: Selection, topic: str, path: Path, report: ExportReport) -> None:
    import av

    cycles = [(it.cycle, it.tov_ns) for it in log.messages(topic, **selection.bounds)]
    film = film_times([tov_ns for _, tov_ns in cycles])
    shown_at = dict(zip([cycle for cycle, _ in cycles], film.times, strict=True))
    with av.open(str(path), "w", format="mp4", options=film.options) as container:
        stream: Any = None
        fps = 0.0
        shape: tuple[int, int] = (0, 0)
        held: list[Any] = []

        def mux(packets: list[Any]) -> None:
            """All but the newest, which may be the last: only then its duration is known."""
            held.extend(packets)
            container.mux(held[:-1])
            del held[:-1]

        for message in selection.messages(log, topic):
            try:
                fields = message.fields
            except LogError as error:
                report.leave_out(error)
                continue
            pixels = fields["pixels"]
            if stream is None:
                shape = pixels.shape[:2]
                fps = fields["fps"]
                stream = _add_stream(
                    container, shape, film, f"{log.path}: cycle {message.cycle}: {topic}"
                )
                say_aspect(stream, fields["pixel_aspect"])
                if shape[0] % 2 or shape[1] % 2:
                    report.notes.append(
                        f"H.264 needs even sizes: {shape[1]}x{shape[0]} is cut to "
                        f"{stream.width}x{stream.height}"
                    )
            if pixels.shape[:2] != shape:
                raise LogError(
                    f"{log.path}: cycle {message.cycle}: {topic}: a picture of "
                    f"{pixels.shape[1]}x{pixels.shape[0]} after those of {shape[1]}x{shape[0]}; "
                    f"a film has one size: begin with cycle {message.cycle}, or end before it"
                )
            frame = yuv_frame(even(pixels))
            frame.pts, frame.time_base = shown_at[message.cycle], film.base
            mux(stream.encode(frame))
            report.count += 1
        if stream is None:
            raise LogNotFound(f"{log.path}: {topic}: no picture in the selected cycles")
        mux(stream.encode())
        duration = last_duration(film, fps)
        for packet in held:
            packet.duration = duration
        container.mux(held)
    report.notes += film.notes


def _add_stream(container: Any, shape: tuple[int, int], film: FilmTimes, where: str) -> Any:
    stream = container.add_stream("libx264")
    try:
        set_up_encoder(stream.codec_context, shape, film.base, crf=CRF, more={"preset": "veryfast"})
    except ValueError as error:
        raise LogError(f"{where}: {error}") from None
    stream.time_base = film.base
    return stream
