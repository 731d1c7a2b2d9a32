"""A decoded picture as planes of its own: what is wanted of it is made of them when it is first read.

A decoder takes the memory of a picture back, see `video`. By then its planes are copied, which costs 0.2
to 0.6 ms at 1080p where converting them costs more, and are half as large as the pixels that they give.
Who reads them before, reads them in the decoder's memory. A picture that may stay there is not copied
before somebody needs its bytes in one piece.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from flowrun.msgs.arrays import sampled, shown
from flowrun.runtime.pictures.convert import (
    UPRIGHT,
    Planes,
    Recipe,
    luma,
    orientation_of,
    recipe,
    resized,
    rgb,
    shown_shape,
    swaps_axes,
    to_rgb_at,
)
from flowrun.runtime.pictures.memory import new_array
from flowrun.runtime.pictures.video import RgbConverter

__all__ = [
    "Demand",
    "InPlace",
    "Kept",
    "Layout",
    "PlanarPicture",
    "copied",
    "is_same",
    "kept",
    "layout_of",
]

_READ_IN_A_ROW = 2
"""Pictures read one after the other, after which those that follow are expected to be read."""
_NEAR = 8
"""Pictures after one that was read, in which the next is expected to be."""


class Layout(NamedTuple):
    """How a picture lies in its planes, and what their colours mean.

    format: FFmpeg's name of the pixel format.
    height, width: of the first plane.
    space, span: FFmpeg's numbers of the colour space and range.
    orientation: which way up it is shown, by EXIF's numbers.
    """

    format: str
    height: int
    width: int
    space: int
    span: int
    orientation: int = UPRIGHT

    @property
    def planes(self) -> list[tuple[int, int]]:
        """Rows, and bytes of a row, of each plane. `ValueError` if such a format has none."""
        return _planes(self.format, self.height, self.width)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture as it is shown."""
        return shown_shape(self.height, self.width, self.orientation)

    @property
    def size(self) -> int:
        """Bytes of all planes."""
        return sum(rows * length for rows, length in self.planes)


def layout_of(decoded: Any) -> Layout | None:
    """That of a decoded `av.VideoFrame`; None where it does not lie in planes of luma and colour."""
    layout = _layout(
        decoded.format.name,
        decoded.height,
        decoded.width,
        int(decoded.colorspace),
        int(decoded.color_range),
        orientation_of(decoded),
    )
    if layout is None:
        return None
    planes, needed = decoded.planes, layout.planes
    if len(planes) != len(needed):
        return None
    for plane, (rows, length) in zip(planes, needed, strict=True):
        line = plane.line_size
        if line < length or plane.buffer_size < line * (rows - 1) + length:
            return None
    return layout


class InPlace:
    """The planes of a decoded `av.VideoFrame` in the decoder's own memory.

    stays: whether they may stay there; the decoder takes the memory back otherwise.
    """

    def __init__(self, decoded: Any, layout: Layout, *, stays: bool = True) -> None:
        self._planes, self._layout, self.stays = decoded.planes, layout, stays

    def __call__(self) -> NDArray[np.uint8]:
        """A copy of them, one after the other without gaps, read-only."""
        return _copied(self._planes, self._layout)

    @property
    def planes(self) -> list[NDArray[np.uint8]]:
        """Views of (rows, bytes of a row)."""
        return _views(self._planes, self._layout)

    @property
    def lines(self) -> tuple[list[int], tuple[int, ...]]:
        """Address of each plane, and bytes from row to row."""
        planes = self._planes
        return [it.buffer_ptr for it in planes], tuple([it.line_size for it in planes])

    def crc(self) -> int | None:
        """The CRC-32 of what a call gives; None where rows have gaps in between."""
        found = 0
        for plane, (rows, length) in zip(self._planes, self._layout.planes, strict=True):
            if plane.line_size != length:
                return None
            found = crc32(memoryview(plane)[: rows * length], found)
        return found


