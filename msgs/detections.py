"""The objects that were found in a picture."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.fields import Measured, MessageTypeError, Shape
from flowrun.msgs.message import Message

__all__ = ["DetectionsMsg"]


class DetectionsMsg(Message):
    """The objects that were found in one frame, none included; `tov_ns` is the frame's time.

    Entry k of `boxes`, `scores`, `labels` and `class_ids` is about object k; a published message has
    the same number of each.

    boxes: float32 of shape (N, 4): left, top, right, bottom (xyxy) in pixels of the frame, whose
        upper left corner is (0, 0) and whose lower right one is (width, height).
    scores: float32 of shape (N,), from 0 to 1; NaN where the model gives none, such as one that
        answers in text.
    labels: N names of classes.
    class_ids: int32 of shape (N,): the model's own numbers of these classes, -1 where it has none.
    width, height: size of the frame in pixels.
    frame_id: `ImageRgb8Msg.frame_id` of the frame.
    frame_cycle: the cycle in which the frame was taken.
    latency_ms: wall time from the call of the model to its answer.
    """

    boxes: Annotated[NDArray[np.float32], Shape("N 4")]
    scores: Annotated[NDArray[np.float32], Shape("N")]
    labels: list[str]
    class_ids: Annotated[NDArray[np.int32], Shape("N")]
    width: int
    height: int
    frame_id: int
    frame_cycle: int
    latency_ms: Measured[float]

    @property
    def count(self) -> int:
        """The number of objects."""
        return len(self.labels)

    def check_fields(self) -> None:
        super().check_fields()
        lengths = {
            name: len(self.__dict__[name]) for name in ("boxes", "scores", "labels", "class_ids")
        }
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise MessageTypeError(
                f"{type(self).__name__}: every object has one box, score, label and class id; "
                f"got {shown}"
            )
