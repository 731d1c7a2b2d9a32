"""`Inference`: a vision-language model answers a prompt about frames."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.tasks.vlm import ModelError, Sampling, VisionLanguageModel, find_checkpoint

__all__ = ["Inference"]


class Inference(Task):
    """Answer `prompt` about each frame that comes.

    `backend: embedded` is the model that ships with flowrun; `backend: transformers` loads `model`,
    a checkpoint folder or a hub id. Both run the same code. With `background: true` the graph's
    cycles go on meanwhile and the model always gets the newest frame.

    The same frames and prompts give the same answers, also with `do_sample`: what is drawn depends
    on `seed` and the frame's cycle alone. An answer is a frame's: `tov_ns`, `frame_id` and
    `frame_cycle` say which.
    """

    class Config(TaskConfig):
        backend: Literal["embedded", "transformers"] = "embedded"
        model: str | None = None
        """For `transformers`: a folder (relative ones start at the graph file) or a hub id."""
        prompt: Live[str] = "cap en"
        max_new_tokens: Live[PositiveInt] = 50
        device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
        """auto, cpu, cuda or cuda:N; auto: the first GPU, if there is one."""
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
        """auto: bfloat16 on a GPU, float32 on a CPU and for the embedded model."""
        threads: PositiveInt | None = None
        """CPU threads of torch, for the whole process. If not given: 1 for the embedded model,
        whose steps are too short to share (2 threads on 2 busy cores took 5 times as long), and
        torch's own number for others."""
        local_files_only: bool = False
        """Never look on the network for the model."""
        do_sample: bool = False
        """Draw tokens instead of taking the likeliest."""
        temperature: PositiveFloat = 1.0
        """For `do_sample`."""
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
        """For `do_sample`."""

        @model_validator(mode="after")
        def _check(self) -> Inference.Config:
            if self.backend == "transformers" and self.model is None:
                raise ValueError(
                    "backend transformers needs a model: a checkpoint folder, or a hub id such as "
                    "'google/paligemma-3b-mix-224'"
                )
            if self.backend == "embedded" and self.model is not None:
                raise ValueError("model is for backend: transformers; embedded brings its own")
            return self

    config: Config

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        if config.model is not None:
            try:
                find_checkpoint(config.model, graph_dir)
            except ModelError as error:
                yield "model", str(error)

    def start(self, ctx: Context) -> None:
        config = self.config
        started = time.perf_counter()
        threads = config.threads or (1 if config.backend == "embedded" else None)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        if config.model is None:
            from flowrun.tasks.embedded import MODEL_DIR

            self._model = VisionLanguageModel.load(
                MODEL_DIR,
                device=config.device,
                dtype="float32" if config.dtype == "auto" else config.dtype,
                local_files_only=True,
            )
        else:
            self._model = VisionLanguageModel.load(
                find_checkpoint(config.model, ctx.graph_dir),
                device=config.device,
                dtype=config.dtype,
                local_files_only=config.local_files_only,
            )
        loaded = time.perf_counter()
        self._model.answer(np.zeros((240, 320, 3), np.uint8), "cap en", max_new_tokens=2)
        ctx.log.info(
            "model loaded",
            model=config.model or "embedded",
            parameters=self._model.parameters,
            where=self._model.where,
            load_s=round(loaded - started, 2),
            warm_up_s=round(time.perf_counter() - loaded, 2),
        )

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        config = self.config
        # Half a surrogate pair can come from JSON; no tokenizer and no encoding takes one.
        prompt = config.prompt.encode("utf-8", "replace").decode()
        sampling = None
        if config.do_sample:
            seed = int(np.random.SeedSequence([config.seed, ctx.cycle]).generate_state(1)[0])
            sampling = Sampling(seed, config.temperature)
        called = time.perf_counter()
        response, tokens = self._model.answer(
            image.pixels, prompt, max_new_tokens=config.max_new_tokens, sampling=sampling
        )
        answer.latency_ms = (time.perf_counter() - called) * 1000
        answer.prompt = prompt
        answer.response = response
        answer.tokens = tokens
        answer.backend = config.backend
        answer.frame_id = image.frame_id
        answer.frame_cycle = ctx.cycle
        answer.frame_width, answer.frame_height = image.width, image.height
        answer.publish(tov_ns=image.tov_ns)