class PlanarPicture:
    """A decoded picture. For any thread.

    layout: how its planes lie, one after the other without gaps, in `data`.
    data: their bytes; or what gives them, asked once.
    on_read: called when the pixels are first asked for; None once it was.
    """

    def __init__(
        self,
        layout: Layout,
        data: NDArray[np.uint8] | Callable[[], NDArray[np.uint8]],
        *,
        on_read: Callable[[], None] | None = None,
    ) -> None:
        self.layout = layout
        self._data = data
        self.on_read = on_read
        self._lock = threading.RLock()
        self._pixels: NDArray[np.uint8] | None = None
        self._sample = b""
        self._crc: int | None = None

    @property
    def height(self) -> int:
        """Rows of the pixels."""
        return self.layout.shape[0]

    @property
    def width(self) -> int:
        """Columns of the pixels."""
        return self.layout.shape[1]

    @property
    def is_turned(self) -> bool:
        """Whether what is shown as a row lies in a column."""
        return swaps_axes(self.layout.orientation)

    @property
    def is_in_place(self) -> bool:
        """Whether its planes are still in the decoder's memory."""
        return isinstance(self._data, InPlace)

    @property
    def is_borrowed(self) -> bool:
        """Whether they are, and it takes the memory back."""
        return isinstance(self._data, InPlace) and not self._data.stays

    @property
    def data(self) -> NDArray[np.uint8]:
        """The bytes of the planes, one after the other, read-only."""
        with self._lock:
            if not isinstance(self._data, np.ndarray):
                self._data = self._data()
            return self._data

    def leave_decoder(self) -> None:
        """Copy its planes if the decoder takes their memory back; waits for who reads them there."""
        if self.is_borrowed:
            _ = self.data

    @property
    def crc(self) -> int:
        """The CRC-32 of `data`, as zlib has it; computed once."""
        with self._lock:
            if self._crc is None:
                self._crc = self._new_crc()
            return self._crc

    def _new_crc(self) -> int:
        found = self._data.crc() if isinstance(self._data, InPlace) else None
        return crc32(self.data) if found is None else found

    @property
    def planes(self) -> Planes:
        """Its planes, views of memory that stays as it is."""
        self.leave_decoder()
        return self._planes()

    def _planes(self) -> Planes:
        of, views = self.layout, self._views()
        return Planes(of.format, of.height, of.width, of.space, of.span, views, of.orientation)

    def _views(self) -> list[NDArray[np.uint8]]:
        data = self._data
        if isinstance(data, InPlace):
            return data.planes
        views, at = [], 0
        for rows, length in self.layout.planes:
            views.append(self.data[at : at + rows * length].reshape(rows, length))
            at += rows * length
        return views

    def made(self) -> NDArray[np.uint8]:
        """The pixels: RGB, (H, W, 3), read-only."""
        self._note_reading()
        return self.prepare()

    def _note_reading(self) -> None:
        on_read, self.on_read = self.on_read, None
        if on_read is not None:
            on_read()

    def prepare(self) -> NDArray[np.uint8]:
        """`made`, before anybody asks for it."""
        with self._lock:
            if self._pixels is None:
                self._pixels = shown(self._converted())
                self._sample = sampled(self._pixels)
            return self._pixels

    def _converted(self) -> NDArray[np.uint8]:
        out = new_array(*self.layout.shape, 3)
        lines = self._lines()
        known = None if lines is None else _recipe(self.layout, lines[1])
        if lines is None or known is None:
            return rgb(self._planes(), out)
        to_rgb_at(known, lines[0], out)
        return out

    def _lines(self) -> tuple[list[int], tuple[int, ...]] | None:
        """As `InPlace.lines`; None of bytes that are not those of the layout: past their end is memory
        of others."""
        if isinstance(self._data, InPlace):
            return self._data.lines
        data = self.data
        if data.nbytes != self.layout.size or not data.flags.c_contiguous:
            return None
        addresses, strides, at = [], [], data.ctypes.data
        for rows, length in self.layout.planes:
            addresses.append(at)
            strides.append(length)
            at += rows * length
        return addresses, tuple(strides)

    def forget(self) -> None:
        """Keep the pixels no longer: they are made once more where they are read again."""
        with self._lock:
            self._pixels = None

    def luma(self) -> NDArray[np.uint8]:
        """As `ImageRgb8Msg.luma`."""
        return luma(self.planes)

    def resized(self, width: int, height: int) -> NDArray[np.uint8]:
        """As `ImageRgb8Msg.resized`."""
        return resized(self.planes, width, height)

    def sample(self) -> bytes:
        """`sampled` of the pixels when they were made."""
        return self._sample

    def __reduce__(self) -> tuple[Any, ...]:
        return PlanarPicture, (self.layout, self.data)


