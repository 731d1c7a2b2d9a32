"""Small films of every kind, and what cameras, networks and disks make of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from support.films import draw

SIZE = (64, 48)
FRAMES = 20

X264 = {"x264-params": "b-adapt=0:bframes=2:keyint=8:min-keyint=8:scenecut=0"}
KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"bf": "0"},
    "h264_slices.ts": {"bf": "0", "x264-params": "slices=3"},
    "h264_b.mkv": X264,
    "h264_b.avi": X264,
    "h264_b.ts": X264,
    "h264_open.mp4": {"x264-params": "b-adapt=0:bframes=2:open-gop=1"},
    "h264_open.mkv": {"x264-params": "b-adapt=0:bframes=3:b-pyramid=normal:open-gop=1"},
    "h264_intra.mkv": {"x264-params": "intra-refresh=1:bframes=0"},
    "h265.mp4": {"codec": "libx265", "x265-params": "log-level=none:bframes=2"},
    "h265.mkv": {"codec": "libx265", "x265-params": "log-level=none:bframes=2:open-gop=0"},
    "h265_slices.ts": {"codec": "libx265", "x265-params": "log-level=none:slices=2:bframes=1"},
    "vp8.mkv": {"codec": "libvpx", "deadline": "realtime"},
    "vp9.mkv": {"codec": "libvpx-vp9", "deadline": "realtime", "auto-alt-ref": "1"},
    "vp9.mp4": {"codec": "libvpx-vp9", "deadline": "realtime"},
    "av1.mkv": {"codec": "libsvtav1", "preset": "12", "svtav1-params": "lp=1"},
    "av1.mp4": {"codec": "libsvtav1", "preset": "12", "svtav1-params": "lp=1"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b.avi": {"codec": "mpeg4", "bf": "2"},
    "mpeg4_b.mp4": {"codec": "mpeg4", "bf": "2"},
    "mpeg2.ts": {"codec": "mpeg2video", "bf": "2"},
    "jpegs.avi": {"codec": "mjpeg"},
    "jpegs.mkv": {"codec": "mjpeg"},
    "mpeg1.mpg": {"codec": "mpeg1video", "bf": "2"},
    "wmv.avi": {"codec": "wmv2"},
    "flv.flv": {"codec": "flv"},
    "ffv1.mkv": {"codec": "ffv1"},
    "png.mov": {"codec": "png"},
    "yuyv.avi": {"codec": "rawvideo"},
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """A packet on its way into a container."""

    data: bytes
    pts: int | None
    dts: int | None
    is_key: bool


def original(folder: Path, kind: str) -> Path:
    """The film of a kind, drawn once into `folder`."""
    path = folder / kind
    if not path.exists():
        draw(path, frames=FRAMES, size=SIZE, **KINDS[kind])
    return path


def damaged(source: Path, path: Path, rng: np.random.Generator) -> str:
    """Write the film `source`, damaged, to `path`; returns what was done to it."""
    done = []
    if rng.random() < 0.75:
        how = [str(name) for name in rng.choice(list(_PACKETS), int(rng.integers(1, 4)))]
        done += how
        remux(source, path, lambda chunks: [_PACKETS[name](chunks, rng) for name in how])
    else:
        path.write_bytes(source.read_bytes())
    if not done or rng.random() < 0.2:
        name = str(rng.choice(list(_BYTES)))
        done.append(name)
        content = bytearray(path.read_bytes())
        _BYTES[name](content, rng)
        path.write_bytes(content)
    return "+".join(done)


def spoil(chunks: list[Chunk], rng: np.random.Generator) -> None:
    """Damage some of the packets in each way that leaves them where they are."""
    for change in (_flip, _cut, _noise, _swapped):
        change(chunks, rng)


def remux(source: Path, path: Path, change: Callable[[list[Chunk]], Any]) -> None:
    """Write the packets of `source` to `path`, after `change` has changed the list of them."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        made = new.add_stream_from_template(stream, opaque=True)
        chunks = [
            Chunk(bytes(packet), packet.pts, packet.dts, packet.is_keyframe)
            for packet in old.demux(stream)
            if packet.size
        ]
        change(chunks)
        for chunk in chunks:
            packet = av.Packet(len(chunk.data))
            packet.update(chunk.data)
            packet.stream, packet.time_base = made, stream.time_base
            packet.pts, packet.dts, packet.is_keyframe = chunk.pts, chunk.dts, chunk.is_key
            try:
                new.mux(packet)
            except (av.error.FFmpegError, ValueError):
                continue  # the container cannot hold it: a missing packet


def _with_data(chunk: Chunk, data: bytes | bytearray) -> Chunk:
    return Chunk(bytes(data), chunk.pts, chunk.dts, chunk.is_key)


def _at(chunks: list[Chunk], rng: np.random.Generator) -> int:
    return int(rng.integers(0, len(chunks)))


