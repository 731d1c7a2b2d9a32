"""What a notebook shows: tables and pictures. All texts are escaped: a run may be anybody's."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.scaling import resized_pixels

__all__ = ["html_fields", "html_image", "html_table", "png", "shown_value"]

_LONGEST = 400
_WIDEST = 640
_TABLE = '<table style="text-align:left">'
_CELL = '<td style="text-align:left;vertical-align:top;white-space:pre-wrap">'


def shown_value(value: Any) -> str:
    """A value as a text of at most some lines: of an array its type and shape."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array {value.shape}"
    if isinstance(value, (bytes, memoryview)):
        return f"{len(value)} bytes"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def html_fields(title: str, fields: Mapping[str, Any], picture: bytes | None = None) -> str:
    """A title, names with their values, and a picture, a PNG file."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th>{_CELL}{html.escape(shown_value(value))}</td></tr>"
        for name, value in fields.items()
    )
    image = "" if picture is None else html_image(picture)
    return f"<div><b>{html.escape(title)}</b>{_TABLE}{rows}</table>{image}</div>"


def html_table(title: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A title, and rows below the columns `names`."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"{_CELL}{html.escape(shown_value(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    title = f"<b>{html.escape(title)}</b>" if title else ""
    return f"<div>{title}{_TABLE}<tr>{head}</tr>{body}</table></div>"


def html_image(picture: bytes) -> str:
    """An image of a PNG file."""
    return f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}">'


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of pixels, uint8 (height, width, 3), RGB: made smaller where they are wider than 640.
    One white pixel where there are none."""
    height, width = pixels.shape[:2]
    if not height or not width:
        pixels = np.full((1, 1, 3), 255, np.uint8)
    elif width > _WIDEST:
        pixels = resized_pixels(pixels, _WIDEST, max(1, round(height * _WIDEST / width)))
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # the first byte of each: no filter
    rows[:, 1:] = pixels.reshape(height, width * 3)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 1)
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*it) for it in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )
