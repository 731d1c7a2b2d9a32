"""A whole film is never taken for one that was cut off."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from flowrun.tasks.video.lengths import is_cut_off


def make(path: Path, fps: Fraction) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=fps, width=64, height=48, pix_fmt="yuv420p")
        for number in range(20):
            pixels = np.full((48, 64, 3), number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())


def cut_off(path: Path, packets: int) -> bool:
    """Whether a film that ends after `packets` of its packets is cut off."""
    end = 0
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        for number, packet in enumerate(film.demux(stream)):
            if number < packets and packet.pts is not None:
                end = max(end, packet.pts + (packet.duration or 0))
        return is_cut_off(stream, end)


@pytest.mark.parametrize("fps", [Fraction(1, 4), Fraction(1), Fraction(10)])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi"])
def test_films_of_few_pictures_a_second_are_whole(
    tmp_path: Path, suffix: str, fps: Fraction
) -> None:
    path = tmp_path / f"film.{suffix}"
    make(path, fps)
    assert not cut_off(path, 20)
    assert cut_off(path, 5)
