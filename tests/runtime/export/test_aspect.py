"""Pixels that are not square: in the message, in the log, in a film, and made square for viewers."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from mcap.reader import make_reader
from numpy.typing import NDArray
from PIL import Image

from flowrun.msgs import protobuf
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime import Log
from flowrun.runtime.export.foxglove import export_foxglove
from flowrun.runtime.export.foxglove_messages import Boxes
from flowrun.runtime.export.mp4 import export_mp4
from flowrun.runtime.export.pictures import PictureExport, Stretches
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.pictures.convert import matrix_of
from support import helpers
from support.films import decoded, draw, recorded

TOPIC = "/a/image"


WIDE = Fraction(16, 11)


def film(path: Path, aspect: Fraction, orientation: int) -> Path:
    """A film whose container, not its stream, says how wide its pixels are."""
    plain = draw(path.with_name("plain.mp4"), frames=4, size=(96, 64), bf="0")
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.sample_aspect_ratio = aspect  # type: ignore[attr-defined]
        stream.set_display_matrix(struct.unpack("<9i", matrix_of(orientation)))
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path


@pytest.mark.parametrize("codec", ["packets", "raw"])
@pytest.mark.parametrize(("orientation", "shown"), [(1, 1.5), (6, 1 / 1.5)])
def test_a_films_aspect_is_in_the_message_and_in_a_film_of_it(
    tmp_path: Path, codec: str, orientation: int, shown: float
) -> None:
    source = film(tmp_path / "wide.mp4", Fraction(3, 2), orientation)
    run = recorded(tmp_path, source, codec=codec)
    with Log(run) as log:
        fields = [message.fields for message in log.messages(TOPIC)]
        assert [it["pixel_aspect"] for it in fields] == pytest.approx([shown] * 4)
        export_mp4(log, Selection((TOPIC,)), tmp_path / "made.mp4")
    with av.open(str(tmp_path / "made.mp4")) as container:
        stream = container.streams.video[0]
        turned = codec == "packets" and orientation == 6  # copied, and turned by the player
        wanted = 1 / shown if turned else shown
        assert float(stream.sample_aspect_ratio or 0) == pytest.approx(wanted, rel=1e-3)


def circle(path: Path, aspect: Fraction, *, orientation: int = 1, size: tuple[int, int]) -> Path:
    """A film of a circle of half the picture's height, and of that width as it is shown."""
    width, height = size
    y, x = np.mgrid[:height, :width] + 0.5
    inside = ((x - width / 2) * float(aspect)) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2
    pixels = np.repeat(inside[..., None], 3, axis=2).astype(np.uint8) * 255
    with av.open(str(path), "w") as container:
        codec = "mjpeg" if path.suffix == ".avi" else "libx264"
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.sample_aspect_ratio = stream.codec_context.sample_aspect_ratio = aspect
        if orientation != 1:
            stream.set_display_matrix(struct.unpack("<9i", matrix_of(orientation)))
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def extent(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Rows and columns of what is bright."""
    rows, columns = np.nonzero(pixels[..., 1] > 127)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def viewed(run: Path) -> tuple[list[NDArray[np.uint8]], str]:
    """The pictures as Foxglove and Rerun get them, and what is said about them."""
    with Log(run) as log:
        pictures = PictureExport(log, TOPIC, Selection((TOPIC,)))
        shown = [it for message in log.messages(TOPIC) for it in pictures.shown(message)]
        if pictures.form == "rgb8":
            made = [it.pixels.copy() for it in shown if it.pixels is not None]
        elif pictures.form == "jpeg":
            made = [np.asarray(Image.open(io.BytesIO(it.data))) for it in shown]
        else:
            made = decoded(pictures.form, [bytes(it.data) for it in shown], (1, 1))
    return made, pictures.note


@pytest.mark.parametrize(
    ("name", "codec", "aspect", "orientation", "size", "shown"),
    [
        ("a.mp4", "packets", WIDE, 1, (90, 72), (130, 72)),
        ("a.mp4", "packets", WIDE, 6, (90, 72), (72, 130)),
        ("a.mp4", "packets", Fraction(1), 1, (90, 72), (90, 72)),
        ("a.mp4", "raw", 1 / WIDE, 1, (90, 72), (90, 104)),
        ("a.avi", "packets", 1 / WIDE, 1, (90, 72), (90, 104)),
        ("a.avi", "packets", WIDE, 1, (89, 71), (130, 71)),  # H.264 has no odd sizes: JPEGs
    ],
)
def test_viewers_get_circles_as_circles(
    tmp_path: Path,
    name: str,
    codec: str,
    aspect: Fraction,
    orientation: int,
    size: tuple[int, int],
    shown: tuple[int, int],
) -> None:
    source = circle(tmp_path / name, aspect, orientation=orientation, size=size)
    run = recorded(tmp_path, source, codec=codec)
    made, note = viewed(run)
    assert len(made) == 3
    for pixels in made:
        assert (pixels.shape[1], pixels.shape[0]) == shown
        high, wide = extent(pixels)
        assert abs(high - wide) <= 2
        assert min(high, wide) > 30
    as_shown = 1 / aspect if orientation == 6 else aspect
    words = f"its pixels are {float(as_shown):.3g} times as wide as high, made square"
    assert (words in note) == (aspect != 1 and orientation == 1), note


def test_boxes_lie_on_what_they_are_about(tmp_path: Path) -> None:
    wide = circle(tmp_path / "wide.mp4", WIDE, size=(88, 64))
    square = circle(tmp_path / "square.mp4", Fraction(1), size=(88, 64))
    plan = helpers.plan_of(
        tmp_path,
        f"a=VideoCapture(source_uri: {wide}); b=VideoCapture(source_uri: {square}); f=Find; g=Find",
        "a > f: ImageRgb8Msg; b > g: ImageRgb8Msg",
    )
    helpers.record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        stretches = Stretches(log.attachments["graph.json"])
        for topic in ("/a/image", "/b/image"):
            pictures = PictureExport(log, topic, Selection((topic,)))
            stretches.add(topic, pictures)
            for message in log.messages(topic):
                list(pictures.shown(message))
        for topic, across in (("/f/found", 128 / 88), ("/g/found", 1)):
            for message in log.messages(topic):
                found = Boxes.of(message.fields)
                assert found is not None
                moved = found.stretched(*stretches.of(topic))
                assert np.allclose(moved.boxes, found.boxes * [across, 1, across, 1])
                assert (moved.texts, moved.labels) == (found.texts, found.labels)
            assert len(found.boxes)
        export_foxglove(log, Selection(), tmp_path / "made.mcap")
        last = list(log.messages("/f/found"))[-1].fields["boxes"]
    with (tmp_path / "made.mcap").open("rb") as file:
        packed = [it.data for _, _, it in make_reader(file).iter_messages("/f/found/annotations")]
    outline = dict(protobuf.fields(memoryview(packed[-1])))[2]
    corner = dict(protobuf.fields(protobuf.contents(outline)))[3]  # the lower left one
    numbers = dict(protobuf.fields(protobuf.contents(corner)))
    x, y = (struct.unpack("<d", struct.pack("<Q", numbers[it]))[0] for it in (1, 2))
    assert (x, y) == (pytest.approx(last[-1][0] * 128 / 88), last[-1][3])


def test_boxes_of_pictures_that_are_not_known_stay() -> None:
    found = Boxes(np.ones((1, 4)), ["a"], ["a"])
    assert found.stretched(*Stretches(b"").of("/f/found")) is found


def test_square_pixels_are_not_stored() -> None:
    sizes = []
    for aspect in (1.0, 1.5):
        message = ImageRgb8Msg(pixels=np.zeros((2, 3, 3), np.uint8), pixel_aspect=aspect)
        message.publish()
        data = b"".join(map(bytes, message.encode()))
        sizes.append(len(data))
        assert ImageRgb8Msg.decode_fields(data)["pixel_aspect"] == aspect
    assert sizes[1] > sizes[0]
