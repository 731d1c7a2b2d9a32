"""`ReadText`: words drawn here are read where they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg
from flowrun.runtime.testing import run_task
from flowrun.tasks.read_text import ReadText


def sign(*words: str) -> ImageRgb8Msg:
    """A grey picture of 160x96 with a line of text for each of the words."""
    picture = Image.new("RGB", (160, 96), (230, 230, 230))
    for k, word in enumerate(words):
        place = (12, 8 + 44 * k)
        ImageDraw.Draw(picture).text(place, word, (20, 20, 20), ImageFont.load_default(26))
    image = ImageRgb8Msg(pixels=np.asarray(picture), frame_id=4)
    image.publish(tov_ns=9)
    return image


def read(*images: ImageRgb8Msg, **config: Any) -> list[DetectionsMsg]:
    outs = run_task(ReadText, inputs=[{"image": it} for it in images], config=config)
    return [it["texts"] for it in outs]


@pytest.mark.long
def test_text_is_read_where_it_is() -> None:
    for name in ("rapidocr", "onnxruntime"):
        pytest.importorskip(name)
    both, again, blank, nothing = read(
        sign("GATE 17", "OPEN"), sign("GATE 17", "OPEN"), sign(), sign()
    )
    assert both.labels == ["GATE 17", "OPEN"]
    first, second = both.boxes.tolist()
    assert 0 <= first[0] <= 16
    assert 0 <= first[1] < first[3] <= second[1] + 8
    assert (both.width, both.height, both.frame_id, both.tov_ns) == (160, 96, 4, 9)
    assert (both.scores > 0.7).all()
    assert (again.labels, again.boxes.tolist()) == (both.labels, both.boxes.tolist())
    assert again.scores.tolist() == both.scores.tolist()
    assert blank.count == nothing.count == 0
    assert read(sign("OPEN"), threshold=1.0)[0].count == 0


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert list(ReadText.check(ReadText.Config(), Path())) == [
        ("", "ReadText needs rapidocr and onnxruntime: pip install 'flowrun-runtime[text]'")
    ]
