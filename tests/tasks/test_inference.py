"""`Inference` on the shipped model and on tiny random checkpoints of three families."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.task import Context, Input, Output
from flowrun.runtime.testing import run_task
from flowrun.tasks.inference import Inference, PromptResponseMsg
from flowrun.tasks.models.loading import pick_dtype
from flowrun.tasks.models.question import ModelError

pytestmark = [
    pytest.mark.slow,  # importing torch and transformers alone takes seconds
    # PaliGemma's processor makes an array of a torch tensor, which torch does in NumPy 1's way.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]

# -- tiny random checkpoints -------------------------------------------------------------------


def tokenizer(special: list[str], **named: str) -> Any:
    """A byte-level BPE tokenizer, trained on the spot."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300 + len(special),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["cap en answer what is in the picture"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **named)


def text_config(made: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(made),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": made.eos_token_id,
        "pad_token_id": made.pad_token_id,
        **more,
    }


VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def paligemma(folder: Path) -> None:
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
    )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    made = tokenizer(
        ["<pad>", "<eos>", "<bos>", "<image>"],
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        extra_special_tokens={"image_token": "<image>"},
    )
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    PaliGemmaProcessor(images, made).save_pretrained(folder)
    config = PaliGemmaConfig(
        text_config={"model_type": "gemma", **text_config(made)},
        vision_config={"model_type": "siglip_vision_model", **VISION, "projection_dim": 32},
        projection_dim=32,
        image_token_id=made.convert_tokens_to_ids("<image>"),
    )
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)


def smolvlm(folder: Path) -> None:
    """SmolVLM-256M and -500M are Idefics3 models."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3Processor,
    )
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )

    made = tokenizer(
        [
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<fake_token_around_image>",
            "<image>",
            "<global-img>",
            "<end_of_utterance>",
        ],
        pad_token="<|im_end|>",
        eos_token="<end_of_utterance>",
        bos_token="<|im_start|>",
    )
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    template = (
        "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
        "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
        "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
        "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
        "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    Idefics3Processor(images, made, image_seq_len=4, chat_template=template).save_pretrained(folder)
    config = Idefics3Config(
        text_config={"model_type": "llama", **text_config(made)},
        vision_config=VISION,
        scale_factor=2,
        image_token_id=made.convert_tokens_to_ids("<image>"),
        pad_token_id=made.pad_token_id,
    )
    Idefics3ForConditionalGeneration(config).save_pretrained(folder)


def smolvlm2(folder: Path) -> None:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    smolvlm(folder)  # the same tokenizer, template and pictures
    made = json.loads((folder / "processor_config.json").read_text())
    made["processor_class"] = "SmolVLMProcessor"
    made["image_processor"]["image_processor_type"] = "SmolVLMImageProcessor"
    (folder / "processor_config.json").write_text(json.dumps(made))
    config = json.loads((folder / "config.json").read_text())
    SmolVLMForConditionalGeneration(
        SmolVLMConfig(
            text_config=config["text_config"],
            vision_config=VISION,
            scale_factor=2,
            image_token_id=config["image_token_id"],
            pad_token_id=config["text_config"]["pad_token_id"],
        )
    ).save_pretrained(folder)


def qwen2_vl(folder: Path) -> None:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokens = {
        "vision_start": "<|vision_start|>",
        "vision_end": "<|vision_end|>",
        "image": "<|image_pad|>",
        "video": "<|video_pad|>",
    }
    made = tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *tokens.values()],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
    )
    made.chat_template = (
        "{% for m in messages %}<|im_start|>{{m.role}}\n{% for c in m.content %}"
        "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% else %}{{c.text}}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    made.save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(patch_size=4, min_pixels=64, max_pixels=1024)
    images.save_pretrained(folder)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = Qwen2VLConfig(
        text_config=text_config(made, rope_parameters=rope),
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
        },
        **{f"{name}_token_id": made.convert_tokens_to_ids(text) for name, text in tokens.items()},
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)


FAMILIES: dict[str, Callable[[Path], None]] = {
    "paligemma": paligemma,
    "smolvlm": smolvlm,
    "smolvlm2": smolvlm2,
    "qwen2-vl": qwen2_vl,
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of each family."""
    import torch

    folder = tmp_path_factory.mktemp("checkpoints")
    for name, make in FAMILIES.items():
        torch.manual_seed(0)
        make(folder / name)
    return folder


# -- running it --------------------------------------------------------------------------------


