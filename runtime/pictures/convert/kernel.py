"""The compiled arithmetic, where it was built when the package was installed; see `integers`."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.scaling import Windows, divided, windows
from flowrun.runtime.pictures.convert import integers
from flowrun.runtime.pictures.convert.colors import Colors, colors_of
from flowrun.runtime.pictures.convert.integers import Samples

__all__ = ["Recipe", "copy_pixels", "is_compiled", "recipe", "scaled", "to_rgb", "to_rgb_at"]

_RGB, _SCALE, _COPY = "flowrun_rgb_1", "flowrun_scale_2", "flowrun_copy_1"
"""The number is that of the functions' arguments: a kernel built from other code is not used."""


class _Samples(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("step", ctypes.c_int32),
        ("wide", ctypes.c_int32),
        ("shift", ctypes.c_int32),
        ("across", ctypes.c_int32),
        ("down", ctypes.c_int32),
    )


_Three = _Samples * 3


class _Colors(ctypes.Structure):
    _fields_ = (
        ("is_rgb", ctypes.c_int32),
        ("luma", ctypes.c_int32),
        ("chroma", ctypes.c_int32 * 6),
        ("bias", ctypes.c_int32 * 3),
    )


class _Windows(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_int64),
        ("firsts", ctypes.c_void_p),
        ("shares", ctypes.c_void_p),
    )


class Recipe(NamedTuple):
    """What the kernel is told of all pictures that lie alike.

    samples: the bytes of a `_Three` of which only the addresses are another picture's.
    begins: of each of the three, the number of its plane, and the byte of that at which it begins.
    """

    samples: bytes
    begins: tuple[tuple[int, int], ...]
    colors: Any


class Kernel:
    """The functions of the library at `path`. `OSError` if it cannot be loaded, `AttributeError` if it
    is another version's."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self._rgb, self._scale, self._copy = library[_RGB], library[_SCALE], library[_COPY]
        self._rgb.argtypes = [pointer, pointer, pointer, number, number]
        self._copy.argtypes, self._copy.restype = (
            [pointer, *[number] * 2, pointer, *[number] * 2],
            None,
        )
        self._scale.argtypes = [
            pointer,
            number,
            pointer,
            *[number] * 2,
            *[pointer] * 2,
            *[ctypes.c_int32] * 3,
        ]

    def to_rgb(
        self, planes: tuple[Samples, Samples, Samples], colors: Colors, out: NDArray[np.uint8]
    ) -> None:
        """As `integers.to_rgb`."""
        height, width = out.shape[:2]
        given = _Three(*map(_given, planes))
        _check(self._rgb(given, _colors(colors), out.ctypes.data, width, height))

    def to_rgb_at(self, recipe: Recipe, planes: Sequence[int], out: NDArray[np.uint8]) -> None:
        """As `to_rgb_at` of the module."""
        height, width = out.shape[:2]
        given = _Three.from_buffer_copy(recipe.samples)
        for values, (plane, at) in zip(given, recipe.begins, strict=True):
            values.data = planes[plane] + at
        _check(self._rgb(given, recipe.colors, out.ctypes.data, width, height))

    def scaled(self, plane: Samples, rows: Windows, columns: Windows) -> NDArray[np.uint16]:
        """As `integers.scaled`."""
        height, width = len(rows.firsts), len(columns.firsts)
        made = np.empty((height, width), np.uint16)
        given = _given(plane)
        _check(
            self._scale(
                ctypes.byref(given),
                plane.values.shape[1],
                made.ctypes.data,
                width,
                height,
                ctypes.byref(_meant(rows)),
                ctypes.byref(_meant(columns)),
                *divided(rows, columns),
            )
        )
        return made

    def copy_pixels(self, pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """As `integers.copy_pixels`."""
        height, width = out.shape[:2]
        self._copy(pixels.ctypes.data, *pixels.strides[:2], out.ctypes.data, width, height)


def _given(plane: Samples) -> _Samples:
    values = plane.values
    stride, step = values.strides
    return _Samples(
        values.ctypes.data,
        stride,
        step,
        values.itemsize == 2,
        plane.shift,
        plane.across,
        plane.down,
    )


def _meant(lengths: Windows) -> _Windows:
    return _Windows(lengths.size, lengths.firsts.ctypes.data, lengths.shares.ctypes.data)


@functools.lru_cache(16)
def _colors(colors: Colors) -> Any:
    return ctypes.pointer(
        _Colors(
            colors.is_rgb,
            colors.luma,
            (ctypes.c_int32 * 6)(*colors.chroma),
            (ctypes.c_int32 * 3)(*colors.bias),
        )
    )


def _check(status: int) -> None:
    if status:
        raise MemoryError


@functools.cache
def _arithmetic() -> Any:
    """The kernel if it is there and computes what it should, otherwise NumPy."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernel{suffix}")
        try:
            kernel = Kernel(path)
        except (OSError, AttributeError):
            continue
        if _agrees(kernel):
            return kernel
    return integers


