"""What browsers call the codec of a video: RFC 6381's names, as WebCodecs wants them."""

from __future__ import annotations

from collections.abc import Callable

from flowrun.msgs.fields import Buffer
from flowrun.msgs.image import VideoDecoder

__all__ = ["web_codec"]

_START_CODE = b"\x00\x00\x01"
_H264_SPS, _H265_SPS = 7, 33
_AV1_SEQUENCE = 1
_AV1C = 0x81


def web_codec(form: str, decoder: VideoDecoder, key_frame: Buffer) -> str | None:
    """The name of the codec, None for one that WebCodecs has no name for, or whose key frame does not
    say enough.

    form: Foxglove's name of the format, such as "h265".
    key_frame: with its parameter sets.
    """
    data = bytes(key_frame)
    match form:
        case "h264":
            sps = _unit(data, lambda head: head & 0x1F == _H264_SPS)
            return None if len(sps) < 4 else f"avc1.{sps[1:4].hex()}"
        case "h265":
            return _h265(_unit(data, lambda head: head >> 1 & 0x3F == _H265_SPS))
        case "vp8":
            return "vp8"
        case "vp9":
            return _vp9(data, decoder)
        case "av1":
            return _av1(data, decoder)
        case _:
            return None


def _unit(data: bytes, is_it: Callable[[int], bool]) -> bytes:
    """The first NAL unit of a kind; b"" where there is none."""
    for unit in data.split(_START_CODE)[1:]:
        if unit and is_it(unit[0]):
            return unit
    return b""


def _h265(sps: bytes) -> str | None:
    # Two bytes of the unit's head, one before the profile, tier and level.
    told = sps.replace(b"\x00\x00\x03", b"\x00\x00")[3:]
    if len(told) < 12:
        return None
    space = ("", "A", "B", "C")[told[0] >> 6]
    tier = "H" if told[0] & 0x20 else "L"
    compatible = int(f"{int.from_bytes(told[1:5]):032b}"[::-1], 2)
    constraints = told[5:11].rstrip(b"\x00")
    parts = [f"hev1.{space}{told[0] & 0x1F}", f"{compatible:X}", f"{tier}{told[11]}"]
    return ".".join(parts + [f"{byte:X}" for byte in constraints])


def _vp9(data: bytes, decoder: VideoDecoder) -> str | None:
    if not data:
        return None
    profile = (data[0] >> 5 & 1) | (data[0] >> 4 & 1) << 1
    return f"vp09.{profile:02d}.51.{_bits(decoder):02d}"


def _av1(data: bytes, decoder: VideoDecoder) -> str | None:
    if decoder.extradata.startswith(bytes([_AV1C])) and len(decoder.extradata) >= 3:
        profile, level = decoder.extradata[1] >> 5, decoder.extradata[1] & 0x1F
        tier = "H" if decoder.extradata[2] & 0x80 else "M"
    else:
        sequence = _sequence(data)
        if not sequence:
            return None
        # The highest level: what it is, is among bits of no fixed place.
        profile, level, tier = sequence[0] >> 5, 23, "M"
    return f"av01.{profile}.{level:02d}{tier}.{_bits(decoder):02d}"


def _sequence(data: bytes) -> bytes:
    """The content of the sequence header that a key frame begins with; b"" where there is none."""
    at = 0
    while at + 2 <= len(data):
        head = data[at]
        at += 2 if head & 0x04 else 1
        size, shift = 0, 0
        while at < len(data):
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if head >> 3 & 0x0F == _AV1_SEQUENCE:
            return data[at : at + size]
        at += size
    return b""


def _bits(decoder: VideoDecoder) -> int:
    return next((bits for bits in (12, 10) if f"{bits}le" in decoder.pixel_format), 8)
