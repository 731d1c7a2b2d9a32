"""H.264 and H.265 that say in their SEI which way up their pictures are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av

from support.films import draw

CODECS = {
    "h264": {"x264-params": "b-adapt=0:bframes=2"},
    "h265": {"codec": "libx265", "x265-params": "log-level=none:bframes=2:open-gop=0"},
}


def sei(
    form: str, *, turns: int = 0, across: bool = False, down: bool = False, lasts=True
) -> bytes:
    """A unit that says: mirrored left to right (`across`), top to bottom (`down`), then turned `turns`
    times by 90 degrees against the clock."""
    bits = f"0{across:d}{down:d}{turns << 14:016b}"
    bits += (("010" if lasts else "1") + "0") if form == "h264" else f"{lasts:d}"
    bits += "1" if len(bits) % 8 else ""
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8)
    head = b"\x06" if form == "h264" else b"\x4e\x01"
    text = bytes([47, len(payload)]) + payload + b"\x80"
    return b"\0\0\0\1" + head + text.replace(b"\0\0", b"\0\0\3")


def film(path: Path, form: str, at: Callable[[int, bool], bool], unit: bytes) -> Path:
    """A film in which `unit` comes before the pictures of the packets (number, is a key frame) `at`."""
    plain = draw(path.with_name(f"plain-{path.name}"), **CODECS[form])
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(it for it in source.demux(video=0) if it.size):
            data = bytes(packet)
            if at(number, packet.is_keyframe):
                begin = _slice(form, data)
                data = data[:begin] + unit + data[begin:]
            made = av.Packet(data)
            made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
            made.is_keyframe, made.stream = packet.is_keyframe, stream
            out.mux(made)
    return path


def _slice(form: str, data: bytes) -> int:
    """Where the first slice begins."""
    at = data.find(b"\0\0\1")
    while True:
        kind = data[at + 3] & 31 if form == "h264" else data[at + 3] >> 1 & 63
        if kind in range(1, 6) if form == "h264" else kind < 32:
            return at
        at = data.find(b"\0\0\1", at + 3)
