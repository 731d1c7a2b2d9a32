"""A file of vectors: a row of float32 numbers for each, which is mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Vectors", "best_first"]

_FLOAT = np.dtype("<f4")


class Vectors:
    """The vectors in the file at `path`, which need not be there; `OSError` where it cannot be read or
    written. The file does not say how many numbers a vector has: `dimension` does, which is 0 as long
    as nobody knows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapped: NDArray[np.float32] | None = None

    def count(self, dimension: int) -> int:
        """Number of whole rows."""
        return self._size() // (dimension * _FLOAT.itemsize) if dimension else 0

    def append(self, vectors: NDArray[np.float32]) -> range:
        """Write vectors at the end, float32 (N, D), to the disk; gives their rows."""
        row_size = vectors.shape[1] * _FLOAT.itemsize
        with self.path.open("ab") as file:
            first = file.tell() // row_size
            file.write(np.ascontiguousarray(vectors, _FLOAT).tobytes())
            file.flush()
            os.fdatasync(file.fileno())
        return range(first, first + len(vectors))

    def cut(self, rows: int, dimension: int) -> None:
        """Keep that many rows, and nothing of one that was torn."""
        size = rows * dimension * _FLOAT.itemsize
        if self._size() not in (0, size):
            os.truncate(self.path, size)

    def mapped(self, dimension: int) -> NDArray[np.float32]:
        """All of them, as they were when this was called first; float32 (N, D), not to be written."""
        if self._mapped is None:
            rows = self.count(dimension)
            if not rows:
                return np.empty((0, 1), np.float32)
            self._mapped = np.memmap(self.path, _FLOAT, mode="r", shape=(rows, dimension))
        return self._mapped

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


def best_first(scores: NDArray[np.float32], count: int) -> Iterator[int]:
    """The places of the scores, the best first; sorts no more than are asked for."""
    given = 0
    while given < len(scores):
        upto = min(len(scores), max(2 * count, 4 * given, 64))
        places = np.argpartition(-scores, upto - 1)[:upto]
        ordered = places[np.lexsort((places, -scores[places]))]
        yield from ordered[given:].tolist()
        given = upto
