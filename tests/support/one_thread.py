"""What comes of a film that one thread decodes, or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from zlib_ng.zlib_ng import crc32

from flowrun.runtime.pictures.planar import kept
from flowrun.tasks.video.decoding import SourceDecoder
from flowrun.tasks.video.packets import PacketQueue
from flowrun.tasks.video.sections import Picture

__all__ = ["everything", "first_difference"]


def everything(film: Path, threads: int) -> Any:
    """What comes of a film: its pictures, and what the log gets with them."""
    queue = PacketQueue()
    found: list[Any] = []

    def emit(picture: Picture) -> None:
        try:
            found_one = picture.kept if picture.kept is not None else kept(picture.decoded)
            seen = found_one if isinstance(found_one, np.ndarray) else found_one.made()
            seen = crc32(seen), seen.shape
        except ValueError:
            seen = None
        video = None if picture.origin is None else queue.take(picture.origin)
        found.append((picture.pts, picture.origin, seen, video))

    with av.open(str(film), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        decoder = SourceDecoder(stream, queue, cores=threads)
        error = None
        try:
            for packet in container.demux(stream):
                decoder.feed(packet, emit)
        except av.error.FFmpegError as failed:
            error = type(failed)
        decoder.drain(emit)
    return found, decoder.damaged, error


def first_difference(film: Path, threads: int) -> str | None:
    one, other = everything(film, 1), everything(film, threads)
    if one == other:
        return None
    for at, (a, b) in enumerate(zip(one[0], other[0], strict=False)):
        if a != b:
            names = "pts", "origin", "pixels", "packets"
            return f"picture {at}: " + "; ".join(
                f"{name} {str(x)[:80]} != {str(y)[:80]}"
                for name, x, y in zip(names, a, b, strict=True)
                if x != y
            )
    return f"{len(one[0])} != {len(other[0])}, {one[1:]} != {other[1:]}"
