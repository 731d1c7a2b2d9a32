"""Which way up pictures are shown."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from flowrun.runtime import Log
from flowrun.runtime.export.foxglove import export_foxglove
from flowrun.runtime.export.mp4 import export_mp4
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.log.check import check_log
from flowrun.runtime.pictures.bitstream import exif_orientation
from flowrun.runtime.pictures.convert import (
    Noted,
    Planes,
    integers,
    kernel,
    luma,
    matrix_of,
    matrix_orientation,
    orientation_of,
    planes420,
    resized,
    rgb,
)
from flowrun.runtime.pictures.convert.orientation import turned
from flowrun.runtime.replay.replay import Replay
from support import independent_pictures
from support.films import draw, recorded

ALL = range(1, 9)


def by_pillow(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def with_matrix(matrix: bytes | None) -> Any:
    class Data(bytes):
        @property
        def buffer_size(self) -> int:
            return len(self)

    data = None if matrix is None else Data(matrix)
    return SimpleNamespace(side_data={"DISPLAYMATRIX": data}, rotation=0)


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("size", [(4, 6), (5, 3), (70, 41)])
def test_pictures_are_shown_as_exif_says(orientation: int, size: tuple[int, int]) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    wanted = by_pillow(drawn, orientation)
    planes = Planes("rgb24", *size, 0, 0, [drawn.reshape(size[0], -1)], orientation)
    assert np.array_equal(rgb(planes), wanted)
    assert planes.shape == wanted.shape[:2]
    assert np.array_equal(turned(drawn, orientation), wanted)
    assert np.array_equal(independent_pictures.upright(drawn, orientation), wanted)
    out = np.zeros_like(wanted)
    assert rgb(planes, out) is out
    assert np.array_equal(out, wanted)
    for copy in (kernel.copy_pixels, integers.copy_pixels):
        copied = np.zeros_like(wanted)
        copy(turned(drawn, orientation), copied)
        assert np.array_equal(copied, wanted)


@pytest.mark.parametrize("orientation", ALL)
def test_luma_and_smaller_pictures_are_shown_the_same_way(orientation: int) -> None:
    y = np.arange(24, dtype=np.uint8).reshape(4, 6) * 9
    flat = np.full((2, 3), 128, np.uint8)
    planes = Planes("yuvj420p", 4, 6, 6, 2, [y, flat, flat], orientation)
    assert np.array_equal(luma(planes), turned(y, orientation))
    found = planes420(planes)
    assert found is not None
    assert np.array_equal(found.y, turned(y, orientation))
    assert found.u.shape == turned(flat, orientation).shape
    height, width = (side // 2 for side in planes.shape)
    small = resized(planes, width, height)
    plain = resized(Planes("yuvj420p", 4, 6, 6, 2, planes.data), 3, 2)
    assert np.array_equal(small, turned(plain, orientation))


@pytest.mark.parametrize("orientation", ALL)
def test_matrices_are_read_as_they_are_written(orientation: int) -> None:
    assert matrix_orientation(with_matrix(matrix_of(orientation))) == orientation


def test_other_angles_are_the_nearest() -> None:
    nearly = struct.pack("<9i", 9, 60000, 0, -60000, 9, 0, 0, 0, 1 << 30)
    assert matrix_orientation(with_matrix(nearly)) == 6
    assert matrix_orientation(with_matrix(bytes(36))) == 1
    assert matrix_orientation(with_matrix(b"short")) == 1
    assert matrix_orientation(with_matrix(None)) == 1


def test_side_data_that_pyav_does_not_know() -> None:
    class Decoded:
        opaque = None
        rotation = -90

        @property
        def side_data(self) -> Any:
            raise ValueError("31 is not a valid Type")

    assert matrix_orientation(Decoded()) == 6
    assert orientation_of(Decoded()) == 6
    assert orientation_of(SimpleNamespace(opaque=Noted(5), rotation=90)) == 5


def test_exif_that_cannot_be_read_says_nothing() -> None:
    assert exif_orientation("h264", b"Exif\0\0") == 1
    assert exif_orientation("mjpeg", b"no") == 1
    assert exif_orientation("mjpeg", b"..Exif\0\0II") == 1
    tiff = b"MM\0*" + struct.pack(">IH", 8, 1)
    for value, orientation in ((9, 1), (5, 5)):
        entry = struct.pack(">HHIHH", 0x0112, 3, 1, value, 0)
        assert exif_orientation("mjpeg", b"Exif\0\0" + tiff + entry) == orientation


# -- through a run -----------------------------------------------------------------------------


def film(path: Path, orientation: int) -> Path:
    """A film whose container says which way up it is."""
    plain = draw(path.with_name("plain.mp4"), frames=10, size=(96, 64))
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.set_display_matrix(struct.unpack("<9i", matrix_of(orientation)))
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path


def photo(path: Path, orientation: int) -> Path:
    drawn = np.zeros((32, 48, 3), np.uint8)
    drawn[:16, :24], drawn[16:, :24], drawn[:16, 24:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    image = Image.fromarray(drawn)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, quality=95)
    return path


def assert_same_everywhere(run: Path, wanted: list[NDArray[np.uint8]], folder: Path) -> None:
    """That log, replay and exports show the pictures like this."""
    with Log(run) as log:
        assert Replay(log, env={}).run().identical
        assert check_log(log)[2] == []
        found = [frame.pixels for frame in log.frames("/a/image")]
        assert all(np.array_equal(*both) for both in zip(found, wanted, strict=True))
        export_mp4(log, Selection(("/a/image",)), folder / "film.mp4")
        notes = export_foxglove(log, Selection(("/a/image",)), folder / "film.mcap").notes
    assert any("encoded again" in note for note in notes)
    with av.open(str(folder / "film.mp4")) as container:
        for frame, pixels in zip(container.decode(video=0), wanted, strict=True):
            shown = rgb(replace(Planes.of(frame), orientation=matrix_orientation(frame)))
            assert shown.shape == pixels.shape
            assert np.abs(shown.astype(int) - pixels).mean() < 30


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [6, 2])
def test_a_film_is_upright_everywhere(tmp_path: Path, orientation: int) -> None:
    path = film(tmp_path / "turned.mp4", orientation)
    with av.open(str(tmp_path / "plain.mp4")) as container:
        wanted = [turned(rgb(it), orientation) for it in container.decode(video=0)]
    run = recorded(tmp_path, path)
    assert_same_everywhere(run, wanted, tmp_path)
    slabs = [it.read_bytes() for it in sorted(run.glob("*.mcap"))]
    found = [fields["pixels"] for _, fields in independent_pictures.pictures(slabs, "/a/image")]
    assert all(np.array_equal(*both) for both in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png"])
def test_a_photo_is_upright_everywhere(tmp_path: Path, name: str) -> None:
    path = photo(tmp_path / name, 7)
    assert exif_orientation("mjpeg" if name.endswith("jpg") else "png", path.read_bytes()) == 7
    run = recorded(tmp_path, path)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    with Log(run) as log:
        found = [frame.pixels for frame in log.frames("/a/image")]
    assert np.abs(found[0].astype(int) - wanted).mean() < 4
    assert_same_everywhere(run, found, tmp_path)
