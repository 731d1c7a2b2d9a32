"""The objects that were found in a picture."""

from __future__ import annotations

import importlib
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs.fields import Measured, MessageTypeError, Shape
from flowrun.msgs.message import Message

__all__ = ["DetectionsMsg", "TracksMsg"]

_CLASS_NAME = "class_name"
"""Where `sv.Detections.data` has the names of classes."""


class DetectionsMsg(Message):
    """The objects that were found in one frame, none included; `tov_ns` is the frame's time.

    Entry k of `boxes`, `scores`, `labels`, `class_ids` and `tracker_ids` is about object k; a published
    message has the same number of each, except that `tracker_ids` may be empty.

    boxes: float32 of shape (N, 4): left, top, right, bottom (xyxy) in pixels of the frame, whose
        upper left corner is (0, 0) and whose lower right one is (width, height). Finite; they may
        reach beyond the frame.
    scores: float32 of shape (N,), from 0 to 1; NaN where the model gives none, such as one that
        answers in text.
    labels: N names of classes.
    class_ids: int32 of shape (N,): the model's own numbers of these classes, -1 where it has none.
    width, height: size of the frame in pixels.
    frame_id: `ImageRgb8Msg.frame_id` of the frame.
    frame_cycle: the cycle in which the frame was taken.
    latency_ms: wall time from the call of the model to its answer.
    tracker_ids: int64 of shape (N,): the number by which a tracker knows the object from frame to
        frame, -1 where it has none (yet). Empty where nothing tracks them; see `TracksMsg`.
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
    tracker_ids: Annotated[NDArray[np.int64], Shape("N")]

    _may_lack: ClassVar[str] = "tracker_ids"
    """The field that may be empty though there are objects."""

    @property
    def count(self) -> int:
        """The number of objects."""
        return len(self.labels)

    def scale_to(self, width: int, height: int) -> tuple[float, float]:
        """By what x and y of the boxes become pixels of the picture in `width` x `height`. `ValueError`
        if there are objects, and the size of their frame is not known."""
        if self.count and not (self.width > 0 and self.height > 0):
            raise ValueError(
                f"objects of a frame of {self.width}x{self.height} pixels: the task that finds them "
                "must set width and height"
            )
        return width / max(self.width, 1), height / max(self.height, 1)

    def check_fields(self) -> None:
        super().check_fields()
        own = self.__dict__
        lengths = {
            name: len(own[name])
            for name in ("boxes", "scores", "labels", "class_ids", "tracker_ids")
            if name != self._may_lack or len(own[name])
        }
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise MessageTypeError(
                f"{type(self).__name__}: every object has one box, score, label and class id"
                f"{', and a tracker id if any has one' if 'tracker_ids' in lengths else ''}; "
                f"got {shown}"
            )
        if not np.isfinite(own["boxes"]).all():
            [number, *_] = np.flatnonzero(~np.isfinite(own["boxes"]).all(axis=1))
            raise MessageTypeError(
                f"{type(self).__name__}.boxes: expected finite numbers, got "
                f"{own['boxes'][number].tolist()} for object {number}"
            )

    def to_supervision(self) -> Any:
        """The objects as a `Detections` of the `supervision` package, with arrays of its own.

        `confidence`, `class_id` and `tracker_id` are None where no object has one, and the names of
        classes are `data["class_name"]`. `ModuleNotFoundError` says what to install.
        """
        try:
            sv = importlib.import_module("supervision")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{type(self).__name__}.to_supervision needs supervision: "
                "pip install 'flowrun-runtime[track]'"
            ) from error
        names: NDArray[Any] = np.array(self.labels, np.str_)
        if names.tolist() != self.labels:  # NumPy cuts NULs off the end
            names = np.array(self.labels, object)
        is_scored = self.count == 0 or not np.isnan(self.scores).all()
        is_numbered = self.count == 0 or bool((self.class_ids != -1).any())
        return sv.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy() if is_scored else None,
            class_id=self.class_ids.astype(np.int64) if is_numbered else None,
            tracker_id=self.tracker_ids.copy() if len(self.tracker_ids) else None,
            data={_CLASS_NAME: names},
        )

    @classmethod
    def from_supervision(cls, detections: Any, *, like: DetectionsMsg | None = None) -> Self:
        """A message, not published, with the objects that `to_supervision` gave, or anything else made.

        detections: a `supervision.Detections`; its masks and other data are left out.
        like: the message of whose frame they are: size, frame and latency are taken from it.

        Raises `MessageTypeError` for numbers that a field cannot hold.
        """
        count = len(detections)
        names = detections.data.get(_CLASS_NAME)
        frame = {} if like is None else {name: getattr(like, name) for name in _FRAME}
        tracker_ids = detections.tracker_id
        return cls(
            boxes=np.asarray(detections.xyxy, np.float32).reshape(count, 4),
            scores=(
                np.full(count, np.nan, np.float32)
                if detections.confidence is None
                else np.asarray(detections.confidence, np.float32)
            ),
            labels=[""] * count if names is None else [str(name) for name in names],
            class_ids=(
                np.full(count, -1, np.int32)
                if detections.class_id is None
                else _whole(cls, "class_ids", detections.class_id, np.int32)
            ),
            tracker_ids=_whole(
                cls, "tracker_ids", () if tracker_ids is None else tracker_ids, np.int64
            ),
            **frame,
        )


_FRAME = ("width", "height", "frame_id", "frame_cycle", "latency_ms")


class TracksMsg(DetectionsMsg):
    """Objects that a tracker follows from frame to frame: a `DetectionsMsg` with `tracker_ids`, one for
    each object.

    A task whose output is declared so can be connected where tracks are needed.
    """

    schema_name: ClassVar[str] = DetectionsMsg.schema_name
    _may_lack: ClassVar[str] = ""


def _whole(
    cls: type[DetectionsMsg], name: str, numbers: Any, dtype: type[np.signedinteger[Any]]
) -> NDArray[Any]:
    """`numbers` as `dtype`, if they are whole and have a place there."""
    given = np.asarray(numbers).reshape(-1)
    made = given.astype(dtype)
    if not np.array_equal(made, given):
        raise MessageTypeError(
            f"{cls.__name__}.{name}: expected {np.dtype(dtype)}, got {given.dtype} {given.tolist()}"
        )
    return made
