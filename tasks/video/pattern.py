"""`source_type: test`: pictures drawn here, the same ones every run.

Coloured tiles, which the seed decides, and below them a marker that moves, the picture's number, and the
time since the first one. Each picture is a PNG, so that a log keeps a few kilobytes of it and gives back
each pixel. Only what changes is compressed again, two fifths of the picture, which takes 2 ms of CPU
time at 640x480 and 12 ms at 1920x1080.
"""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.tasks.video.settings import VideoSettings, exact_rate
from flowrun.tasks.video.stills import Stills, StillStream

__all__ = ["GLYPHS", "Pattern", "open_pattern"]

_SIZE = (640, 480)
_FPS = 30
_TILES = (8, 6)
_CELL = (6, 8)
"""Width and height of a character, with the gap to the next, in dots."""
_BAND = 24
"""Height of what changes, in dots: the marker, and two lines of text."""
_MARKER = 4
_INK, _PAPER, _MARK = (255, 255, 255), (0, 0, 0), (255, 200, 0)
_UP = 2
"""PNG's filter: each row holds the differences to the one above."""

# fmt: off
GLYPHS = {
    "0": (14, 17, 19, 21, 25, 17, 14), "1": (4, 12, 4, 4, 4, 4, 14), "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14), "4": (2, 6, 10, 18, 31, 2, 2), "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14), "7": (31, 1, 2, 4, 8, 8, 8), "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12), ":": (0, 4, 4, 0, 4, 4, 0), ".": (0, 0, 0, 0, 0, 4, 4),
}
"""Rows of five dots, the highest bit on the left."""
# fmt: on


def open_pattern(config: VideoSettings) -> Pattern:
    """The container of the test pattern that `config` describes, which has no end."""
    import av

    width, height = (config.width, config.height) if config.width and config.height else _SIZE
    context: Any = av.CodecContext.create("png", "r")
    context.width, context.height, context.pix_fmt = width, height, "rgb24"
    rate = exact_rate(config.fps or _FPS)
    return Pattern(StillStream(context, rate), (width, height), config.seed)


class Pattern(Stills):
    """size: width and height in pixels."""

    def __init__(self, stream: StillStream, size: tuple[int, int], seed: int) -> None:
        super().__init__(stream)
        width, height = size
        self._dot = max(1, min(width // 80, height // 60))
        """The side of a dot, in pixels."""
        band = min(height, _BAND * self._dot)
        self._tiles = _tiles(width, height - band, seed)
        self._band: NDArray[np.uint8] = np.zeros((band, width, 3), np.uint8)
        self._header = b"\x89PNG\r\n\x1a\n" + _chunk(
            b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        )
        rows = _filtered(self._tiles, np.zeros((width, 3), np.uint8))
        pack = zlib.compressobj(9)
        self._begin = pack.compress(rows) + pack.flush(zlib.Z_FULL_FLUSH)
        self._sum = zlib.adler32(rows)

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """Picture `number`: (height, width, 3), RGB."""
        self._draw(number)
        return np.concatenate((self._tiles, self._band))

    def _data(self, number: int) -> bytes | None:
        if self._interrupted.is_set():
            return None
        self._draw(number)
        above = self._tiles[-1] if len(self._tiles) else np.zeros_like(self._band[0])
        rows = _filtered(self._band, above)
        pack = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
        end = pack.compress(rows) + pack.flush()
        checksum = struct.pack(">I", zlib.adler32(rows, self._sum))
        image = _chunk(b"IDAT", self._begin + end + checksum)
        return self._header + image + _chunk(b"IEND", b"")

    def _draw(self, number: int) -> None:
        dot, width = self._dot, self._band.shape[1]
        self._band[:] = _PAPER
        at = number * dot % width
        self._band[: _MARKER * dot, at : at + _MARKER * dot] = _MARK
        milliseconds = int(number * 1000 / self._stream.average_rate)
        seconds, milliseconds = divmod(milliseconds, 1000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"
        for line, text in enumerate((f"{number:06}", clock)):
            top = (_MARKER + 1 + line * (_CELL[1] + 1)) * dot
            ink = np.kron(_written(text), np.ones((dot, dot), bool))
            place = self._band[top : top + len(ink), dot : dot + ink.shape[1]]
            place[ink[: place.shape[0], : place.shape[1]]] = _INK


def _written(text: str) -> NDArray[np.bool_]:
    """The dots of a line of text."""
    width, height = _CELL
    dots = np.zeros((height, width * len(text)), bool)
    for i, letter in enumerate(text):
        for y, row in enumerate(GLYPHS[letter]):
            for x in range(5):
                dots[y, i * width + x] = row >> (4 - x) & 1
    return dots


def _tiles(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    columns, rows = _TILES
    colors = random.Random(seed).randbytes(3 * columns * rows)  # noqa: S311  # no secret
    grid = np.frombuffer(colors, np.uint8).reshape(rows, columns, 3)
    y = np.arange(height) * rows // max(1, height)
    x = np.arange(width) * columns // width
    return grid[y][:, x]


def _filtered(pixels: NDArray[np.uint8], above: NDArray[np.uint8]) -> bytes:
    """The rows of a PNG. above: the row above the first one."""
    height = len(pixels)
    rows = np.empty((height, 1 + pixels.shape[1] * 3), np.uint8)
    rows[:, 0] = _UP
    flat = pixels.reshape(height, pixels.shape[1] * 3)
    if height:
        rows[0, 1:] = flat[0] - above.reshape(-1)
        rows[1:, 1:] = flat[1:] - flat[:-1]
    return rows.tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
