"""How the values of a picture lie in memory, by FFmpeg's names of the pixel formats.

Formats that are not here, as palettes, packed bits or sensor patterns, FFmpeg's swscale brings to one
that is: exactly where that is only a matter of order.
"""

from __future__ import annotations

import ctypes
import functools
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.pictures.convert.colors import GBR, Colors, colors_of
from flowrun.runtime.pictures.convert.integers import Samples
from flowrun.runtime.pictures.convert.orientation import UPRIGHT, orientation_of, shown_shape

__all__ = ["Planes"]

_FULL = 2
_FLAGS = 0x2 | 0x40000 | 0x80000
"""swscale's: bilinear, accurate, the same on every CPU."""
_HALVED = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0), "410": (2, 2)}
"""By the name of the pattern: one value of colour is for `1 <<` this many columns and rows."""
_PATTERNS = {shifts: name for name, shifts in _HALVED.items()}
_PLANAR = re.compile(r"yuv(j|a)?(420|422|444|440|411|410)p(\d+)?(?:le)?")
_GRAY = re.compile(r"(gray|ya8|ya16)(\d+)?(?:le)?")
_GBR = re.compile(r"gbra?p(\d+)?(?:le)?")
_HALF_PLANAR = {"nv12": "420", "nv21": "420", "nv16": "422", "nv24": "444", "nv42": "444"}
_HIGH = re.compile(r"p([024])(10|12|16)le")
"""Luma, then both colours in turns, in the upper bits of 16."""
_PACKED = {"yuyv422": (0, 1, 3), "uyvy422": (1, 0, 2), "yvyu422": (0, 3, 1)}
"""Where luma and the two colours are in 4 bytes for 2 pixels."""
_RGB = re.compile(r"([rgba0]{3,4})(24|48|64)?(?:le)?")
_REFUSED = "yaf32"
"""swscale ends the process when it gets such a picture, or a single row or column of a sensor's."""
_WIDEST = 16


class _Lies(NamedTuple):
    """Where one of the three values is.

    plane: in which plane.
    first, step: the first value, and how far it is to the next, in values.
    """

    plane: int
    first: int = 0
    step: int = 1


class _Form(NamedTuple):
    """A pixel format.

    bits: of a value. lies: of luma and the two colours, or of red, green and blue.
    across, down: one value of colour is for `1 <<` this many columns and rows.
    is_high: whether the values are in the upper bits of 16.
    is_full: whether the format says that the range is full.
    is_gray: whether there is luma only.
    """

    bits: int
    lies: tuple[_Lies, _Lies, _Lies]
    across: int = 0
    down: int = 0
    is_rgb: bool = False
    is_gray: bool = False
    is_high: bool = False
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class Planes:
    """A decoded picture: its planes, and what their colours mean.

    format: FFmpeg's name of the pixel format.
    height, width: of the planes.
    space, span: FFmpeg's numbers of the colour space and range.
    data: the bytes of each plane, (rows, at least the bytes of a row).
    orientation: which way up the picture is shown, see `orientation`.
    """

    format: str
    height: int
    width: int
    space: int
    span: int
    data: list[NDArray[np.uint8]]
    orientation: int = UPRIGHT

    @classmethod
    def of(cls, decoded: Any) -> Planes:
        """Those of an `av.VideoFrame`, in its own memory. `ValueError` where it cannot be read."""
        orientation = orientation_of(decoded)
        if _form(decoded.format.name) is None:
            decoded = _near(decoded)
        return cls(
            decoded.format.name,
            decoded.height,
            decoded.width,
            int(decoded.colorspace),
            int(decoded.color_range),
            [_bytes(plane) for plane in decoded.planes],
            orientation,
        )

    @staticmethod
    def knows(name: str) -> bool:
        """Whether pictures of this pixel format are read as they are."""
        return _form(name) is not None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture as it is shown."""
        return shown_shape(self.height, self.width, self.orientation)

    @property
    def is_planar420(self) -> bool:
        """Whether there are three planes of 8 bits, the colours' half as high and as wide."""
        return self.format in ("yuv420p", "yuvj420p", "yuva420p")

    @property
    def is_luma(self) -> bool:
        """Whether the first value is luma."""
        return not self._form.is_rgb and self.space != GBR

    @property
    def colors(self) -> Colors:
        form = self._form
        is_rgb = form.is_rgb or form.is_gray or self.space == GBR
        unspecified = _FULL if form.is_rgb or form.is_gray else 1
        span = _FULL if form.is_full else self.span or unspecified
        return colors_of(self.space, span, bits=form.bits, is_rgb=is_rgb)

    @property
    def samples(self) -> tuple[Samples, Samples, Samples]:
        """Luma and the two colours; or red, green and blue."""
        form = self._form
        first, second, third = (self._sampled(form, at) for at in range(3))
        if self.space == GBR and not form.is_rgb and not form.is_gray:
            return third, first, second
        return first, second, third

    @property
    def _form(self) -> _Form:
        form = _form(self.format)
        if form is None:
            raise ValueError(f"its colours cannot be converted: pixel format {self.format!r}")
        return form

    def _sampled(self, form: _Form, at: int) -> Samples:
        lies = form.lies[at]
        across, down = (form.across, form.down) if at else (0, 0)
        rows, columns = -(-self.height >> down), -(-self.width >> across)
        values: NDArray[Any] = self.data[lies.plane]
        if form.bits > 8:
            values = values[:, : values.shape[1] & ~1].view("<u2")
        values = values[:rows, lies.first :: lies.step][:, :columns]
        if values.shape != (rows, columns):
            raise ValueError("its colours cannot be converted: a plane is too small")
        shift = 0 if form.is_high else _WIDEST - form.bits
        return Samples(values, shift, across, down)


