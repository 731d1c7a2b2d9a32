"""The pictures of one topic as an H.264 film that plays at the times at which they were taken."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import LogError
from flowrun.runtime.log_export import ExportReport, Selection
from flowrun.runtime.log_reader import Log

__all__ = ["export_mp4"]

_TIME_BASE = Fraction(1, 1_000_000)
_BT709 = 1
_MPEG_RANGE = 1


def export_mp4(log: Log, selection: Selection, path: Path) -> ExportReport:
    """Write the film to `path`.

    A picture's time in the film is its `tov_ns` behind that of the first, in microseconds; one that
    is not later than the picture in front comes 1 us behind that. Sizes must be even (H.264 in
    yuv420p): an odd last column or row is cut off, and a note says so. `LogError` where a picture
    has another size than the first.
    """
    import av

    pictures = [name for name, topic in log.topics.items() if topic.is_picture]
    topic = selection.one_topic(log, "mp4", pictures)
    log.frames(topic)  # raises where it holds no pictures
    report = ExportReport()
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream: Any = None
        first_ns, last = 0, -1
        shape: tuple[int, int] = (0, 0)
        moved = 0
        for message in selection.messages(log, topic):
            pixels = message.fields["pixels"]
            if stream is None:
                shape, first_ns = pixels.shape[:2], message.tov_ns
                stream = _add_stream(
                    container, shape, f"{log.path}: cycle {message.cycle}: {topic}"
                )
                if shape[0] % 2 or shape[1] % 2:
                    report.notes.append(
                        f"H.264 needs even sizes: {shape[1]}x{shape[0]} is cut to "
                        f"{stream.width}x{stream.height}"
                    )
            if pixels.shape[:2] != shape:
                raise LogError(
                    f"{log.path}: cycle {message.cycle}: {topic}: a picture of "
                    f"{pixels.shape[1]}x{pixels.shape[0]} behind those of {shape[1]}x{shape[0]}; "
                    f"a film has one size: choose the cycles with --from {message.cycle} "
                    f"or --to {message.cycle - 1}"
                )
            pts = (message.tov_ns - first_ns) // 1000
            if pts <= last:
                moved += 1
                pts = last + 1
            last = pts
            even = pixels[: stream.height, : stream.width]
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            # Said to players too: without it each guesses the colours by the size.
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=_BT709, dst_color_range=_MPEG_RANGE
            )
            frame.pts, frame.time_base = pts, _TIME_BASE
            container.mux(stream.encode(frame))
            report.count += 1
        if stream is None:
            raise LogError(f"{log.path}: {topic}: no picture in the selected cycles")
        container.mux(stream.encode())
    if moved:
        report.notes.append(
            f"{moved} pictures were not taken later than the one in front: 1 us behind it instead"
        )
    return report


def _add_stream(container: Any, shape: tuple[int, int], where: str) -> Any:
    height, width = (length - length % 2 for length in shape)
    if not height or not width:
        raise LogError(f"{where}: a picture of {shape[1]}x{shape[0]} is too small for H.264")
    stream = container.add_stream("libx264", options={"crf": "18", "preset": "veryfast"})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = stream.time_base = _TIME_BASE
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _MPEG_RANGE
    return stream
