"""Frames that look like the last one that was answered, and so need no answer of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.image import ImageRgb8Msg

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["SimilarFrames"]

_CELLS = 32


class SimilarFrames:
    """Compares the mean colours of frames on a grid of cells, so that noise evens out and a small
    object that moves does not: the cell that differs most decides."""

    def __init__(self) -> None:
        self._answered: tuple[list[Any], NDArray[np.int16]] | None = None
        self._looked_at: tuple[list[Any], NDArray[np.int16]] | None = None
        self._skipped = 0
        self._first_skipped = self._last_skipped = 0

    def skips(self, image: ImageRgb8Msg, asked: list[Any], cycle: int, *, limit: float) -> bool:
        """Whether to leave out the frame of `cycle`.

        asked: what else decides about the answer; if it differs from what was asked last, the frame
            is not left out.
        limit: the smallest difference of a cell, of 255, that makes a frame another one.
        """
        cells = image.resized(_CELLS, _CELLS).astype(np.int16)
        self._looked_at = asked, cells
        if self._answered is None or self._answered[0] != asked:
            return False
        if np.abs(cells - self._answered[1]).max() >= limit:
            return False
        if not self._skipped:
            self._first_skipped = cycle
        self._skipped += 1
        self._last_skipped = cycle
        return True

    def answered(self) -> None:
        """The frame that `skips` looked at last has been answered."""
        self._answered = self._looked_at

    def report_to(self, log: FilteringBoundLogger) -> None:
        """Log which frames have been left out since the last call, if any, in one line."""
        if self._skipped:
            log.info(
                "similar frames skipped",
                frames=self._skipped,
                first_cycle=self._first_skipped,
                last_cycle=self._last_skipped,
            )
            self._skipped = 0

    def freeze(self) -> dict[str, Any] | None:
        """The frame that others are compared with."""
        if self._answered is None:
            return None
        asked, cells = self._answered
        return {"asked": asked, "cells": cells.astype("<i2").tobytes()}

    def thaw(self, state: dict[str, Any] | None) -> None:
        """Take up what `freeze` gave."""
        self._answered = None
        if state is not None:
            cells = np.frombuffer(state["cells"], "<i2").reshape(_CELLS, _CELLS, 3)
            self._answered = list(state["asked"]), cells.astype(np.int16)
