"""What is in a packet: whether a decoder can begin with it.

H.264 and H.265 packets are NAL units with start codes (Annex B), AV1 packets are OBUs with sizes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from flowrun.msgs.fields import Buffer

__all__ = [
    "WHOLE",
    "Display",
    "Units",
    "appearance",
    "begins",
    "closes",
    "display_of",
    "exif_orientation",
    "holds_parameters",
    "said_to_last",
    "units_of",
    "with_parameters",
    "with_start_codes",
]

_START_CODE = b"\x00\x00\x01"
_STARTS = re.compile(_START_CODE)
"""Finds them twice as fast as `bytes.find`."""
_PARAMETERS = {"h264": 7, "h265": 33, "av1": 1}
"""Type of the unit that says what all pictures have in common."""
_EXIF = {"mjpeg": b"Exif\0\0", "png": b"eXIf"}
"""What comes before the EXIF of a picture."""
_ORIENTATION = 0x0112
_BEGINS = {"h264": range(5, 6), "h265": range(16, 24)}
"""Types of the units with which a decoder can begin: IDR pictures, and H.265's other random access
points. AV1 and VP9 have no key frames but such."""
_CLOSES = {"h264": range(5, 6), "h265": range(16, 21)}
"""Types of the units at which everything before is forgotten: IDR pictures, and H.265's BLA."""
_LISTS = {"h264": 5, "h265": 22}
"""Where the parameter sets are in an MP4's extradata."""
WHOLE = frozenset({"mjpeg", "png", "jpeg2000", "prores", "dnxhd", "dvvideo", "rawvideo"})
"""Forms whose key frames are whole pictures, of which no other needs more than those in between."""
_SEI = {"h264": (6, 1), "h265": (39, 2)}
"""Type of the units with further information that come before a picture, and the bytes of their head."""
_SLICES = {"h264": range(1, 6), "h265": range(32)}
_DISPLAY_ORIENTATION = 47
"""Type of the information that says which way up a picture is shown."""
_OF_ONE_PICTURE = frozenset({*_SLICES["h264"], 9, 10, 11, 12})
"""Types of H.264's units that say nothing of other pictures: its parts, what is before and after it."""
_SAYS_OF_ONE = frozenset({0, 1, 4, 6})
"""Types of information of which a decoder keeps nothing: buffering, timing, captions, recovery."""
_FREE = 5
"""Type of the information in which an encoder says what it likes."""
_ENCODER = b"x264"
"""FFmpeg decodes what old versions of it have made in another way."""
_DISPLAYS = {
    (turns, mirrored): orientation
    for mirrored, orientations in ((False, (1, 8, 3, 6)), (True, (2, 5, 4, 7)))
    for turns, orientation in enumerate(orientations)
}
"""EXIF's number of a picture that is mirrored from left to right, or not, and then turned a number of
times by 90 degrees against the clock."""
_JPEG_BEGINS = b"\xff\xd8\xff"
_JPEG_SCAN = 0xDA
_JPEG_LOOKS = frozenset({0xC0, 0xC1, 0xC2, 0xE0, 0xE1, 0xEE})
"""Segments with the size, JFIF's and Adobe's words on the colours, and EXIF."""
_VP8_KEY = b"\x9d\x01\x2a"
_MOST_LEB128 = 8
"""Bytes of the size of an OBU."""
_AV1C_HEAD = 4
"""Bytes of AV1's extradata before its OBUs, where they begin with 0x81."""


def with_start_codes(form: str, extradata: bytes) -> bytes:
    """The parameter sets of an MP4's H.264 or H.265, each with a start code before it instead of its
    length; b"" where they cannot be read."""
    found: list[bytes] = []
    at = _LISTS[form]
    try:
        if form == "h264":  # a list of each kind, the number of units before it
            for _ in range(2):
                at = _read_units(extradata, at + 1, extradata[at] & 0x1F, found)
        else:
            lists = extradata[at]
            at += 1
            for _ in range(lists):
                at = _read_units(extradata, at + 3, _uint16(extradata, at + 1), found)
    except IndexError:
        return b""
    return b"".join(b"\x00" + _START_CODE + unit for unit in found)


def _read_units(extradata: bytes, at: int, count: int, found: list[bytes]) -> int:
    """Add `count` units, each with its length before it, to `found`; where they end."""
    for _ in range(count):
        end = at + 2 + _uint16(extradata, at)
        if end > len(extradata):
            raise IndexError
        found.append(extradata[at + 2 : end])
        at = end
    return at