def _flip(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    data = bytearray(chunks[at].data)
    flip_bytes(data, rng, int(rng.integers(1, 8)))
    chunks[at] = _with_data(chunks[at], data)


def _flip_head(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    data = bytearray(chunks[at].data)
    data[int(rng.integers(0, min(12, len(data))))] ^= 1 << int(rng.integers(0, 8))
    chunks[at] = _with_data(chunks[at], data)


def _cut(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    data = chunks[at].data
    chunks[at] = _with_data(chunks[at], data[: int(rng.integers(1, len(data) + 1))])


def _zeros(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    data = bytearray(chunks[at].data)
    start = int(rng.integers(0, len(data)))
    data[start : start + 60] = bytes(len(data[start : start + 60]))
    chunks[at] = _with_data(chunks[at], data)


def _noise(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    data = bytearray(chunks[at].data)
    start = int(rng.integers(0, len(data)))
    length = len(data[start : start + 300])
    data[start : start + length] = rng.bytes(length)
    chunks[at] = _with_data(chunks[at], data)


def _missing(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    del chunks[at : at + int(rng.integers(1, 4))]
    if not chunks:
        return


def _missing_first(chunks: list[Chunk], rng: np.random.Generator) -> None:
    if len(chunks) > 4:
        del chunks[: int(rng.integers(1, 4))]


def _twice(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    chunks.insert(at, chunks[at])


def _again_later(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    chunks.insert(min(len(chunks), at + int(rng.integers(2, 6))), chunks[at])


def _swapped(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at, other = _at(chunks, rng), _at(chunks, rng)
    chunks[at], chunks[other] = (
        _with_data(chunks[at], chunks[other].data),
        _with_data(chunks[other], chunks[at].data),
    )


def _same_time(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    other = chunks[max(0, at - int(rng.integers(1, 3)))]
    chunks[at] = Chunk(chunks[at].data, other.pts, chunks[at].dts, chunks[at].is_key)


def _no_time(chunks: list[Chunk], rng: np.random.Generator) -> None:
    for at in range(len(chunks)):
        if rng.random() < 0.3:
            chunks[at] = Chunk(chunks[at].data, None, chunks[at].dts, chunks[at].is_key)


def _later(chunks: list[Chunk], rng: np.random.Generator) -> None:
    begin, jump = _at(chunks, rng), int(rng.integers(1, 1 << 34))
    for at in range(begin, len(chunks)):
        it = chunks[at]
        moved = [None if time is None else time + jump for time in (it.pts, it.dts)]
        chunks[at] = Chunk(it.data, moved[0], moved[1], it.is_key)


def _wrong_key(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    it = chunks[at]
    chunks[at] = Chunk(it.data, it.pts, it.dts, not it.is_key)


def _empty(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    chunks[at] = _with_data(chunks[at], b"\x00")


def _glued(chunks: list[Chunk], rng: np.random.Generator) -> None:
    at = _at(chunks, rng)
    if at + 1 < len(chunks):
        chunks[at] = _with_data(chunks[at], chunks[at].data + chunks[at + 1].data)
        del chunks[at + 1]


def _pieces_lost(chunks: list[Chunk], rng: np.random.Generator) -> None:
    """What a network leaves of packets that it carries in pieces, of which it loses some."""
    length = int(rng.integers(20, 400))
    for at in range(_at(chunks, rng), len(chunks)):
        data = chunks[at].data
        pieces = [data[k : k + length] for k in range(0, len(data), length)]
        kept = b"".join(it for it in pieces if rng.random() >= 0.1)
        chunks[at] = _with_data(chunks[at], kept or data[:1])


_PACKETS: dict[str, Callable[[list[Chunk], np.random.Generator], None]] = {
    "flip": _flip,
    "flip_head": _flip_head,
    "cut": _cut,
    "zeros": _zeros,
    "noise": _noise,
    "missing": _missing,
    "missing_first": _missing_first,
    "twice": _twice,
    "again_later": _again_later,
    "swapped": _swapped,
    "same_time": _same_time,
    "no_time": _no_time,
    "later": _later,
    "wrong_key": _wrong_key,
    "empty": _empty,
    "glued": _glued,
    "pieces_lost": _pieces_lost,
}


def flip_bytes(data: bytearray, rng: np.random.Generator, count: int) -> None:
    for _ in range(count):
        data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))


def _truncate(content: bytearray, rng: np.random.Generator) -> None:
    del content[int(rng.integers(len(content) // 4, len(content))) :]


def _flips(content: bytearray, rng: np.random.Generator) -> None:
    flip_bytes(content, rng, int(rng.integers(1, 10)))


def _garbage(content: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(content) // 4, len(content)))
    content[at:at] = rng.bytes(int(rng.integers(1, 600)))


def _hole(content: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(content) // 4, len(content)))
    del content[at : at + int(rng.integers(1, 600))]


def _block(content: bytearray, rng: np.random.Generator) -> None:
    """A sector of zeros, as a card that dies gives."""
    at = int(rng.integers(0, len(content)))
    content[at : at + 512] = bytes(len(content[at : at + 512]))


def _datagrams(content: bytearray, rng: np.random.Generator) -> None:
    """Datagrams of an MPEG-TS, of which a network loses, doubles and reorders some."""
    length = 188 * int(rng.integers(1, 8))
    sent = [bytes(content[at : at + length]) for at in range(0, len(content), length)]
    come: list[bytes] = []
    for it in sent:
        what = rng.random()
        if what < 0.05:
            continue
        come.insert(max(0, len(come) - int(rng.integers(1, 3))) if what < 0.1 else len(come), it)
        if what > 0.95:
            come.append(it)
    content[:] = b"".join(come)


_BYTES: dict[str, Callable[[bytearray, np.random.Generator], None]] = {
    "truncated": _truncate,
    "flips": _flips,
    "garbage": _garbage,
    "hole": _hole,
    "block": _block,
    "datagrams": _datagrams,
}
