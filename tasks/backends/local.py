"""`embedded` and `transformers`: a checkpoint in this process, shared by all tasks that use it."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from flowrun.tasks.models.installed import need_packages
from flowrun.tasks.models.progress import Tell
from flowrun.tasks.models.question import Answer, ModelError, Question
from flowrun.tasks.models.shared import Shared, SharedModel

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from flowrun.tasks.models.vlm import VisionLanguageModel

__all__ = ["LocalBackend"]

_SharedModel: TypeAlias = "SharedModel[VisionLanguageModel, Question, Answer]"
_MODELS: Shared[_SharedModel] = Shared()
_LOADING = threading.Lock()
"""transformers loads one model at a time: of two, one has no weights."""


class LocalBackend:
    """A checkpoint of the transformers library.

    checkpoint: as `find_checkpoint` gives it.
    device, dtype: see `VisionLanguageModel.load`.
    max_batch: how many questions of different tasks may be answered together.
    threads: CPU threads of torch, for the whole process; None leaves them as they are.
    tell: called with the progress of loading.
    owner: shares the checkpoint with backends of the same owner alone.
    """

    def __init__(
        self,
        checkpoint: Path | str,
        *,
        device: str,
        dtype: str,
        local_files_only: bool,
        max_batch: int,
        log: FilteringBoundLogger,
        static_cache: bool = False,
        threads: int | None = None,
        tell: Tell = lambda _what, _fraction: None,
        owner: str = "",
    ) -> None:
        self._checkpoint = checkpoint
        self._device, self._dtype = device, dtype
        self._local_files_only = local_files_only
        self._max_batch = max_batch
        self._log = log
        self._static_cache = static_cache
        self._threads = threads
        self._tell = tell
        self._key: Hashable = (str(checkpoint), device, dtype, static_cache, owner)
        self._model: _SharedModel | None = None
        self._cancelled = threading.Event()
        self.where = ""

    def load(self) -> None:
        need_packages("a model in this process")
        if self._threads is not None:
            import torch

            torch.set_num_threads(self._threads)
        self._model = _MODELS.acquire(self._key, self._load)
        self.where = self._model.model.where

    def answer(self, question: Question) -> Answer:
        assert self._model is not None
        asked = replace(question, withdrawn=self._cancelled.is_set)
        answer = self._model.answer(asked, max_batch=self._max_batch)
        if self._cancelled.is_set():
            raise ModelError("the question was withdrawn")
        return answer

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        assert self._model is not None
        asked = [replace(it, withdrawn=self._cancelled.is_set) for it in questions]
        answers: list[Answer] = []
        for begin in range(0, len(asked), self._max_batch):
            answers += self._model.together(asked[begin : begin + self._max_batch])
        if self._cancelled.is_set():
            raise ModelError("the question was withdrawn")
        return answers

    def healthy(self) -> bool:
        return True

    def cancel(self) -> None:
        """A batch ends once none of its questions is wanted any more."""
        self._cancelled.set()

    def close(self) -> None:
        if self._model is not None:
            self._model = None
            _MODELS.release(self._key)

    def _load(self) -> _SharedModel:
        from flowrun.tasks.models.vlm import VisionLanguageModel

        started = time.perf_counter()
        with _LOADING:
            model = VisionLanguageModel.load(
                self._checkpoint,
                device=self._device,
                dtype=self._dtype,
                local_files_only=self._local_files_only,
                static_cache=self._static_cache,
                tell=self._tell,
            )
        loaded = time.perf_counter()
        self._tell("warming up", None)
        model.answer(np.zeros((240, 320, 3), np.uint8), "cap en", max_new_tokens=2)
        self._log.info(
            "model loaded",
            model=str(self._checkpoint),
            parameters=model.parameters,
            where=model.where,
            load_s=round(loaded - started, 2),
            warm_up_s=round(time.perf_counter() - loaded, 2),
        )
        return SharedModel(model, model.answers)
