"""An object-detection model of the transformers library: a checkpoint, and what it finds in pictures.

One way for every family: RT-DETR, RT-DETRv2, D-FINE, DETR, YOLOS and whatever else
`AutoModelForObjectDetection` loads. torchvision is not needed: pictures are prepared by the
processors' Pillow variants.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.wording import listed, nearest
from flowrun.tasks.models.checkpoints import architecture_of, config_of, task_of
from flowrun.tasks.models.loading import ONLY_DATA, cache_first, loading, pick_device
from flowrun.tasks.models.question import ModelError

__all__ = ["Found", "ObjectDetector", "Search", "class_names", "ids_of"]

_MOST_LISTED = 12


@dataclass(frozen=True, slots=True)
class Search:
    """What to find in one picture.

    pixels: RGB, of shape (H, W, 3).
    threshold: objects need a score above it.
    only: the class ids to look for; None for all.
    """

    pixels: NDArray[np.uint8]
    threshold: float
    only: frozenset[int] | None = None

    @property
    def joins(self) -> Hashable:
        """See `Asked`: pictures of other sizes would be padded, which not every family leaves out."""
        return self.pixels.shape


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in one picture, the highest score first.

    boxes: float32 (N, 4), left, top, right, bottom in pixels of the picture, within it.
    scores: float32 (N,).
    class_ids: int32 (N,).
    labels: N names.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    labels: list[str]

    def rows(self, kept: NDArray[np.intp]) -> Found:
        """Some of these objects."""
        if len(kept) == len(self.labels):
            return self
        labels = [self.labels[k] for k in kept]
        return Found(self.boxes[kept], self.scores[kept], self.class_ids[kept], labels)


class ObjectDetector:
    """A loaded checkpoint.

    name: the folder or hub id.
    parameters: number of its weights.
    where: device and dtype, for people.
    names: class id -> name.
    """

    def __init__(self, name: str, processor: Any, model: Any, *, device: str, dtype: Any) -> None:
        self.name = name
        self._processor = processor
        self._model = model
        self._device, self._dtype = device, dtype
        self.parameters = sum(weights.numel() for weights in model.parameters())
        self.where = f"{device} {str(dtype).removeprefix('torch.')}"
        self.names = _named(model.config.id2label)

    def class_ids(self, labels: Iterable[str]) -> frozenset[int]:
        """The ids of the classes named so. `ModelError` for a name that the model does not know."""
        return ids_of(labels, self.names, self.name)

    def answers(self, questions: Sequence[Search]) -> list[Found]:
        """What the model finds in several pictures, computed together.

        The last digits of what is computed depend on how many are asked together.
        """
        import torch
        from PIL import Image

        # PIL images: processors take the rows of an array 3 pixels high for channels.
        images = [Image.fromarray(question.pixels) for question in questions]
        inputs = self._processor(images=images, return_tensors="pt").to(
            self._device, dtype=self._dtype
        )
        sizes = [question.pixels.shape[:2] for question in questions]
        thresholds = {question.threshold for question in questions}
        with torch.inference_mode():
            outputs = self._model(**inputs)
            found = {
                threshold: self._processor.post_process_object_detection(
                    outputs, threshold=threshold, target_sizes=sizes
                )
                for threshold in thresholds
            }
        return [self._found(it, found[it.threshold][i]) for i, it in enumerate(questions)]

    def _found(self, question: Search, found: dict[str, Any]) -> Found:
        import torch

        height, width = question.pixels.shape[:2]
        scores, ids, boxes = (
            found[name].to("cpu", torch.float32).numpy() for name in ("scores", "labels", "boxes")
        )
        corners = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
        keep = (corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])
        if question.only is not None:
            keep &= np.isin(ids, list(question.only))
        order = np.flatnonzero(keep)
        order = order[np.argsort(-scores[order], kind="stable")]
        class_ids = ids[order].astype(np.int32)
        return Found(
            boxes=corners[order].astype(np.float32),
            scores=scores[order].astype(np.float32),
            class_ids=class_ids,
            labels=[self.names.get(int(k), f"class {k}") for k in class_ids],
        )

    # -- loading -------------------------------------------------------------------------------

    @classmethod
    def load(
        cls, checkpoint: Path | str, *, device: str, dtype: str, local_files_only: bool
    ) -> ObjectDetector:
        """Load `checkpoint`, as `find_checkpoint` gave it. Raises `ModelError`, in plain words.

        device: auto, cpu, cuda or cuda:N.
        dtype: auto (float32) or the name of a torch type.
        """
        local = local_files_only or isinstance(checkpoint, Path)
        _check_kind(checkpoint, config_of(checkpoint, local_files_only=local))
        import torch

        device = pick_device(device)
        torch_dtype = getattr(torch, "float32" if dtype == "auto" else dtype)
        parts = "image processor"

        def load(*, local: bool) -> tuple[Any, Any]:
            with loading(checkpoint, device=device, parts=parts, local=local) as transformers:
                processor = transformers.AutoImageProcessor.from_pretrained(
                    checkpoint, local_files_only=local, **ONLY_DATA
                )
                model = transformers.AutoModelForObjectDetection.from_pretrained(
                    checkpoint,
                    local_files_only=local,
                    dtype=torch_dtype,
                    weights_only=True,
                    **ONLY_DATA,
                )
                return processor, model.to(device).eval()

        processor, model = cache_first(checkpoint, local=local, load=load)
        return cls(str(checkpoint), processor, model, device=device, dtype=torch_dtype)


def class_names(checkpoint: Path | str) -> dict[int, str] | None:
    """Class id -> name, of a checkpoint whose `config.json` is on this machine and says so; None where
    only loading it can tell."""
    if isinstance(checkpoint, str):
        return None
    named = config_of(checkpoint, local_files_only=True).get("id2label")
    return _named(named) if isinstance(named, dict) else None


def ids_of(labels: Iterable[str], names: Mapping[int, str], model: str) -> frozenset[int]:
    """The ids of the classes named so. `ModelError` for a name that is none of `names`.

    model: what the graph calls the model.
    """
    wanted = set(labels)
    known = list(dict.fromkeys(names.values()))
    for label in sorted(wanted.difference(known)):
        more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
        raise ModelError(
            f"model {model!r} knows no label {label!r}; its labels: "
            f"{listed(known[:_MOST_LISTED])}{more}{nearest(label, known)}"
        )
    return frozenset(number for number, name in names.items() if name in wanted)


def _named(id2label: Mapping[Any, Any]) -> dict[int, str]:
    return {int(number): str(name) for number, name in id2label.items()}


def _check_kind(checkpoint: Path | str, config: dict[str, Any]) -> None:
    task = task_of(config)
    if task == "Detect":
        return
    hint = ""
    if task == "Inference":
        hint = "; it answers prompts: give it to Inference (and its boxes to ParseDetections)"
    raise ModelError(
        f"model {str(checkpoint)!r} is no object detector: its architecture is "
        f"{architecture_of(config) or 'unknown'}{hint}"
    )