def frame(seed: int, size: tuple[int, int] = (48, 64)) -> ImageRgb8Msg:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    image = ImageRgb8Msg(pixels=pixels, frame_id=seed)
    image.publish(tov_ns=1000 + seed)
    return image


def ask(
    folder: Path, *, frames: int = 2, task: type[Inference] = Inference, **config: Any
) -> list[Any]:
    given = {"max_new_tokens": 6, "device": "cpu", **config}
    inputs = [{"image": frame(seed)} for seed in range(1, frames + 1)]
    return [out["answer"] for out in run_task(task, inputs=inputs, config=given, graph_dir=folder)]


def comparable(answers: list[Any]) -> list[bytes]:
    for answer in answers:
        answer.latency_ms = 0.0
    return [b"".join(map(bytes, answer.encode())) for answer in answers]


@pytest.fixture
def family(request: pytest.FixtureRequest) -> str:
    """The name of a checkpoint."""
    return str(request.param)


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_a_checkpoint_answers_the_same_twice(checkpoints: Path, family: str) -> None:
    once, twice = (
        ask(checkpoints, backend="transformers", model=family, prompt="cap en") for _ in range(2)
    )
    assert comparable(once) == comparable(twice)
    first, second = once
    assert (first.prompt, first.backend) == ("cap en", "transformers")
    assert 1 <= first.tokens <= 6
    assert first.latency_ms >= 0
    assert [first.frame_id, first.frame_cycle, first.tov_ns] == [1, 0, 1001]
    assert [second.frame_id, second.frame_cycle, second.tov_ns] == [2, 1, 1002]


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_a_static_cache_gives_the_same_answers(checkpoints: Path, family: str) -> None:
    config = {"backend": "transformers", "model": family}
    plain, static = (ask(checkpoints, **config, static_cache=given) for given in (False, True))
    assert comparable(static) == comparable(plain)


@pytest.mark.parametrize("family", [*FAMILIES, "embedded"], indirect=True)
def test_no_prompt_and_no_size_of_picture_crashes(checkpoints: Path, family: str) -> None:
    prompts = [
        "",
        " ",
        "\n",
        "\0",
        "图片里有什么? 😀",
        "\ud800 half",
        "<image>",
        "<im<image>age> twice",
        "<|image_pad|><|video_pad|>",
        "<|im_end|><eos>",
        "{{ messages }} {% if %}",
        "x" * 300,
    ]
    sizes = [(1, 1), (3, 640), (7, 5), (480, 3), (270, 480)]
    config = (
        {"backend": "embedded"}
        if family == "embedded"
        else {
            "backend": "transformers",
            "model": family,
        }
    )
    if family == "qwen2-vl":  # its processor refuses pictures longer than 200 times their width
        sizes.remove((3, 640))
    pictures = [{"image": frame(5, sizes[k % len(sizes)])} for k in range(len(prompts))]

    class Prompts(Inference):
        def process(
            self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
        ) -> None:
            changed = {"prompt": prompts[ctx.cycle]}
            self.config = self.config.model_copy(update=changed)
            super().process(ctx, image, answer)

    answers = run_task(
        Prompts,
        inputs=pictures,
        config={"max_new_tokens": 1, "device": "cpu", **config},
        graph_dir=checkpoints,
    )
    for answer in answers:
        answer["answer"].encode()
    assert answers[5]["answer"].prompt == "? half"


def test_the_shipped_model_is_the_default(tmp_path: Path) -> None:
    once, twice = ask(tmp_path), ask(tmp_path)
    assert comparable(once) == comparable(twice)
    assert [answer.backend for answer in once] == ["embedded", "embedded"]
    assert [answer.prompt for answer in once] == ["cap en", "cap en"]


@pytest.mark.parametrize(
    ("capable", "expected"),
    [
        ({"architecture": "x86_64", "amx_bf16": True}, "bfloat16"),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"architecture": "aarch64", "bf16": True}, "bfloat16"),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False}, "float32"),
        (None, "float32"),  # a torch that does not tell
    ],
)
def test_auto_is_bfloat16_on_a_cpu_that_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capable: dict[str, Any] | None, expected: str
) -> None:
    import torch

    if capable is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable, raising=False)
    assert pick_dtype("auto", "cpu") == expected
    assert pick_dtype("auto", "cuda:1") == "bfloat16"
    assert pick_dtype("float16", "cpu") == "float16"


