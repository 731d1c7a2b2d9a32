"""Pixels that are not square: in the message, in the log, and in a film."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime import Log
from flowrun.runtime.export.foxglove import export_foxglove
from flowrun.runtime.export.mp4 import export_mp4
from flowrun.runtime.export.selection import Selection
from flowrun.runtime.pictures.convert import matrix_of
from support.films import draw, recorded

TOPIC = "/a/image"


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
        notes = export_foxglove(log, Selection((TOPIC,)), tmp_path / "made.mcap").notes
    if codec == "packets":
        text = f"its pixels are {shown:.3g} times as wide as high; viewers show them as squares"
        assert any(note.endswith(text) for note in notes), notes
    with av.open(str(tmp_path / "made.mp4")) as container:
        stream = container.streams.video[0]
        turned = codec == "packets" and orientation == 6  # copied, and turned by the player
        wanted = 1 / shown if turned else shown
        assert float(stream.sample_aspect_ratio or 0) == pytest.approx(wanted, rel=1e-3)


def test_square_pixels_are_not_stored() -> None:
    sizes = []
    for aspect in (1.0, 1.5):
        message = ImageRgb8Msg(pixels=np.zeros((2, 3, 3), np.uint8), pixel_aspect=aspect)
        message.publish()
        data = b"".join(map(bytes, message.encode()))
        sizes.append(len(data))
        assert ImageRgb8Msg.decode_fields(data)["pixel_aspect"] == aspect
    assert sizes[1] > sizes[0]
