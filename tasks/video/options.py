"""The names of FFmpeg's options.

FFmpeg ignores an option that it does not know. PyAV lists those of codecs, but not those of demuxers
and protocols: they are read from the library that PyAV has loaded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache

__all__ = ["option_names"]


class _Option(ctypes.Structure):
    """The beginning of an `AVOption`."""

    _fields_ = (("name", ctypes.c_char_p),)


@cache
def option_names() -> frozenset[str]:
    """The options of FFmpeg's demuxers and protocols; none where they cannot be listed."""
    from av import _core

    try:
        library = ctypes.CDLL(_core.__file__)
        library.avformat_get_class.restype = ctypes.c_void_p
        library.av_opt_next.restype = ctypes.POINTER(_Option)
        library.av_opt_child_class_iterate.restype = ctypes.c_void_p
        return frozenset(_names(library, library.avformat_get_class()))
    except (OSError, AttributeError):  # no such functions in this build
        return frozenset()


def _names(library: ctypes.CDLL, described: int) -> Iterator[str]:
    """The names of the options of an `AVClass`, and of the classes below it."""
    thing = ctypes.c_void_p(described)  # an object of the class begins with a pointer to it
    option = library.av_opt_next(ctypes.byref(thing), None)
    while option:
        yield option.contents.name.decode()
        option = library.av_opt_next(ctypes.byref(thing), option)
    place = ctypes.c_void_p()
    while child := library.av_opt_child_class_iterate(
        ctypes.c_void_p(described), ctypes.byref(place)
    ):
        yield from _names(library, child)
