"""The embedded model's network, tokenizer and processor, built from nothing.

The classes are those of SmolVLM (Idefics3), only smaller: a 64x64 input in patches of 8, four
vision and four text layers 128 wide, 16 image tokens. Whatever runs SmolVLM runs this.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from flowrun.tasks.embedded.training.prompts import corpus, loc_tokens

IMAGE_SIZE = 64
PATCH_SIZE = 8
SCALE_FACTOR = 2
GRID = IMAGE_SIZE // PATCH_SIZE
IMAGE_TOKENS = (GRID // SCALE_FACTOR) ** 2
WIDTH = 128
LAYERS = 4
HEADS = 4
VOCABULARY = 512
BEGIN, END, PAD, UNKNOWN = "<|im_start|>", "<end_of_utterance>", "<|im_end|>", "<|endoftext|>"
IMAGE, FAKE, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
# SmolVLM's own template, with the text trimmed: `cap en\n` and `cap en` are one prompt.
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] | trim }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def build_tokenizer() -> Any:
    """Return a byte-level BPE tokenizer trained on `prompts.corpus()`.

    Location tokens are ordinary added tokens: they survive `skip_special_tokens=True`.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [BEGIN, PAD, UNKNOWN, END, FAKE, IMAGE, GLOBAL]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in loc_tokens()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[FAKE, IMAGE, END, GLOBAL],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_processor() -> Any:
    """Return the processor: tokenizer, PIL image processor and chat template. No torchvision."""
    image_processor = Idefics3ImageProcessorPil(
        do_image_splitting=False,
        size={"longest_edge": IMAGE_SIZE},
        max_image_size={"longest_edge": IMAGE_SIZE},
    )
    return Idefics3Processor(
        image_processor,
        build_tokenizer(),
        image_seq_len=IMAGE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: Any, *, seed: int) -> Any:
    """Return the network in float32 with random weights drawn from `seed`."""
    tokenizer = processor.tokenizer
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        scale_factor=SCALE_FACTOR,
        tie_word_embeddings=True,
        vision_config=_vision_config(),
        text_config=_text_config(len(tokenizer)) | ids,
        **ids,
    )
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(config)
    for name, value in ids.items():
        setattr(model.generation_config, name, value)
    model.generation_config.max_new_tokens = 50
    model.generation_config.do_sample = False
    return model


def _vision_config() -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "initializer_range": 0.05,
    }


def _text_config(vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": WIDTH // HEADS,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.05,
        "tie_word_embeddings": True,
    }


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write `model` (rounded to bfloat16) and `processor` to `folder`; `model` is not changed."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def resize(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `pixels` (RGB, any size) as the 64x64 picture that the processor makes of it.

    The processor resizes twice: the longest edge first, then both to the input's square. Training
    does the same without the processor's overhead; a test holds the two equal.
    """
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels).resize(_first_size(width, height), Image.Resampling.LANCZOS)
    return np.array(image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS))


def _first_size(width: int, height: int) -> tuple[int, int]:
    aspect = width / height
    if width >= height:
        short = int(IMAGE_SIZE / aspect)
        return IMAGE_SIZE, short + short % 2
    short = int(IMAGE_SIZE * aspect)
    return short + short % 2, IMAGE_SIZE


def normalize(pixels: Any) -> Any:
    """Return a batch of 64x64 RGB pictures (uint8 N H W 3) as the network's input (N 3 H W)."""
    return (pixels.permute(0, 3, 1, 2).float() / 255.0 - 0.5) / 0.5