def _agrees(kernel: Kernel) -> bool:
    """Whether a small picture is the same as by NumPy: it is not if the compiler made a mistake."""
    values = np.random.default_rng(0).integers(0, 256, (3, 6, 70), np.uint8)
    planes = (Samples(values[0], 8), Samples(values[1], 8, 1, 1), Samples(values[2], 8, 1, 1))
    found, wanted = np.zeros((2, 6, 70, 3), np.uint8)
    colors = colors_of(1, 1, bits=8, is_rgb=False)
    kernel.to_rgb(planes, colors, found)
    integers.to_rgb(planes, colors, wanted)
    sizes = windows(6, 4), windows(70, 31)
    same = np.array_equal(kernel.scaled(planes[0], *sizes), integers.scaled(planes[0], *sizes))
    turned = np.empty((70, 6, 3), np.uint8)
    kernel.copy_pixels(wanted.swapaxes(0, 1)[::-1], turned)
    same &= np.array_equal(turned, wanted.swapaxes(0, 1)[::-1])
    return same and np.array_equal(found, wanted)


def is_compiled() -> bool:
    """Whether the compiled kernel is used."""
    return _arithmetic() is not integers


def to_rgb(
    planes: tuple[Samples, Samples, Samples], colors: Colors, out: NDArray[np.uint8]
) -> None:
    """As `integers.to_rgb`; by the kernel, other threads run meanwhile."""
    _arithmetic().to_rgb(planes, colors, out)


def recipe(
    samples: tuple[Samples, Samples, Samples], planes: Sequence[NDArray[np.uint8]], colors: Colors
) -> Recipe | None:
    """What `to_rgb_at` needs for pictures that lie as this one does; None without the kernel.

    planes: the arrays of which the samples are views.
    """
    if not is_compiled():
        return None
    begins = []
    for values in (it.values for it in samples):
        plane = next(n for n, it in enumerate(planes) if np.may_share_memory(it, values))
        begins.append((plane, values.ctypes.data - planes[plane].ctypes.data))
    return Recipe(bytes(_Three(*map(_given, samples))), tuple(begins), _colors(colors))


def to_rgb_at(recipe: Recipe, planes: Sequence[int], out: NDArray[np.uint8]) -> None:
    """`to_rgb` of a picture whose planes begin at these addresses: nothing is made for each picture
    that is the same for all of a source."""
    _arithmetic().to_rgb_at(recipe, planes, out)


def scaled(plane: Samples, rows: Windows, columns: Windows) -> NDArray[np.uint16]:
    """As `integers.scaled`; by the kernel, other threads run meanwhile."""
    made: NDArray[np.uint16] = _arithmetic().scaled(plane, rows, columns)
    return made


def copy_pixels(pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """As `integers.copy_pixels`; by the kernel, other threads run meanwhile."""
    _arithmetic().copy_pixels(pixels, out)