def test_a_model_runs_in_the_type_that_the_cpu_has_and_the_shipped_one_in_float32(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def where(**config: Any) -> Any:
        with capture_logs() as records:
            answers = ask(checkpoints, **config)
        assert min(answer.tokens for answer in answers) >= 1
        return next(it["where"] for it in records if it["event"] == "model loaded")

    config = {"backend": "transformers", "model": "paligemma"}
    assert where(**config, dtype="bfloat16") == "cpu bfloat16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert where(**config) == "cpu bfloat16"
    assert where(**config, dtype="float32") == "cpu float32"
    assert where() == "cpu float32"


def test_max_new_tokens_bounds_the_answer(checkpoints: Path) -> None:
    for bound in (1, 4):
        answers = ask(checkpoints, backend="transformers", model="smolvlm", max_new_tokens=bound)
        assert max(answer.tokens for answer in answers) <= bound


def test_sampling_depends_on_the_seed_and_the_cycle_alone(checkpoints: Path) -> None:
    config = {"backend": "transformers", "model": "smolvlm", "do_sample": True, "temperature": 2.0}
    first, again, other = (ask(checkpoints, **config, seed=seed) for seed in (1, 1, 2))
    assert comparable(first) == comparable(again)
    assert comparable(first) != comparable(other)


def test_a_checkpoint_that_names_a_fast_image_processor_loads(checkpoints: Path) -> None:
    config_file = checkpoints / "smolvlm" / "processor_config.json"
    config = json.loads(config_file.read_text())
    before = comparable(ask(checkpoints, backend="transformers", model="smolvlm"))
    config["image_processor"]["image_processor_type"] = "Idefics3ImageProcessorFast"
    original = config_file.read_text()
    try:
        config_file.write_text(json.dumps(config))
        after = comparable(ask(checkpoints, backend="transformers", model="smolvlm"))
    finally:
        config_file.write_text(original)
    assert before == after


# -- errors ------------------------------------------------------------------------------------


def failure(folder: Path, **config: Any) -> str:
    with pytest.raises(ModelError) as caught:
        ask(folder, backend="transformers", **config)
    return str(caught.value)


def test_a_missing_package_is_named(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    assert failure(checkpoints, model="smolvlm2") == (
        f"model '{checkpoints}/smolvlm2': Package `num2words` is required to run SmolVLM "
        "processor. Install it with `pip install num2words`"
    )


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert failure(tmp_path, model="./mine") == (
        f"model './mine': no such folder: {tmp_path}/mine; give a checkpoint folder, or a hub id "
        "such as 'google/paligemma-3b-mix-224'"
    )


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert failure(tmp_path, model="mine") == (
        f"model 'mine': the folder {tmp_path}/mine holds no config.json"
    )


def test_an_unreadable_checkpoint_is_named(tmp_path: Path, checkpoints: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    text = failure(tmp_path, model=".")
    assert text.startswith(f"cannot load the model in {tmp_path}: ")
    assert text.endswith(
        "; it must be a checkpoint folder as `save_pretrained` writes it, with its processor and "
        "tokenizer"
    )
    assert "\n" not in text


def test_a_hub_id_that_is_not_in_the_cache_names_the_cache(tmp_path: Path) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    assert failure(tmp_path, model="nobody/nothing", local_files_only=True) == (
        f"model 'nobody/nothing' is not in the cache {HF_HUB_CACHE}, and local_files_only is "
        "true; run `hf download nobody/nothing` once where there is a network, or give a folder"
    )


def test_a_hub_id_without_a_network_names_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = failure(tmp_path, model="nobody/nothing")
    assert text.startswith(
        f"cannot load model 'nobody/nothing': it is not in the cache {constants.HF_HUB_CACHE}, and "
        "could not be downloaded ("
    )
    assert text.endswith("); check the id and the network, or give a folder")


def test_a_missing_gpu_is_named(checkpoints: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert failure(checkpoints, model="smolvlm", device="cuda:3") == (
        f"device 'cuda:3': torch {torch.__version__} sees no such GPU; GPUs: none; "
        "use device: cpu or auto, or a torch build with CUDA"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"backend": "transformers"},
            (
                "Value error, backend transformers needs a model: a checkpoint folder, or a hub id "
                "such as 'google/paligemma-3b-mix-224'"
            ),
        ),
        ({"device": "tpu"}, "String should match pattern '^(auto|cpu|cuda(:\\d+)?)$'"),
        ({"max_new_tokens": 0}, "Input should be greater than 0"),
    ],
)
def test_impossible_settings_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Inference.Config(**config)
    assert caught.value.errors()[0]["msg"] == message
