"""What cameras and encoders do to a picture before a model sees it.

`TROUBLES` names each on its own, to measure how the model bears it; `worsen` mixes them for training.
All are functions of a picture (RGB, uint8, height x width x 3) and of a random generator.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from flowrun.tasks.embedded.training.scenes import Frame

__all__ = ["TROUBLES", "reencode", "worsen"]

Rng = np.random.Generator


def worsen(pixels: Frame, rng: Rng) -> Frame:
    """Return `pixels` as they are (one in four), or after one to three troubles."""
    if rng.random() < 0.25:
        return pixels
    names = sorted(rng.choice(len(_MIXED), int(rng.integers(1, 4)), replace=False))
    for name in names:
        pixels = _MIXED[name](pixels, rng)
    return pixels


def reencode(frames: Sequence[Frame], *, crf: int, preset: str) -> list[Frame]:
    """Return `frames` (one size, even sides) encoded with libx264 and decoded again."""
    height, width = frames[0].shape[:2]
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate, encoder.thread_count = 10, 1
    encoder.options = {"crf": str(crf), "preset": preset}
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    packets = [p for f in frames for p in encoder.encode(av.VideoFrame.from_ndarray(f))]
    packets += encoder.encode(None)
    decoded = [f for p in packets for f in decoder.decode(p)] + list(decoder.decode(None))
    return [frame.to_ndarray(format="rgb24") for frame in decoded]


def _expose(pixels: Frame, rng: Rng, *, gains: tuple[float, float] = (0.5, 1.2)) -> Frame:
    gain, gamma = rng.uniform(*gains), rng.uniform(0.8, 1.25)
    return _bytes(255 * np.clip(gain * pixels / 255.0, 0, 1) ** gamma)


def _dark(pixels: Frame, rng: Rng) -> Frame:
    return _expose(pixels, rng, gains=(0.45, 0.6))


def _bright(pixels: Frame, rng: Rng) -> Frame:
    return _expose(pixels, rng, gains=(1.15, 1.25))


def _cast(pixels: Frame, rng: Rng) -> Frame:
    """A white balance that is a little off."""
    return _bytes(pixels * rng.uniform(0.88, 1.1, 3))


def _uneven(pixels: Frame, rng: Rng) -> Frame:
    """Light from one side, and corners that a lens darkens."""
    height, width = pixels.shape[:2]
    angle = rng.uniform(0, 2 * math.pi)
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = 1 + rng.uniform(0, 0.3) * (xs * math.cos(angle) + ys * math.sin(angle))
    light = light * (1 - rng.uniform(0, 0.25) * (xs * xs + ys * ys) / 2)
    return _bytes(pixels * np.clip(light, 0.55, 1.2)[:, :, None])


def _blur(pixels: Frame, rng: Rng) -> Frame:
    """Out of focus, by up to a fiftieth of the frame."""
    radius = rng.uniform(0.004, 0.02) * max(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _shake(pixels: Frame, rng: Rng) -> Frame:
    """Moved by up to a twenty-fifth of the frame while the shutter was open."""
    length = max(2, round(rng.uniform(0.01, 0.04) * max(pixels.shape[:2])))
    angle = rng.uniform(0, math.pi)
    total = np.zeros(pixels.shape, dtype=np.float32)
    for step in range(length):
        way = step - (length - 1) / 2
        shift = (round(way * math.sin(angle)), round(way * math.cos(angle)))
        total += _shifted(pixels, *shift)
    return _bytes(total / length)


def _shifted(pixels: Frame, down: int, right: int) -> Frame:
    height, width = pixels.shape[:2]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    shifted: Frame = pixels[rows][:, columns]
    return shifted


def _noise(pixels: Frame, rng: Rng) -> Frame:
    sigma = rng.uniform(4, 22)
    return _bytes(pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * sigma)


def _jpeg(pixels: Frame, rng: Rng, *, quality: tuple[int, int] = (15, 95)) -> Frame:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(rng.integers(*quality)))
    return np.asarray(Image.open(buffer))


def _poor_jpeg(pixels: Frame, rng: Rng) -> Frame:
    return _jpeg(pixels, rng, quality=(10, 25))


def _h264(pixels: Frame, rng: Rng) -> Frame:
    height, width = (side - side % 2 for side in pixels.shape[:2])
    even = np.ascontiguousarray(pixels[:height, :width])
    return reencode([even], crf=int(rng.integers(30, 40)), preset="superfast")[0]


def _resampled(pixels: Frame, rng: Rng) -> Frame:
    height, width = pixels.shape[:2]
    scale = rng.uniform(0.6, 1.5)
    size = (max(48, int(width * scale)), max(48, int(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _bytes(pixels: NDArray[Any]) -> Frame:
    rounded: Frame = np.clip(pixels, 0, 255).astype(np.uint8)
    return rounded


# In the order of the light's way: the scene, the lens, the sensor, the encoder.
_MIXED: tuple[Callable[[Frame, Rng], Frame], ...] = (
    _uneven,
    _blur,
    _shake,
    _expose,
    _cast,
    _noise,
    _resampled,
    _jpeg,
)
TROUBLES: dict[str, Callable[[Frame, Rng], Frame]] = {
    "dark": _dark,
    "bright": _bright,
    "colour cast": _cast,
    "uneven light": _uneven,
    "out of focus": _blur,
    "shaken": _shake,
    "sensor noise": _noise,
    "poor JPEG": _poor_jpeg,
    "poor H.264": _h264,
}