def _uint16(data: bytes, at: int) -> int:
    return int.from_bytes([data[at], data[at + 1]])


class Units(NamedTuple):
    """The NAL units or OBUs of a packet; none of other forms.

    kinds: their types. begins: where the first byte of each NAL unit is.
    """

    kinds: tuple[int, ...]
    begins: tuple[int, ...] = ()


_NO_UNITS = Units(())


def units_of(form: str, data: bytes) -> Units:
    """All of a packet's, found in one pass."""
    if form == "av1":
        return Units(tuple(_obus(data)))
    if form not in _SLICES:
        return _NO_UNITS
    end = len(data)
    found = tuple([at for it in _STARTS.finditer(data) if (at := it.end()) < end])
    return Units(tuple([_kind(form, data[at]) for at in found]), found)


def begins(form: str, data: Buffer) -> bool:
    """Whether a decoder that has seen nothing yet can begin with this key frame."""
    if form not in _BEGINS:
        return True
    return any(kind in _BEGINS[form] for kind in units_of(form, bytes(data)).kinds)


def closes(form: str, data: Buffer, units: Units | None = None) -> bool:
    """Whether this key frame closes what is before it: no picture before needs it, nor does any
    after it need one before. False where that is not known.

    units: the packet's, where they are known.
    """
    if form in WHOLE:
        return True
    content = bytes(data[:16]) if form in ("vp8", "vp9") else bytes(data)
    if form in _CLOSES:
        return any(kind in _CLOSES[form] for kind in (units or units_of(form, content)).kinds)
    if form == "av1":
        return holds_parameters(form, content, units)
    if form == "vp8":
        return content[3:6] == _VP8_KEY and not content[0] & 1
    return form == "vp9" and bool(content) and _is_vp9_key(content[0])


def _is_vp9_key(head: int) -> bool:
    """Whether the frame that begins with this byte is a key frame: of profile 0 to 2, and not the
    repetition of another."""
    return head >> 6 == 2 and head >> 4 & 3 != 3 and not head & 0x0C


def holds_parameters(form: str, data: Buffer, units: Units | None = None) -> bool:
    """Whether the packet says what all pictures have in common, where packets of that form do.

    units: as for `closes`.
    """
    if form not in _PARAMETERS:
        return False
    return _PARAMETERS[form] in (units or units_of(form, bytes(data))).kinds


def appearance(form: str, data: Buffer) -> bytes:
    """What a key frame says of how pictures lie; b"" where it says nothing. `ValueError` of a form of
    which that is not known."""
    content = bytes(data)
    if form in _PARAMETERS and form != "av1":
        return b"".join(
            unit
            for unit in content.split(_START_CODE)[1:]
            if unit and _kind(form, unit[0]) == _PARAMETERS[form]
        )
    if form == "mjpeg":
        return b"".join(_jpeg_heads(content))
    raise ValueError(form)


def _jpeg_heads(content: bytes) -> Iterator[bytes]:
    """The segments of each JPEG in `content` that say how large it is and what its colours are."""
    at = content.find(_JPEG_BEGINS)
    while 0 <= at < len(content):
        at += 2
        while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != _JPEG_SCAN:
            length = _uint16(content, at + 2)
            if content[at + 1] in _JPEG_LOOKS:
                yield content[at : at + 2 + length]
            at += 2 + length
        at = content.find(_JPEG_BEGINS, at)


def with_parameters(form: str, data: Buffer, extradata: bytes) -> Buffer:
    """A key frame with its parameter sets before it, which viewers want there: those of `extradata`
    where it has none itself."""
    if form not in _PARAMETERS:
        return data
    if form == "av1":
        front = extradata[_AV1C_HEAD:] if extradata.startswith(b"\x81") else b""
    else:
        starts = extradata.startswith((_START_CODE, b"\x00" + _START_CODE))
        front = extradata if starts else b""
    if not front:
        return data
    content = bytes(data)
    return content if holds_parameters(form, content) else front + content


def exif_orientation(form: str, data: Buffer) -> int:
    """Which way up a JPEG's or PNG's EXIF says that it is shown; 1 (as it is) where it says nothing."""
    name = _EXIF.get(form)
    if name is None:
        return 1
    content = bytes(data)
    at = content.find(name)
    if at < 0:
        return 1
    tiff = content[at + len(name) :]
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, first + 2 + 12 * entry)
            if tag == _ORIENTATION and value in range(1, 9):
                return int(value)
    except struct.error:
        pass
    return 1


