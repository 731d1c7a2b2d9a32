"""`Resize`: pictures in another size."""

from __future__ import annotations

from types import MappingProxyType

from pydantic import PositiveInt, model_validator

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.tasks.shaping.fitting import Color, Fit, fitted

__all__ = ["Resize"]


class Resize(Task):
    """Give each picture another size.

    With `width` or `height` alone, the other follows, and the picture keeps its shape. Made smaller,
    a pixel is the mean of those around it. A video is scaled before it is converted to RGB, so that its
    full size is never made. A picture that has the size already is passed on as it is.
    """

    class Config(TaskConfig):
        width: PositiveInt | None = None
        """In pixels; null: as `height` says."""
        height: PositiveInt | None = None
        """In pixels; null: as `width` says."""
        fit: Fit = "stretch"
        """Where both are given. stretch: all of the picture, and `pixel_aspect` says how wide its pixels
        are then; letterbox: all of it, with bars; cover: cut at two edges. The last two make pixels
        square."""
        color: Color = (0, 0, 0)
        """Red, green and blue of the bars, from 0 to 255."""

        @model_validator(mode="after")
        def _has_a_size(self) -> Resize.Config:
            if self.width is None and self.height is None:
                raise ValueError("give 'width', 'height' or both")
            if self.fit != "stretch" and None in (self.width, self.height):
                raise ValueError(f"fit: {self.fit} needs 'width' and 'height'")
            return self

    example_config = MappingProxyType({"width": 640})

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], resized: Output[ImageRgb8Msg]
    ) -> None:
        del ctx
        config = self.config
        width, height = self._size(image)
        is_square = config.fit == "stretch" or image.pixel_aspect == 1
        if (width, height) == (image.width, image.height) and is_square:
            resized.fill(image)
        else:
            pixels = fitted(image, width, height, config.fit, color=config.color)
            resized.hand_over("pixels", pixels)
        resized.describe_as(image)
        if config.fit != "stretch":
            resized.pixel_aspect = 1.0
        elif None not in (config.width, config.height):
            # The picture is shown as wide as before.
            resized.pixel_aspect *= (image.width * height) / (image.height * width)
        resized.publish(tov_ns=image.tov_ns)

    def _size(self, image: ImageRgb8Msg) -> tuple[int, int]:
        width, height = self.config.width, self.config.height
        if width is None:
            assert height is not None
            return max(round(image.width * height / image.height), 1), height
        return width, height or max(round(image.height * width / image.width), 1)
