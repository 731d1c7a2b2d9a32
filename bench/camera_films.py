"""Films as a street camera sends them, drawn once and kept in `bench/.films`, which git ignores.

A scene with fine texture that sways as on a mast in the wind, the noise of a sensor, and things that
drive through; H.264 at a camera's bit rate, no B-frames, and every two seconds a key frame that has the
bits of some ten others: of 1080p some 120 KB.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

__all__ = ["FPS", "SIZES", "film_of", "long_film", "mbits", "phased_films"]

_Packet = tuple[bytes, bool]
"""The bytes of a packet, and whether it is a key frame."""

FPS = 30
KEY_EVERY = 2 * FPS
SIZES = {"1080p": (1920, 1080, 3_500_000), "480p": (640, 480, 1_000_000)}
"""Width, height and bits a second of each size."""

_FOLDER = Path(__file__).parent / ".films"


def film_of(size: str, frames: int, *, key_every: int = KEY_EVERY) -> Path:
    """A film of `frames` pictures, drawn if it is not there yet. key_every: from one key frame to the
    next."""
    other = "" if key_every == KEY_EVERY else f"-{key_every}"
    path = _FOLDER / f"street-{size}-{frames}{other}.mp4"
    if not path.exists():
        _FOLDER.mkdir(exist_ok=True)
        unfinished = path.with_name(f"{path.stem}.{os.getpid()}.mp4")
        _draw(unfinished, size, frames, key_every)
        unfinished.replace(path)
    return path


def long_film(film: Path, path: Path, seconds: float) -> Path:
    """The packets of `film` again and again for `seconds`: what a server plays that cannot loop."""
    count = round(seconds * FPS)
    return _copied(
        film, path, lambda whole: [whole[number % len(whole)] for number in range(count)]
    )


def phased_films(film: Path, count: int, folder: Path) -> list[Path]:
    """Copies of `film` for cameras that are not in step: of each, another number of pictures follow the
    first key frame, so that those who begin at once do not have the next one at once."""

    def shortened(number: int) -> Path:
        left = 1 + number * (KEY_EVERY - 1) // count
        path = folder / f"phase-{number}.mp4"
        return _copied(film, path, lambda whole: whole[:left] + whole[KEY_EVERY:])

    return [shortened(number) for number in range(count)]


def _copied(film: Path, path: Path, choose: Callable[[list[_Packet]], list[_Packet]]) -> Path:
    """A film of some of the packets of `film`, at its rate."""
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        [stream] = source.streams.video
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.dts is not None]
        step = Fraction(1, FPS) / stream.time_base
        for number, chosen in enumerate(choose([(bytes(it), it.is_keyframe) for it in packets])):
            data, is_key = chosen
            packet = av.Packet(data)
            packet.stream, packet.time_base = copy, stream.time_base
            packet.pts = packet.dts = int(number * step)
            packet.is_keyframe = is_key
            target.mux(packet)
    return path


def mbits(film: Path) -> float:
    """Megabits a second of the film's pictures."""
    with av.open(str(film)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.dts is not None]
    return 8e-6 * FPS * sum(sizes) / len(sizes)


def _draw(path: Path, size: str, frames: int, key_every: int) -> None:
    width, height, bit_rate = SIZES[size]
    rng = np.random.default_rng(0)
    scene = _scene(rng, width, height)
    noises = [rng.normal(0, 4, (height, width)).astype(np.int16) for _ in range(8)]
    cars = [
        (int(rng.integers(height // 2, height - height // 8)), int(rng.integers(3, 12)), tint)
        for tint in ((60, 90, 170), (200, 110, 120), (120, 170, 100))
    ]
    options = {
        "preset": "veryfast",
        "bf": "0",
        "x264-params": "scenecut=0:slices=1:sliced-threads=0:ipratio=1.0",
    }
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate, stream.gop_size = bit_rate, key_every
        for k in range(frames):
            planes = scene.copy()
            sway = round(6 * np.sin(k / 7)), round(9 * np.sin(k / 11))
            planes[:height] = np.roll(scene[:height], sway, axis=(0, 1))
            for top, speed, tint in cars:
                _drive(planes, width, height, (top, k * speed % width), tint)
            luma = planes[:height].astype(np.int16) + noises[k % 8]
            planes[:height] = luma.clip(16, 235)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))


def _scene(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Planes u8[3/2 * height, width]: a gradient with texture and some colour."""
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    ramp = np.linspace(60, 180, height)[:, None] + np.linspace(-20, 20, width)[None, :]
    texture = np.kron(rng.normal(0, 4, (height // 4 + 1, width // 4 + 1)), np.ones((4, 4)))[
        :height, :width
    ]
    planes[:height] = (ramp + texture).clip(16, 235)
    chroma = np.linspace(110, 150, planes[height:].size).reshape(planes[height:].shape)
    planes[height:] = chroma
    return planes


def _drive(
    planes: np.ndarray,
    width: int,
    height: int,
    place: tuple[int, int],
    tint: tuple[int, int, int],
) -> None:
    """Paint a car whose upper left corner is at `place` (row, column)."""
    top, left = place[0] // 2 * 2, place[1] // 2 * 2
    tall, long = height // 8 // 2 * 2, width // 8 // 2 * 2
    right = min(left + long, width)
    planes[top : top + tall, left:right] = tint[0]
    for index, value in enumerate(tint[1:]):
        plane = planes[height + index * height // 4 : height + (index + 1) * height // 4]
        half = plane.reshape(height // 2, width // 2)
        half[top // 2 : (top + tall) // 2, left // 2 : right // 2] = value