class Display(NamedTuple):
    """What an H.264 or H.265 packet says of which way up pictures are shown, by EXIF's numbers.

    orientation: None where what was said before is to hold no longer.
    lasts: whether that holds for the pictures after it too.
    """

    orientation: int | None
    lasts: bool


def display_of(form: str, data: Buffer, units: Units | None = None) -> Display | None:
    """What the packet says before its picture; None where it says nothing.

    units: as for `closes`.
    """
    if form not in _SEI:
        return None
    kind, head = _SEI[form]
    if units is not None and kind not in units.kinds:
        return None
    content = bytes(data)
    at = content.find(_START_CODE) + len(_START_CODE)
    while len(_START_CODE) <= at < len(content):
        of_unit = _kind(form, content[at])
        if of_unit in _SLICES[form]:
            return None
        end = content.find(_START_CODE, at)
        if of_unit == kind:
            unit = content[at + head : end if end >= 0 else len(content)]
            found = _display_in(form, unit.replace(b"\0\0\3", b"\0\0"))
            if found is not None:
                return found
        if end < 0:
            return None
        at = end + len(_START_CODE)
    return None


def said_to_last(form: str, data: bytes, units: Units) -> bytes | None:
    """What an H.264 packet says that a decoder may still know at later packets: its parameters, and what
    its encoder says besides; b"" where that is nothing. None of other forms: it is not known.

    units: the packet's.
    """
    if form != "h264":
        return None
    if _OF_ONE_PICTURE.issuperset(units.kinds):
        return b""
    sei, head = _SEI[form]
    ends = (*(at - len(_START_CODE) for at in units.begins[1:]), len(data))
    found = []
    for kind, at, end in zip(units.kinds, units.begins, ends, strict=True):
        unit = data[at:end]
        if kind == sei:
            told = list(_information(unit[head:].replace(b"\0\0\3", b"\0\0")))
            is_said = any(
                what not in _SAYS_OF_ONE and (what != _FREE or _ENCODER in payload)
                for what, payload in told
            )
        else:
            is_said = kind not in _OF_ONE_PICTURE
        if is_said:
            found.append(unit)
    return _START_CODE.join(found)


def _information(unit: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and the contents of each message of an SEI unit; without one that is cut off."""
    at = 0
    while at + 2 < len(unit):
        numbers = []
        for _ in range(2):  # the type, the size
            number = 0
            while at < len(unit) and unit[at] == 0xFF:
                number, at = number + 0xFF, at + 1
            numbers.append(number + (unit[at] if at < len(unit) else 0))
            at += 1
        kind, size = numbers
        if at + size <= len(unit):
            yield kind, unit[at : at + size]
        at += size


def _display_in(form: str, unit: bytes) -> Display | None:
    """What the messages of an SEI unit say."""
    for kind, payload in _information(unit):
        if kind == _DISPLAY_ORIENTATION and payload:
            return _display(form, payload)
    return None


def _display(form: str, payload: bytes) -> Display | None:
    """Cancel 1 bit; mirrored left to right, top to bottom 1 each; turned 16, in 2**-16 of a turn against
    the clock; then whether it lasts: H.264 a number, "1" (0) for one picture; H.265 1 bit."""
    if payload[0] & 0x80:
        return Display(None, lasts=True)
    if len(payload) < 3:
        return None
    bits = int.from_bytes(payload[:3])
    across, down = bits >> 22 & 1, bits >> 21 & 1
    turns = ((bits >> 5 & 0xFFFF) + 0x2000 >> 14) % 4
    if down:  # the same as mirrored left to right, and half a turn
        turns = (turns + 2) % 4
    flag = bool(bits >> 4 & 1)
    orientation = _DISPLAYS[turns, bool(across) != bool(down)]
    return Display(orientation, lasts=flag if form == "h265" else not flag)


def _kind(form: str, head: int) -> int:
    return head & 0x1F if form == "h264" else head >> 1 & 0x3F


def _obus(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        head = data[at]
        yield head >> 3 & 0x0F
        at += 2 if head & 0x04 else 1  # with an extension
        if not head & 0x02:  # without a size: it reaches to the end
            return
        size = 0
        for number, byte in enumerate(data[at : at + _MOST_LEB128]):
            size |= (byte & 0x7F) << 7 * number
            at += 1
            if byte < 0x80:
                break
        at += size
