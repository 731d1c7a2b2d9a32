"""A vision-language model of the transformers library: a checkpoint, and answers about pictures.

One way for every checkpoint, the shipped one of 2 million parameters and the full-size ones alike.
torchvision is not needed: pictures are prepared by the processors' Pillow variants.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.tasks.models.checkpoints import config_of
from flowrun.tasks.models.decoding import greedy_step, likeliest_tokens
from flowrun.tasks.models.growing import GrowingAnswers, cut_at_stop, layers_of
from flowrun.tasks.models.loading import ONLY_DATA, cache_first, loading, pick_device, pick_dtype
from flowrun.tasks.models.progress import Tell, progress_passed_on
from flowrun.tasks.models.question import (
    Answer,
    ModelError,
    Question,
    Sampling,
    split_reasoning,
)
from flowrun.tasks.models.towers import feature_vectors

__all__ = ["VisionLanguageModel"]

_DRAWING = threading.Lock()


class VisionLanguageModel:
    """A loaded checkpoint.

    parameters: how many weights it has.
    where: device and dtype, for people.
    """

    def __init__(self, processor: Any, model: Any, *, device: str, dtype: Any) -> None:
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._model = model
        self._device, self._dtype = device, dtype
        self.parameters = sum(weights.numel() for weights in model.parameters())
        self.where = f"{device} {str(dtype).removeprefix('torch.')}"
        template = getattr(processor, "chat_template", None)
        template = template or getattr(self._tokenizer, "chat_template", None)
        self._template = template.get("default") if isinstance(template, dict) else template
        self._image_token = _token(processor, self._tokenizer, "image_token")
        video_token = _token(processor, self._tokenizer, "video_token")
        self._media_tokens = [token for token in (self._image_token, video_token) if token]
        self._drop_greedy_settings()
        ends = model.generation_config.eos_token_id
        self._end_tokens = set(ends if isinstance(ends, list) else [ends])
        self._tokenizer.padding_side = "left"  # of prompts: answers begin together
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._context: int | None = context if isinstance(context, int) else None
        # A GPU reads a prompt in less than a second, and hooks would end its compiled graph.
        self._layers = layers_of(model) if device == "cpu" else []
        self._step = greedy_step(model) if device == "cpu" else None

    def answer(
        self,
        pixels: NDArray[np.uint8],
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
    ) -> tuple[str, int]:
        """The model's answer about an RGB picture of shape (H, W, 3), and how many tokens it took.

        Without `sampling` each token is the likeliest one: the same picture and prompt give the
        same answer. Text in the prompt that would stand for a picture is left out.
        """
        [answer] = self.answers([Question(pixels, prompt, max_new_tokens, sampling)])
        return answer.text, answer.tokens

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers to several questions, computed together; each as long as it asks for.

        The last digits of what is computed depend on how many are asked together, and with them,
        rarely, a token. More than one: only without `sampling`.
        """
        import torch
        from PIL import Image

        [sampling] = {question.sampling for question in questions}
        # PIL images: processors take the rows of an array 3 pixels high for channels.
        inputs = self._processor(
            text=[self._text(question.prompt) for question in questions],
            images=[[Image.fromarray(question.pixels)] for question in questions],
            return_tensors="pt",
            **({"padding": True} if len(questions) > 1 else {}),
        ).to(self._device, dtype=self._dtype)
        begin = inputs["input_ids"].shape[1]
        wanted = max(question.max_new_tokens for question in questions)
        limit = min(wanted, self._room_after(begin))
        watch = GrowingAnswers(questions, begin=begin, decode=self._decode, layers=self._layers)
        with torch.inference_mode(), watch:
            tokens = self._generate(inputs, limit=limit, watch=watch, sampling=sampling)
        rows = tokens[:, begin:]
        return [self._cut(question, row) for question, row in zip(questions, rows, strict=True)]

    def _generate(
        self, inputs: Any, *, limit: int, watch: GrowingAnswers, sampling: Sampling | None
    ) -> Any:
        """The tokens of the prompts and of the answers to them, one row for each."""
        import torch

        if self._step is not None and sampling is None and len(inputs["input_ids"]) == 1:
            return likeliest_tokens(
                self._model, self._step, inputs, limit=limit, ends=self._end_tokens, watch=watch
            )
        settings = {"max_new_tokens": limit, "do_sample": False, "stopping_criteria": [watch]}
        if sampling is None:
            return self._model.generate(**inputs, **settings)
        settings |= {"do_sample": True, "temperature": sampling.temperature}
        devices = [self._device] if self._device.startswith("cuda") else []
        # torch's random numbers are the whole process's.
        with _DRAWING, torch.random.fork_rng(devices):
            torch.manual_seed(sampling.seed)
            return self._model.generate(**inputs, **settings)

    def vector(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the model sees of an RGB picture of shape (H, W, 3), as a vector of length 1: the mean of
        what its language half gets of the picture's parts. Vectors of pictures of the same things are
        near each other; those of texts are not in this space."""
        import torch
        from PIL import Image

        inputs = self._processor(
            text=[self._text("")], images=[[Image.fromarray(pixels)]], return_tensors="pt"
        ).to(self._device, dtype=self._dtype)
        of_text = ("input_ids", "attention_mask", "token_type_ids")
        with torch.inference_mode():
            made = self._model.get_image_features(
                **{name: value for name, value in inputs.items() if name not in of_text}
            )
        vector: NDArray[np.float32] = feature_vectors(made, 1)[0]
        return vector

    def _room_after(self, begin: int) -> int:
        """Number of tokens that an answer may have after `begin` others. `ModelError` if none."""
        if self._context is None:
            return sys.maxsize
        if begin >= self._context:
            raise ModelError(
                f"the prompt and the picture take {begin:,} tokens, but the model's context holds "
                f"{self._context:,}, the answer included; shorten the prompt"
            )
        return self._context - begin

    def _cut(self, question: Question, row: Any) -> Answer:
        """The answer in a row of new tokens, which is as long as the longest of the batch."""
        ends = [i for i, token in enumerate(row.tolist()) if token in self._end_tokens]
        count = min(question.max_new_tokens, ends[0] + 1 if ends else len(row))
        whole = self._decode(row[:count])
        text = cut_at_stop(whole, question.stop)
        has_ended = len(text) < len(whole) or (bool(ends) and ends[0] < count)
        thought, answer = split_reasoning(text)
        return Answer(answer.strip(), count, not has_ended, thought.strip())

    def _decode(self, tokens: Any) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _text(self, prompt: str) -> str:
        while any(token in prompt for token in self._media_tokens):
            for token in self._media_tokens:
                prompt = prompt.replace(token, "")
        if not self._template:
            return f"{self._image_token}{prompt}"
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        # The tokenizer renders any template unchanged; SmolVLM2's processor asks for videos.
        text: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self._template,
            add_generation_prompt=True,
            tokenize=False,
        )
        return text

    def _drop_greedy_settings(self) -> None:
        """Some checkpoints ask for sampling; only the task's config may."""
        settings = self._model.generation_config
        for name in ("temperature", "top_p", "top_k"):
            setattr(settings, name, None)
        settings.do_sample = False
        if settings.pad_token_id is None:
            settings.pad_token_id = self._tokenizer.pad_token_id

    # -- loading -------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        checkpoint: Path | str,
        *,
        device: str,
        dtype: str,
        local_files_only: bool,
        static_cache: bool = False,
        tell: Tell = lambda _what, _fraction: None,
    ) -> VisionLanguageModel:
        """Load `checkpoint`, as `find_checkpoint` gave it. Raises `ModelError`, in plain words.

        device: auto, cpu, cuda or cuda:N.
        dtype: auto (`pick_dtype`) or the name of a torch type.
        static_cache: generate with a cache of a fixed size, compiled on a GPU.
        tell: called with the progress of loading.
        """
        local = local_files_only or isinstance(checkpoint, Path)
        if not local:
            config_of(checkpoint, local_files_only=False)  # fails quickly without a network
        tell("loading the libraries", None)
        import torch

        device = pick_device(device)
        torch_dtype = getattr(torch, pick_dtype(dtype, device))
        parts = "processor and tokenizer"

        def load(*, local: bool) -> tuple[Any, Any]:
            with loading(checkpoint, device=device, parts=parts, local=local) as transformers:
                processor = _load_processor(checkpoint, local_files_only=local)
                with progress_passed_on(tell) as bars:
                    model = transformers.AutoModelForImageTextToText.from_pretrained(
                        checkpoint,
                        local_files_only=local,
                        dtype=torch_dtype,
                        weights_only=True,
                        **ONLY_DATA,
                        **bars,
                    )
                return processor, model.to(device).eval()

        processor, model = cache_first(checkpoint, local=local, load=load)
        if static_cache:
            model.generation_config.cache_implementation = "static"
        return cls(processor, model, device=device, dtype=torch_dtype)