Kept = PlanarPicture | NDArray[np.uint8]
"""What is kept of a decoded picture: its planes, or its pixels where it has none."""


def kept(decoded: Any, *, on_read: Callable[[], None] | None = None) -> Kept:
    """What is kept of a decoded `av.VideoFrame`. `ValueError` where its colours cannot be converted.

    on_read: see `PlanarPicture`.
    """
    layout = layout_of(decoded)
    if layout is None:
        return RgbConverter().rgb(decoded)
    return PlanarPicture(layout, copied(decoded, layout), on_read=on_read)


def is_same(one: Kept, other: Kept) -> bool:
    """Whether both are the same picture."""
    if isinstance(one, PlanarPicture) and isinstance(other, PlanarPicture):
        return one.layout == other.layout and np.array_equal(one.data, other.data)
    if isinstance(one, PlanarPicture) or isinstance(other, PlanarPicture):
        return False
    return np.array_equal(one, other)


class Demand:
    """Whether the pixels of a source's pictures are being read, so that it pays to make them before.

    Pictures are numbered as they are shown. For any thread.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._in_a_row = 0

    def note(self, number: int) -> None:
        """The pixels of a picture were asked for."""
        follows = self._last is not None and 0 < number - self._last <= _READ_IN_A_ROW
        self._in_a_row = self._in_a_row + 1 if follows else 1
        self._last = number

    def expects(self, number: int) -> bool:
        """Whether those of this picture will be."""
        if self._last is None or self._in_a_row < _READ_IN_A_ROW:
            return False
        return 0 < number - self._last <= _NEAR


def copied(decoded: Any, layout: Layout) -> NDArray[np.uint8]:
    """The planes of a decoded `av.VideoFrame`, one after the other without gaps, read-only."""
    return _copied(decoded.planes, layout)


def _copied(planes: Sequence[Any], layout: Layout) -> NDArray[np.uint8]:
    data = new_array(layout.size)
    at = 0
    for plane in _views(planes, layout):
        data[at : at + plane.size].reshape(plane.shape)[...] = plane
        at += plane.size
    data.setflags(write=False)
    return data


def _views(planes: Sequence[Any], layout: Layout) -> list[NDArray[np.uint8]]:
    return [
        np.ndarray(needed, np.uint8, plane, strides=(plane.line_size, 1))
        for plane, needed in zip(planes, layout.planes, strict=True)
    ]


@lru_cache(64)
def _recipe(layout: Layout, strides: tuple[int, ...]) -> Recipe | None:
    """What makes the pixels of pictures that lie so; None where that is not made once for all."""
    memory = [
        np.ndarray((rows, length), np.uint8, np.empty(rows * stride, np.uint8), strides=(stride, 1))
        for (rows, length), stride in zip(layout.planes, strides, strict=True)
    ]
    of = layout
    return recipe(Planes(of.format, of.height, of.width, of.space, of.span, memory, of.orientation))


@lru_cache(64)
def _layout(*of: Any) -> Layout | None:
    """The layout of these fields; None where such a format has no planes of luma and colour."""
    layout = Layout(*of)
    try:
        _ = layout.planes
    except ValueError:
        return None
    return layout


@lru_cache(64)
def _planes(name: str, height: int, width: int) -> list[tuple[int, int]]:
    import av

    found = av.VideoFormat(name, width, height)
    parts = found.components
    is_planar = found.is_planar or len(parts) == 1
    is_other = found.is_rgb or found.has_palette or found.is_bit_stream
    if is_other or not is_planar or not Planes.knows(name):
        raise ValueError(f"{name}: no planes of luma and colour")
    rows: dict[int, int] = {}
    lengths: dict[int, int] = {}
    for part in parts:
        rows[part.plane] = part.height
        lengths[part.plane] = lengths.get(part.plane, 0) + part.width * (1 if part.bits <= 8 else 2)
    return [(rows[plane], lengths[plane]) for plane in sorted(rows)]
