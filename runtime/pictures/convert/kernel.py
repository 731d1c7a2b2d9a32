"""The compiled arithmetic, where it was built when the package was installed; see `integers`."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.scaling import Windows, divided, windows
from flowrun.runtime.pictures.convert import integers
from flowrun.runtime.pictures.convert.colors import Colors, colors_of
from flowrun.runtime.pictures.convert.integers import Samples

__all__ = ["copy_pixels", "is_compiled", "scaled", "to_rgb"]

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


def scaled(plane: Samples, rows: Windows, columns: Windows) -> NDArray[np.uint16]:
    """As `integers.scaled`; by the kernel, other threads run meanwhile."""
    made: NDArray[np.uint16] = _arithmetic().scaled(plane, rows, columns)
    return made


def copy_pixels(pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """As `integers.copy_pixels`; by the kernel, other threads run meanwhile."""
    _arithmetic().copy_pixels(pixels, out)
