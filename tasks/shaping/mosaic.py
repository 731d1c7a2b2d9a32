"""`Mosaic`: several cameras in one picture."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.labels import label_patch
from flowrun.tasks.named_inputs import InputNames
from flowrun.tasks.shaping.fitting import Color, fitted

__all__ = ["Mosaic"]

_NS_PER_S = 1_000_000_000
_LABEL = (40, 40, 40)
_SMALLEST_TEXT_PX = 11


class Mosaic(Task):
    """Show several cameras in one picture, in a grid: row by row, in the order of `inputs`.

    For each name of `inputs` there is an input of that name. A picture is made in each cycle in which
    one of them gives one, with the newest picture of each other one, as long as it is not older than
    `max_age_s`. Each fills its part of the grid as far as it goes, undistorted. The time of the mosaic
    is the latest of those that came; `frame_id` counts mosaics from 0.
    """

    class Config(TaskConfig):
        inputs: InputNames
        """The names of the cameras: letters, digits and '_'."""
        width: PositiveInt = 1280
        """Of the whole picture, in pixels."""
        height: PositiveInt = 720
        """Of the whole picture, in pixels."""
        columns: PositiveInt | None = None
        """How many pictures a row has; null: as many as there are rows, or one more."""
        labels: bool = True
        """Write its name on each picture."""
        gap_px: NonNegativeInt = 2
        """Between two pictures."""
        color: Color = (0, 0, 0)
        """Red, green and blue of what no picture covers, from 0 to 255."""
        max_age_s: Live[PositiveFloat | None] = 2.0
        """How long the last picture of a camera that gives none stays; then its part is empty. null: for
        ever."""

        @property
        def grid(self) -> tuple[int, int]:
            """Columns and rows."""
            columns = self.columns or math.ceil(math.sqrt(len(self.inputs)))
            columns = min(columns, len(self.inputs))
            return columns, -(-len(self.inputs) // columns)

        @model_validator(mode="after")
        def _has_room(self) -> Mosaic.Config:
            columns, rows = self.grid
            wide, high = (columns - 1) * self.gap_px + columns, (rows - 1) * self.gap_px + rows
            if self.width < wide or self.height < high:
                raise ValueError(
                    f"{columns} columns and {rows} rows with gaps of {self.gap_px} pixels need at least "
                    f"{wide}x{high} pixels; got {self.width}x{self.height}"
                )
            return self

    example_config = MappingProxyType({"inputs": ["front", "back"]})

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._tiles: list[tuple[int, NDArray[np.uint8]] | None] = [None] * len(self.config.inputs)
        """Of each camera, the time of its last picture, and what is shown of it."""
        self._made = 0

    def process(
        self,
        ctx: Context,
        mosaic: Output[ImageRgb8Msg],
        *images: Input[ImageRgb8Msg] | None,
    ) -> None:
        came = [image for image in images if image is not None]
        if not came:
            return
        config = self.config
        places = [self._place(at) for at in range(len(config.inputs))]
        for at, image in enumerate(images):
            if image is not None and image.width and image.height:
                _, _, width, height = places[at]
                tile = fitted(image, width, height, "letterbox", color=config.color)
                self._tiles[at] = image.tov_ns, tile
        tov_ns = max(image.tov_ns for image in came)
        pixels = mosaic.allocate_pixels(config.height, config.width)
        pixels[...] = config.color
        for name, (left, top, width, height), kept in zip(
            config.inputs, places, self._tiles, strict=True
        ):
            part = pixels[top : top + height, left : left + width]
            if kept is not None and self._is_shown(kept[0], tov_ns):
                part[...] = kept[1]
            if config.labels:
                patch = label_patch(name, _LABEL, max(_SMALLEST_TEXT_PX, height // 18))
                corner = part[: patch.shape[0], : patch.shape[1]]
                corner[...] = patch[: corner.shape[0], : corner.shape[1]]
        mosaic.frame_id, mosaic.source = self._made, ctx.task_id
        mosaic.fps = max(image.fps for image in came)
        mosaic.publish(tov_ns=tov_ns)
        self._made += 1

    def _is_shown(self, of_ns: int, now_ns: int) -> bool:
        limit = self.config.max_age_s
        return limit is None or abs(now_ns - of_ns) <= limit * _NS_PER_S

    def _place(self, at: int) -> tuple[int, int, int, int]:
        """Left, top, width and height of the part of a camera."""
        columns, rows = self.config.grid
        row, column = divmod(at, columns)
        left, width = _part(self.config.width, self.config.gap_px, columns, column)
        top, height = _part(self.config.height, self.config.gap_px, rows, row)
        return left, top, width, height

    def freeze(self) -> Any:
        return {"made": self._made, "tiles": [None if it is None else [*it] for it in self._tiles]}

    def thaw(self, state: Any) -> None:
        self._made = state["made"]
        self._tiles = [None if it is None else (it[0], it[1]) for it in state["tiles"]]


def _part(length: int, gap: int, count: int, at: int) -> tuple[int, int]:
    """Where one of `count` parts of a line begins, and how long it is: the pixels that are left go to
    the first ones."""
    each, more = divmod(length - (count - 1) * gap, count)
    return at * (each + gap) + min(at, more), each + (at < more)
