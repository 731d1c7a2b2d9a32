"""What a notebook shows of messages: escaped tables, and pictures as PNG files that others read."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flowrun.msgs import ImageRgb8Msg, IntMsg, TextMsg
from flowrun.msgs.display import html_fields, html_table, png


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (24, 32)])
def test_a_picture_is_a_png_of_the_same_pixels(size):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        assert image.format == "PNG"
        assert (np.asarray(image) == pixels).all()


def test_a_wide_picture_is_made_smaller_and_none_is_one_pixel():
    with Image.open(io.BytesIO(png(np.zeros((1080, 1920, 3), np.uint8)))) as image:
        assert image.size == (640, 360)
    with Image.open(io.BytesIO(png(np.zeros((0, 0, 3), np.uint8)))) as image:
        assert image.size == (1, 1)


def test_a_message_is_a_table_of_its_fields():
    shown = IntMsg(value=3)._repr_html_()
    assert "<b>IntMsg</b>" in shown
    assert "<th>value</th>" in shown
    assert ">3</td>" in shown


def test_a_picture_is_shown_as_one():
    message = ImageRgb8Msg(pixels=np.zeros((2, 2, 3), np.uint8))
    assert message._repr_png_().startswith(b"\x89PNG")
    assert '<img src="data:image/png;base64,' in message._repr_html_()
    assert "uint8 array (2, 2, 3)" in message._repr_html_()


EVIL = "<script>alert('x')</script>\"&"


def test_every_text_is_escaped():
    for shown in (
        TextMsg(value=EVIL)._repr_html_(),
        html_fields(EVIL, {EVIL: EVIL, "list": [EVIL], "dict": {EVIL: 1}}),
        html_table(EVIL, [EVIL], [[EVIL], [EVIL * 1000]]),
    ):
        assert "<script" not in shown
        assert "&lt;script&gt;" in shown
