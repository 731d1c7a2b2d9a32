"""Answers token by token: the tokens of transformers' `generate`, and its numbers to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from flowrun.tasks.embedded import MODEL_DIR  # noqa: E402
from flowrun.tasks.models.decoding import greedy_step, likeliest_tokens  # noqa: E402
from flowrun.tasks.models.question import Question  # noqa: E402
from flowrun.tasks.models.vlm import VisionLanguageModel  # noqa: E402

PROMPTS = [
    "cap en",
    "detect shapes",
    "how many shapes are there?",
    "what is the capital of France?",
]


@pytest.fixture(scope="module")
def embedded() -> VisionLanguageModel:
    return VisionLanguageModel.load(MODEL_DIR, device="cpu", dtype="float32", local_files_only=True)


def small_model(dtype: Any, **text: Any) -> Any:
    """One of SmolVLM's kind, with random weights."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = Idefics3Config(
        vision_config={**sizes, "num_attention_heads": 2, "image_size": 16, "patch_size": 8},
        text_config={
            "model_type": "llama",
            "vocab_size": 64,
            "num_attention_heads": 4,
            **sizes,
            **text,
        },
        image_token_id=5,
        pad_token_id=1,
        scale_factor=2,
    )
    return Idefics3ForConditionalGeneration(config).to(dtype).eval()


def not_ended(_tokens: Any, _scores: Any) -> Any:
    return torch.tensor([False])


def test_answers_of_the_shipped_model_are_those_of_generate(embedded: VisionLanguageModel) -> None:
    assert embedded._step is not None
    pixels = np.random.default_rng(3).integers(0, 256, (3, 60, 80, 3), np.uint8)
    for number, prompt in enumerate(PROMPTS * 3):
        question = Question(pixels[number % 3], prompt, 20)
        step, embedded._step = embedded._step, None
        [expected] = embedded.answers([question])
        embedded._step = step
        assert embedded.answers([question]) == [expected]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept_heads", [4, 2])
def test_each_token_is_that_of_generate(dtype: Any, kept_heads: int) -> None:
    model = small_model(dtype, num_key_value_heads=kept_heads)
    step = greedy_step(model)
    assert step is not None
    inputs = {"input_ids": torch.tensor([[7, 9, 11]]), "attention_mask": torch.ones(1, 3).long()}
    with torch.inference_mode():
        expected = model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=None)
        found = likeliest_tokens(model, step, inputs, limit=12, ends=set(), watch=not_ended)
    assert found.tolist() == expected.tolist()


def test_an_answer_ends_with_its_end_or_when_somebody_says_so() -> None:
    model = small_model(torch.float32)
    step = greedy_step(model)
    assert step is not None
    inputs = {"input_ids": torch.tensor([[7, 9, 11]])}
    with torch.inference_mode():
        whole = likeliest_tokens(model, step, inputs, limit=8, ends=set(), watch=not_ended)[0, 3:]
        end = int(whole[-1])
        first = whole.tolist().index(end)
        ended = likeliest_tokens(model, step, inputs, limit=8, ends={end}, watch=not_ended)
        stopped = likeliest_tokens(
            model, step, inputs, limit=8, ends=set(), watch=lambda it, _: it.shape[1] >= 5
        )
    assert ended[0, 3:].tolist() == whole[: first + 1].tolist()
    assert stopped[0, 3:].tolist() == whole[:2].tolist()


def test_a_model_that_computes_otherwise_is_left_to_generate() -> None:
    model = small_model(torch.float32)
    layer = model.model.text_model.layers[0]
    layer.register_forward_hook(lambda _layer, _inputs, output: output * 2)
    assert greedy_step(model) is None
    assert greedy_step(torch.nn.Linear(2, 2)) is None


@pytest.mark.parametrize(
    "setting",
    [
        {"repetition_penalty": 1.3},
        {"bad_words_ids": [[9]]},
        {"num_beams": 2},
        {"cache_implementation": "static"},
    ],
)
def test_a_checkpoint_that_asks_for_more_than_the_likeliest_token_is_left_to_generate(
    setting: dict[str, Any],
) -> None:
    model = small_model(torch.float32)
    model.generation_config.update(eos_token_id=2, temperature=0.2, do_sample=True)
    assert greedy_step(model) is not None
    model.generation_config.update(**setting)
    assert greedy_step(model) is None
