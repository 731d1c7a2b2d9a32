"""Films of every kind that a camera sends, and runs that record them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import msgpack
import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import protobuf
from flowrun.runtime import Log
from flowrun.runtime.pictures.planar import kept
from support import helpers

FRAMES = 24
KEY_EVERY = 8
_PIXEL_FORMATS = {
    "mjpeg": "yuvj420p",
    "rawvideo": "yuyv422",
    "png": "rgb24",
    "libx264rgb": "rgb24",
}


def draw(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = FRAMES,
    moves: bool = True,
    size: tuple[int, int] = (128, 96),
    **options: str,
) -> Path:
    """A film of moving noise, which no codec here gives back as it was drawn.

    moves: False for other noise in each frame, which compresses badly.
    """
    width, height = size
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (height, width, 3), np.uint8)
    with _same_scheduling(), av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = _PIXEL_FORMATS.get(codec, "yuv420p")
        stream.gop_size = KEY_EVERY
        if codec.startswith("libvpx"):
            stream.thread_count = 1  # on a busy machine its threads may wait for ever
        for k in range(frames):
            if not moves:
                noise = rng.integers(0, 255, (height, width, 3), np.uint8)
            pixels = np.roll(noise, 5 * k, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@contextmanager
def _same_scheduling() -> Iterator[None]:
    """Where it may, SVT-AV1 makes its caller a real-time process of the highest priority, and so all
    that this one starts: every other program on the machine then waits for them, the disk's too."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


FILMS: dict[str, dict[str, Any]] = {
    "plain.mp4": {"bf": "0"},
    "b_frames.mp4": {"x264-params": "b-adapt=0:bframes=3:b-pyramid=none"},
    "open_gop.mp4": {"x264-params": "b-adapt=0:bframes=2:open-gop=1"},
    "start_codes.ts": {"bf": "0"},
    "h265.mp4": {"codec": "libx265", "x265-params": "log-level=none:bframes=2"},
    "vp9.webm": {"codec": "libvpx-vp9", "deadline": "realtime", "auto-alt-ref": "1"},
    "av1.mp4": {"codec": "libsvtav1", "preset": "12"},
    "jpegs.avi": {"codec": "mjpeg"},
    "yuyv.avi": {"codec": "rawvideo"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "png.mov": {"codec": "png"},
}


def recorded(tmp_path: Path, film: Path, config: str = "", codec: str = "packets") -> Path:
    """A run of one film through two cameras; what `b` saw is in the log as raw pixels."""
    shared = f"VideoCapture(source_uri: {film}{config})"
    plan = helpers.plan_of(
        tmp_path,
        f"a={shared}@logging: {{codec: {codec}}}; b={shared}@logging: {{codec: raw}}",
        more="logging: {slab_size_mib: 8, section_size_mib: 1}",
    )
    _, result = helpers.record(plan, tmp_path / "run")
    assert result.error is None, result.error
    return tmp_path / "run"


def pictures(log: Log, topic: str) -> list[NDArray[np.uint8]]:
    return [frame.pixels for frame in log.frames(topic)]


def pixels_of(decoded: Any) -> NDArray[np.uint8]:
    """The pixels of a decoded `av.VideoFrame`."""
    found = kept(decoded)
    return found if isinstance(found, np.ndarray) else found.made()


def decoded(form: str, packets: list[bytes], color: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """The pictures of packets in order, as a viewer's decoder gives them that knows nothing before."""
    decoder: Any = av.CodecContext.create({"h265": "hevc", "av1": "libdav1d"}.get(form, form), "r")
    decoder.thread_type = "SLICE"
    made = []
    for data in [*packets, None]:
        packet = None
        if data is not None:
            packet = av.Packet(len(data))
            packet.update(data)
        for picture in decoder.decode(packet):
            picture.colorspace, picture.color_range = color
            made.append(pixels_of(picture))
    return made


def codecs(log: Log, topic: str) -> list[str]:
    own = []
    for message in log.messages(topic):
        fields = dict(protobuf.fields(message.payload))
        own.append(msgpack.unpackb(fields[1000])["codec"])
    return own