def _bytes(plane: Any) -> NDArray[np.uint8]:
    stride = plane.line_size
    if stride > 0:
        return np.frombuffer(plane, np.uint8).reshape(-1, stride)
    if not stride:  # a palette
        return np.frombuffer(plane, np.uint8)[None]
    # The first row is the last one in memory, and PyAV's buffer begins with it.
    size = -stride * plane.height
    memory = (ctypes.c_uint8 * size).from_address(plane.buffer_ptr + stride * (plane.height - 1))
    return np.frombuffer(memory, np.uint8).reshape(-1, -stride)[::-1]


def _near(decoded: Any) -> Any:
    """The picture in a format that is here."""
    import av
    from av.video.reformatter import VideoReformatter

    name = decoded.format.name
    is_thin = decoded.format.is_bayer and min(decoded.width, decoded.height) < 2
    if is_thin or name.startswith(_REFUSED):
        raise ValueError(f"its colours cannot be converted: pixel format {name!r}")
    try:
        return VideoReformatter().reformat(
            decoded,
            format=_near_format(decoded.format),
            src_color_range=int(decoded.color_range),
            dst_color_range=int(decoded.color_range),
            interpolation=_FLAGS,
            threads=1,
        )
    except (av.error.FFmpegError, OverflowError) as error:
        raise ValueError(f"its colours cannot be converted: {error}") from error


def _near_format(found: Any) -> str:
    parts = found.components
    bits = max((part.bits for part in parts), default=8)
    if found.is_rgb or found.has_palette or found.is_bayer or found.name.startswith("xyz"):
        return "rgb24" if bits <= 8 else "rgb48le"
    if len(parts) < 3:
        return "gray" if bits <= 8 else "gray16le"
    shifts = (
        2 - found.chroma_width(4).bit_length() + 1,
        2 - found.chroma_height(4).bit_length() + 1,
    )
    pattern = _PATTERNS.get(shifts, "444")
    if bits <= 8:
        return f"yuv{pattern}p"
    return "yuv444p16le" if pattern == "440" else f"yuv{pattern}p16le"


@functools.lru_cache(64)
def _form(name: str) -> _Form | None:  # a family each
    three = _Lies(0), _Lies(1), _Lies(2)
    if found := _PLANAR.fullmatch(name):
        across, down = _HALVED[found[2]]
        return _Form(int(found[3] or 8), three, across, down, is_full=found[1] == "j")
    if found := _GRAY.fullmatch(name):
        with_alpha = found[1] != "gray"
        bits = int(found[1][2:] if with_alpha else found[2] or 8)
        luma = _Lies(0, 0, 1 + with_alpha)
        return None if bits > _WIDEST else _Form(bits, (luma, luma, luma), is_gray=True)
    if (found := _GBR.fullmatch(name)) and int(found[1] or 8) <= _WIDEST:
        return _Form(int(found[1] or 8), (_Lies(2), _Lies(0), _Lies(1)), is_rgb=True)
    if name in _HALF_PLANAR:
        u = name in ("nv21", "nv42")
        lies = _Lies(0), _Lies(1, int(u), 2), _Lies(1, int(not u), 2)
        return _Form(8, lies, *_HALVED[_HALF_PLANAR[name]])
    if found := _HIGH.fullmatch(name):
        lies = _Lies(0), _Lies(1, 0, 2), _Lies(1, 1, 2)
        pattern = {"0": "420", "2": "422", "4": "444"}[found[1]]
        return _Form(int(found[2]), lies, *_HALVED[pattern], is_high=True)
    if name in _PACKED:
        luma_at, u_at, v_at = _PACKED[name]
        return _Form(8, (_Lies(0, luma_at, 2), _Lies(0, u_at, 4), _Lies(0, v_at, 4)), 1, 0)
    if (found := _RGB.fullmatch(name)) and set("rgb") <= set(found[1]):
        order, bits = found[1], int(found[2] or 8 * len(found[1])) // len(found[1])
        red, green, blue = (_Lies(0, order.index(it), len(order)) for it in "rgb")
        return _Form(bits, (red, green, blue), is_rgb=True)
    return None
