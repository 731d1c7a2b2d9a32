"""`embedded` and `transformers`: a checkpoint in this process, shared by all tasks that use it."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowrun.tasks.backends.backend import Answer, Question
from flowrun.tasks.backends.progress import Tell
from flowrun.tasks.backends.shared import Shared

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from flowrun.tasks.vlm import VisionLanguageModel

__all__ = ["LocalBackend"]

_MODELS: Shared[SharedModel] = Shared()


@dataclass(slots=True, eq=False)
class _Waiting:
    question: Question
    answer: Answer | None = None
    error: Exception | None = None


class SharedModel:
    """A loaded model that several threads ask. Those who wait while it answers are answered
    together, as many as `max_batch`."""

    def __init__(self, model: VisionLanguageModel) -> None:
        self.model = model
        self._busy = threading.Lock()
        self._waiting: list[_Waiting] = []

    def answer(self, question: Question, *, max_batch: int) -> Answer:
        """The answer to `question`; at most `max_batch` questions are computed at once."""
        mine = _Waiting(question)
        self._waiting.append(mine)  # atomic, as is taking away
        while True:
            with self._busy:  # whoever has it answers for those who wait
                if mine.error is not None:
                    raise mine.error
                if mine.answer is not None:
                    return mine.answer
                self._answer_some(mine, max_batch)

    def _answer_some(self, first: _Waiting, max_batch: int) -> None:
        """The answer to `first`, and to others who have waited as long and may be joined."""
        some = [first]
        if first.question.sampling is None:
            others = [item for item in list(self._waiting) if item is not first]
            some += [item for item in others if item.question.sampling is None][: max_batch - 1]
        for item in some:
            self._waiting.remove(item)
        try:
            answers = self.model.answers([item.question for item in some])
        except Exception as error:  # noqa: BLE001  # raised by each who asked
            for item in some:
                item.error = error
            return
        for item, answer in zip(some, answers, strict=True):
            item.answer = answer


class LocalBackend:
    """A checkpoint of the transformers library.

    checkpoint: as `find_checkpoint` gives it. device, dtype: see `VisionLanguageModel.load`.
    max_batch: how many questions of different tasks may be answered together.
    tell: hears how far loading is.
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
        tell: Tell = lambda _what, _fraction: None,
    ) -> None:
        self._checkpoint = checkpoint
        self._device, self._dtype = device, dtype
        self._local_files_only = local_files_only
        self._max_batch = max_batch
        self._log = log
        self._static_cache = static_cache
        self._tell = tell
        self._key: Hashable = (str(checkpoint), device, dtype, static_cache)
        self._model: SharedModel | None = None
        self.where = ""

    def load(self) -> None:
        self._model = _MODELS.acquire(self._key, self._load)
        self.where = self._model.model.where

    def answer(self, question: Question) -> Answer:
        assert self._model is not None
        return self._model.answer(question, max_batch=self._max_batch)

    def healthy(self) -> bool:
        return True

    def close(self) -> None:
        if self._model is not None:
            self._model = None
            _MODELS.release(self._key)

    def _load(self) -> SharedModel:
        from flowrun.tasks.vlm import VisionLanguageModel

        started = time.perf_counter()
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
        return SharedModel(model)
