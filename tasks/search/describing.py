"""The model of an index: what it makes of a picture, and which one it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.atomic import file_name
from flowrun.runtime.testbench.hashes import Hashes
from flowrun.tasks.models.checkpoints import (
    architecture_of,
    config_of,
    embedded,
    find_checkpoint,
    folder_in_hub_cache,
    task_of,
)
from flowrun.tasks.models.question import ModelError

__all__ = ["Describer", "Model", "chosen_model"]

_LARGE_BYTES = 500_000_000
_MOST_TOKENS = 60
_SHORT_CAPTION = "cap en"
"""What the embedded model and PaliGemma are asked for a caption."""
_CAPTION = (
    "Describe the picture in one sentence: which objects there are, their colours, and where."
)


@dataclass(frozen=True, slots=True)
class Model:
    """Which model describes pictures.

    name: "embedded", or as it was given. checkpoint: its folder, or a hub id.
    prompt: what it is asked about each picture; None for a model that does not answer.
    knows_texts: whether texts are in the space of its pictures, as those of CLIP and SigLIP are.
    identity: other files, or another prompt, make another one.
    is_large: whether one copy of it uses all cores.
    """

    name: str
    checkpoint: Path | str
    prompt: str | None
    knows_texts: bool
    identity: str
    is_large: bool

    @property
    def file_name(self) -> str:
        """A name for what is kept of it."""
        return f"{file_name(Path(self.name).name)}-{self.identity[:12]}"


def chosen_model(name: str, prompt: str | None, hashes: Hashes) -> Model:
    """The model that `name` means: "embedded", a checkpoint folder, or a hub id. Loads nothing.

    prompt: what to ask in place of the usual.

    `ModelError` for what is no model of pictures, and where a model without answers gets a prompt.
    """
    checkpoint = embedded().path if name == "embedded" else find_checkpoint(name, Path.cwd())
    config = config_of(checkpoint, local_files_only=isinstance(checkpoint, Path))
    folder = checkpoint if isinstance(checkpoint, Path) else folder_in_hub_cache(checkpoint)
    if task_of(config) == "Detect":
        raise ModelError(
            f"model {name!r} ({architecture_of(config)}) finds objects, and describes no pictures; "
            "give a model such as 'google/siglip2-base-patch16-224'"
        )
    answers = task_of(config) == "Inference"
    if prompt is not None and not answers:
        raise ModelError(f"model {name!r} ({architecture_of(config)}) answers no prompt")
    if answers and prompt is None:
        is_short = name == "embedded" or config.get("model_type") == "paligemma"
        prompt = _SHORT_CAPTION if is_short else _CAPTION
    size = 0
    if folder is not None:
        size = sum(it.stat().st_size for it in folder.rglob("*") if it.is_file())
    identity = name if folder is None else hashes.folder(folder)
    return Model(
        name,
        checkpoint,
        prompt,
        not answers and "text_config" in config,
        identity,
        folder is None or size > _LARGE_BYTES,
    )


class Describer:
    """The loaded model. `ModelError` where it cannot be loaded.

    threads: of the CPU, that torch may use.
    """

    def __init__(self, model: Model, *, threads: int) -> None:
        import torch

        from flowrun.tasks.models.towers import Towers
        from flowrun.tasks.models.vlm import VisionLanguageModel

        torch.set_num_threads(threads)
        self._prompt = model.prompt
        self._answering: VisionLanguageModel | None = None
        self._towers: Towers | None = None
        if model.prompt is None:
            self._towers = Towers.load(model.checkpoint, device="auto", local_files_only=False)
        else:
            self._answering = VisionLanguageModel.load(
                model.checkpoint, device="auto", dtype="auto", local_files_only=False
            )

    def vectors(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """A vector for each RGB picture: float32 (N, D), each of length 1. One by one, as what is
        computed together differs in its last digits."""
        if self._towers is not None:
            return np.concatenate([self._towers.pictures([it]) for it in pictures])
        assert self._answering is not None
        return np.stack([self._answering.vector(it) for it in pictures])

    def words(self, pixels: NDArray[np.uint8]) -> str:
        """What the model says of a picture; "" for a model that does not answer."""
        if self._answering is None or self._prompt is None:
            return ""
        answer, _ = self._answering.answer(pixels, self._prompt, max_new_tokens=_MOST_TOKENS)
        return answer

    def text(self, text: str) -> NDArray[np.float32] | None:
        """The vector of a text; None for a model that has none near those of pictures."""
        if self._towers is None or not self._towers.knows_texts:
            return None
        return self._towers.text(text)
