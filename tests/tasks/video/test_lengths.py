"""A whole film is never taken for one that was cut off."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from flowrun.tasks.video.lengths import NO_INDEX, is_cut_off, lacks_index
from flowrun.tasks.video.opening import VideoError, open_video
from flowrun.tasks.video.settings import VideoSettings


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


def test_an_mp4_that_is_cut_off_before_its_index_says_so(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    make(path, Fraction(10))
    whole = path.read_bytes()
    assert not lacks_index(path)
    index, pictures = whole.index(b"moov") - 4, whole.index(b"mdat") + 4
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert lacks_index(path) is (pictures <= end < index + 8)
    for end in (pictures, (pictures + index) // 2, index, index + 7):
        path.write_bytes(whole[:end])
        with pytest.raises(VideoError) as caught:
            open_video(VideoSettings(source_uri="film.mp4"), tmp_path)
        assert str(caught.value) == f"cannot read the video {str(path)!r}: {NO_INDEX}"


@pytest.mark.parametrize("size", [0, 1, 7, 1 << 31])
def test_an_index_is_looked_for_whatever_the_size_of_the_pictures(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "film.mp4"
    begins = (16).to_bytes(4, "big") + b"ftypisom" + bytes(4)
    large = (24).to_bytes(8, "big") + bytes(8) if size == 1 else b""
    path.write_bytes(begins + size.to_bytes(4, "big") + b"mdat" + large)
    assert lacks_index(path)
    if size == 1:
        path.write_bytes(path.read_bytes() + (8).to_bytes(4, "big") + b"moov")
        assert not lacks_index(path)


def test_no_other_file_lacks_an_index(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    for data in (b"", b"mdat", b"no film at all, but mdat", (8).to_bytes(4, "big") + b"mdat"):
        path.write_bytes(data)
        assert not lacks_index(path)
