"""How long a film says it is, so that one that was cut off on its way is noticed."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

__all__ = ["NO_INDEX", "is_cut_off", "lacks_index"]

NO_INDEX = (
    "it is an MP4 without its index (moov), which is written last: it is cut off, or still being "
    "written; let who writes it finish, or have it write Matroska, MPEG-TS, or MP4 in fragments "
    "(-movflags +frag_keyframe+empty_moov), which can be read up to where they end"
)
_BOX = struct.Struct(">I4s")
"""How each part of an MP4 begins: its size and its kind."""
_LARGE = struct.Struct(">Q")
"""The size, where the one before is 1."""

_CUT_S = 0.5
"""A film that ends so much sooner than it says was cut off."""
_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
"""What Matroska says of a track, among its tags."""


def is_cut_off(stream: Any, end: int) -> bool:
    """Whether a film has ended before it says that it does; False where it does not say it.

    stream: an `av.VideoStream`.
    end: where its last picture ended, by the stream's clock; 0 if it gave none.
    """
    says = _ends_at(stream)
    return bool(end and says is not None and says - end * stream.time_base > _CUT_S)


def lacks_index(path: Path) -> bool:
    """Whether a file is an MP4 with pictures, and nothing that says where they are."""
    at, has_pictures = 0, False
    length = path.stat().st_size
    with path.open("rb") as file:
        while at < length:
            file.seek(at)
            begin = file.read(_BOX.size + _LARGE.size)
            if len(begin) < _BOX.size:
                break
            size, kind = _BOX.unpack_from(begin)
            if (at == 0 and kind != b"ftyp") or kind == b"moov":
                return False
            has_pictures |= kind == b"mdat"
            if size == 1 and len(begin) == _BOX.size + _LARGE.size:
                (size,) = _LARGE.unpack_from(begin, _BOX.size)
            if size < _BOX.size:  # 0: up to the end
                break
            at += size
    return has_pictures


def _ends_at(stream: Any) -> Fraction | None:
    """Where a stream says that it ends at the earliest, in seconds of its clock: some containers count
    from where it begins, some from 0."""
    if stream.duration:
        return Fraction((min(stream.start_time or 0, 0) + stream.duration) * stream.time_base)
    said = _DURATION.match(stream.metadata.get("DURATION", ""))
    if said is None:
        return None
    hours, minutes, seconds = said.groups()
    return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
