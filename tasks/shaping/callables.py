"""`PythonCallable`: a function that knows nothing of flowrun, called on each picture."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from flowrun.msgs.basic import FloatMsg, TextMsg, ValuesMsg
from flowrun.msgs.detections import DetectionsMsg
from flowrun.msgs.image import ImageRgb8Msg
from flowrun.runtime.errors import UsageError, WrongReturnError
from flowrun.runtime.graph.find import dotted, find_callable, why_not_called
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.runtime.wording import with_article

__all__ = ["PythonCallable"]

_RETURNS = (
    "a dict, a text, a number, a picture (uint8 of shape (H, W, 3)), detections (DetectionsMsg, or "
    "those of supervision), a tuple of these, or None"
)


class PythonCallable(Task):
    """Call a Python function on each picture: `callable: my_module:infer`.

    The function gets the pixels, a NumPy array of uint8 (height, width, 3), RGB, which it may not write
    to; with `takes: bgr` a copy of its own in the order of OpenCV's colours; with `takes: message` the
    `ImageRgb8Msg`. What it returns says on which output it is published:

    - a dict on `result`, a text on `text`, a number (or a bool) on `number`;
    - a uint8 array (height, width, 3) on `picture`; of colours in the order of those that it gets;
    - a `DetectionsMsg`, or the `Detections` of supervision, on `detections`;
    - each item of a tuple on its own; None on none.

    A class is made once, at the start, and its object is called. What it remembers from one picture to
    the next is not in the log: a replay of a whole run gives the same, one from the middle may not. A
    function of messages needs none of this: name it as the task's type, `type: my_module.infer`.
    """

    class Config(TaskConfig):
        callable: Annotated[str, Field(min_length=1)]
        """The function, or a class whose objects are called: module:name, from the graph's folder or
        Python's module path."""
        arguments: dict[str, Any] = Field(default={})
        """Keyword arguments: of the function at each call; of a class when it is made."""
        takes: Literal["pixels", "bgr", "message"] = "pixels"
        """What it gets: an array of RGB, one of BGR as OpenCV's functions take and return it, or the
        message."""
        external: bool = False
        """Whether what it returns comes from outside the run, such as a server, or differs from one time
        to the next: a replay then takes it from the log."""

    example_config = MappingProxyType({"callable": "my_module:infer"})

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        try:
            found = find_callable(config.callable, folder=graph_dir)
        except UsageError as error:
            yield "callable", str(error)
            return
        is_class = inspect.isclass(found)
        what = "made" if is_class else "called with a picture"
        why = why_not_called(found, *(() if is_class else (None,)), **config.arguments)
        if why is not None:
            key = "arguments" if config.arguments else "callable"
            yield key, f"{config.callable!r} cannot be {what}: {why}"

    @classmethod
    def is_external(cls, config: TaskConfig) -> bool:
        assert isinstance(config, cls.Config)
        return config.external

    @classmethod
    def code(cls, config: TaskConfig) -> Iterator[str]:
        assert isinstance(config, cls.Config)
        yield dotted(config.callable).rpartition(".")[0]

    def start(self, ctx: Context) -> None:
        found = find_callable(self.config.callable, folder=ctx.graph_dir)
        self._called: Callable[..., Any] = found
        self._arguments = self.config.arguments
        if inspect.isclass(found):
            made: Any = found(**self._arguments)
            self._called, self._arguments = made, {}

    def process(
        self,
        ctx: Context,
        image: Input[ImageRgb8Msg],
        result: Output[ValuesMsg],
        text: Output[TextMsg],
        number: Output[FloatMsg],
        picture: Output[ImageRgb8Msg],
        detections: Output[DetectionsMsg],
    ) -> None:
        is_bgr = self.config.takes == "bgr"
        given: Any = image if self.config.takes == "message" else image.pixels
        if is_bgr:
            given = np.array(given[..., ::-1], order="C")
        returned = self._called(given, **self._arguments)
        for item in returned if isinstance(returned, tuple) else (returned,):
            if item is None:
                continue
            if isinstance(item, dict):
                result.value = item
                result.publish(tov_ns=image.tov_ns)
            elif isinstance(item, str):
                text.value = item
                text.publish(tov_ns=image.tov_ns)
            elif isinstance(item, (bool, int, float, np.bool_, np.number)):
                number.value = float(item)
                number.publish(tov_ns=image.tov_ns)
            elif isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.shape[2:] == (3,):
                picture.pixels = item[..., ::-1] if is_bgr else item
                picture.describe_as(image)
                picture.publish(tov_ns=image.tov_ns)
            elif isinstance(item, DetectionsMsg):
                detections.fill(item)
                _publish_found(ctx, image, detections)
            elif type(item).__name__ == "Detections" and hasattr(item, "xyxy"):
                detections.fill(DetectionsMsg.from_supervision(item))
                _publish_found(ctx, image, detections)
            else:
                said = f"{self.config.callable} returned {with_article(type(item).__name__)}"
                raise WrongReturnError(self._called, f"{said}; it may return {_RETURNS}")


def _publish_found(ctx: Context, image: ImageRgb8Msg, detections: DetectionsMsg) -> None:
    detections.width, detections.height = image.width, image.height
    detections.frame_id, detections.frame_cycle = image.frame_id, ctx.cycle
    detections.publish(tov_ns=image.tov_ns)
