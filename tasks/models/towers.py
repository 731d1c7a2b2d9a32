"""Models that make a vector of a picture: CLIP, SigLIP and their kind, which make one of a text too, and
vision encoders such as DINOv2, which do not.

One way for every checkpoint that the transformers library loads. torchvision is not needed: pictures are
prepared by the processors' Pillow variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.tasks.models.checkpoints import architecture_of, config_of
from flowrun.tasks.models.loading import ONLY_DATA, cache_first, loading, pick_device
from flowrun.tasks.models.question import ModelError

__all__ = ["Towers", "feature_vectors"]

Vectors = NDArray[np.float32]


class Towers:
    """A loaded checkpoint.

    parameters: how many weights it has.
    knows_texts: whether it makes vectors of texts, which are near those of the pictures they describe.
    """

    def __init__(self, processor: Any, tokenizer: Any, model: Any, *, device: str) -> None:
        self._processor, self._tokenizer, self._model = processor, tokenizer, model
        self._device = device
        self.parameters = sum(weights.numel() for weights in model.parameters())
        self.knows_texts = tokenizer is not None

    def pictures(self, pictures: Sequence[NDArray[np.uint8]]) -> Vectors:
        """A vector for each RGB picture of shape (H, W, 3): float32, of length 1."""
        import torch
        from PIL import Image

        # PIL images: processors take the rows of an array 3 pixels high for channels.
        images = [Image.fromarray(pixels) for pixels in pictures]
        inputs = self._processor(images=images, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            if self.knows_texts:
                made = self._model.get_image_features(**inputs)
            else:
                made = self._model(**inputs)
        return feature_vectors(made, len(images))

    def text(self, text: str) -> Vectors:
        """The vector of a text: float32, of length 1. Only where `knows_texts`."""
        import torch

        # SigLIP was trained with texts filled up to the longest; CLIP takes both.
        most = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        inputs = self._tokenizer(
            [text],
            padding="max_length",
            truncation=True,
            max_length=min(most or 64, self._tokenizer.model_max_length),
            return_tensors="pt",
        ).to(self._device)
        with torch.inference_mode():
            made = self._model.get_text_features(**inputs)
        vector: Vectors = feature_vectors(made, 1)[0]
        return vector

    @classmethod
    def load(cls, checkpoint: Path | str, *, device: str, local_files_only: bool) -> Towers:
        """Load `checkpoint`, as `find_checkpoint` gave it. Raises `ModelError`, in plain words.

        device: auto, cpu, cuda or cuda:N.
        """
        local = local_files_only or isinstance(checkpoint, Path)
        config = config_of(checkpoint, local_files_only=local)
        device = pick_device(device)
        has_texts = "text_config" in config or "text_config_dict" in config
        parts = "image processor and tokenizer" if has_texts else "image processor"

        def load(*, local: bool) -> tuple[Any, Any, Any]:
            with loading(checkpoint, device=device, parts=parts, local=local) as transformers:
                common = {"local_files_only": local, **ONLY_DATA}
                processor = transformers.AutoImageProcessor.from_pretrained(
                    checkpoint, use_fast=False, **common
                )
                tokenizer = (
                    transformers.AutoTokenizer.from_pretrained(checkpoint, **common)
                    if has_texts
                    else None
                )
                model = transformers.AutoModel.from_pretrained(
                    checkpoint, weights_only=True, **common
                )
                return processor, tokenizer, model.to(device).eval()

        processor, tokenizer, model = cache_first(checkpoint, local=local, load=load)
        knows = (hasattr(model, "get_image_features"), hasattr(model, "get_text_features"))
        if knows != (has_texts, has_texts):
            raise ModelError(
                f"model {str(checkpoint)!r} ({architecture_of(config)}) makes no vectors of pictures "
                "and texts; give a model such as 'google/siglip2-base-patch16-224'"
            )
        return cls(processor, tokenizer, model, device=device)


def feature_vectors(made: Any, count: int) -> Vectors:
    """The vectors of `count` pictures or texts, from what a model of the transformers library gives:
    of several features of one, such as its patches, the mean. float32, of length 1."""
    features = made
    if not hasattr(made, "shape") and not isinstance(made, (list, tuple)):
        features = getattr(made, "pooler_output", None)
        features = made.last_hidden_state if features is None else features
    if count == 1:
        parts = features if isinstance(features, (list, tuple)) else [features]
        rows = [part.reshape(-1, part.shape[-1]).float().cpu().numpy() for part in parts]
        found = np.concatenate(rows).mean(axis=0, keepdims=True)
    else:
        found = features.float().cpu().numpy()
        found = found.reshape(count, -1, found.shape[-1]).mean(axis=1)
    lengths = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    vectors: Vectors = (found / lengths).astype(np.float32)
    return vectors
