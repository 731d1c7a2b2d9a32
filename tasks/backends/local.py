"""`embedded` and `transformers`: a checkpoint in this process, shared by all tasks that use it."""

from __future__ import annotations

import time
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowrun.tasks.backends.backend import Answer, Question
from flowrun.tasks.backends.shared import Shared

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from flowrun.tasks.vlm import VisionLanguageModel

__all__ = ["LocalBackend"]

_MODELS: Shared[VisionLanguageModel] = Shared()


class LocalBackend:
    """A checkpoint of the transformers library.

    checkpoint: as `find_checkpoint` gives it. device, dtype: see `VisionLanguageModel.load`.
    """

    def __init__(
        self,
        checkpoint: Path | str,
        *,
        device: str,
        dtype: str,
        local_files_only: bool,
        log: FilteringBoundLogger,
    ) -> None:
        self._checkpoint = checkpoint
        self._device, self._dtype = device, dtype
        self._local_files_only = local_files_only
        self._log = log
        self._key: Hashable = (str(checkpoint), device, dtype)
        self._model: VisionLanguageModel | None = None

    def load(self) -> None:
        self._model = _MODELS.acquire(self._key, self._load)

    def answer(self, question: Question) -> Answer:
        assert self._model is not None
        text, tokens = self._model.answer(
            question.pixels,
            question.prompt,
            max_new_tokens=question.max_new_tokens,
            sampling=question.sampling,
        )
        return Answer(text, tokens)

    def healthy(self) -> bool:
        return True

    def close(self) -> None:
        if self._model is not None:
            self._model = None
            _MODELS.release(self._key)

    def _load(self) -> VisionLanguageModel:
        from flowrun.tasks.vlm import VisionLanguageModel

        started = time.perf_counter()
        model = VisionLanguageModel.load(
            self._checkpoint,
            device=self._device,
            dtype=self._dtype,
            local_files_only=self._local_files_only,
        )
        loaded = time.perf_counter()
        model.answer(np.zeros((240, 320, 3), np.uint8), "cap en", max_new_tokens=2)
        self._log.info(
            "model loaded",
            model=str(self._checkpoint),
            parameters=model.parameters,
            where=model.where,
            load_s=round(loaded - started, 2),
            warm_up_s=round(time.perf_counter() - loaded, 2),
        )
        return model
