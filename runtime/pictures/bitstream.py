"""What is in a packet of H.264, H.265 or AV1: whether a decoder can begin with it.

H.264 and H.265 packets are NAL units with start codes (Annex B), AV1 packets are OBUs with sizes.
"""

from __future__ import annotations

from collections.abc import Iterator

from flowrun.msgs.fields import Buffer

__all__ = ["begins", "with_parameters"]

_START_CODE = b"\x00\x00\x01"
_PARAMETERS = {"h264": 7, "h265": 33, "av1": 1}
"""Type of the unit that says what all pictures have in common."""
_BEGINS = {"h264": range(5, 6), "h265": range(16, 24)}
"""Types of the units with which a decoder can begin: IDR pictures, and H.265's other random access
points. AV1 and VP9 have no key frames but such."""
_AV1C_HEAD = 4
"""Bytes of AV1's extradata before its OBUs, where they begin with 0x81."""


def begins(form: str, data: Buffer) -> bool:
    """Whether a decoder that has seen nothing yet can begin with this key frame."""
    return form not in _BEGINS or any(kind in _BEGINS[form] for kind in _units(form, bytes(data)))


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
    return content if _PARAMETERS[form] in _units(form, content) else front + content


def _units(form: str, data: bytes) -> Iterator[int]:
    """The types of the units."""
    if form == "av1":
        yield from _obus(data)
        return
    at = data.find(_START_CODE)
    while 0 <= at < len(data) - 3:
        head = data[at + 3]
        yield head & 0x1F if form == "h264" else head >> 1 & 0x3F
        at = data.find(_START_CODE, at + 3)


def _obus(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        head = data[at]
        yield head >> 3 & 0x0F
        at += 2 if head & 0x04 else 1  # with an extension
        if not head & 0x02:  # without a size: it reaches to the end
            return
        size = shift = 0
        while at < len(data) and shift < 56:
            byte = data[at]
            size |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        at += size