def _load_processor(checkpoint: Path | str, *, local_files_only: bool) -> Any:
    """The processor of `checkpoint`; without torchvision, without its video half, which needs it
    (Qwen-VL, SmolVLM2).
    """
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    from transformers.utils import is_torchvision_available

    config = AutoConfig.from_pretrained(checkpoint, local_files_only=local_files_only, **ONLY_DATA)
    processor_class: Any = PROCESSOR_MAPPING.get(type(config), None)
    if (
        is_torchvision_available()
        or processor_class is None
        or "video_processor" not in processor_class.get_attributes()
    ):
        return AutoProcessor.from_pretrained(
            checkpoint, local_files_only=local_files_only, **ONLY_DATA
        )

    class PicturesOnly(processor_class):  # type: ignore[misc]
        video_processor = None

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

    # Some take the video half as an argument that must be given (SmolVLM2).
    return PicturesOnly.from_pretrained(
        checkpoint, local_files_only=local_files_only, video_processor=None, **ONLY_DATA
    )


def _token(processor: Any, tokenizer: Any, name: str) -> str:
    """The text that stands for a picture (or a video) in a prompt of this model, "" if none."""
    token = getattr(processor, name, None) or getattr(tokenizer, name, None)
    return str(getattr(token, "content", token) or "")
