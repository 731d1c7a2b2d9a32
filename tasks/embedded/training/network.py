"""The embedded model's network, tokenizer and processor, built from nothing.

The classes are those of SmolVLM (Idefics3), only smaller: a 64x64 input in patches of 8, four
vision and four text layers 128 wide, 16 image tokens. Whatever runs SmolVLM runs this.

The tokenizer knows whole words, those of `wordings.vocabulary`, and has one token for every other
word: so a word that training never had is no riddle to the model, which answers what is true of all
of them.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    AutoTokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from flowrun.tasks.embedded.training.prompts import loc_tokens
from flowrun.tasks.embedded.training.scenes import COLORS, SHAPES
from flowrun.tasks.embedded.training.wordings import vocabulary

IMAGE_SIZE = 64
PATCH_SIZE = 8
SCALE_FACTOR = 2
GRID = IMAGE_SIZE // PATCH_SIZE
IMAGE_TOKENS = (GRID // SCALE_FACTOR) ** 2
WIDTH = 128
LAYERS = 4
HEADS = 4
BEGIN, END, PAD, UNKNOWN = "<|im_start|>", "<end_of_utterance>", "<|im_end|>", "<|endoftext|>"
IMAGE, FAKE, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
# SmolVLM's own template, with the text trimmed and in lower case: `Cap en\n` and `cap en` are one
# prompt. The space makes its first word a token like all others, which have one before them.
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}"
    "{{ ' ' + (line['text'] | trim | lower) }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


_EMBEDDING = "model.text_model.embed_tokens.weight"
_KEPT = r"\p{L}\p{N}\s,;:"
# What an answer may begin with, besides a colour, a shape and a number.
_FIRST_WORDS = ("a", "an", "yes", "no", "none", "nothing", "on", "at", "in", "there", "I")
_OTHER_TOKENS = ("User", "Assistant", ":", ",", "\u0120;", "\u0120", "\u010a")


def build_tokenizer() -> Any:
    """Return a tokenizer of whole words: those of `wordings.vocabulary` and of the answers.

    A word is written as GPT-2 writes it, with the space before it as `\u0120`. Marks are left out of
    a prompt, but for those that an answer may have. Location tokens are ordinary added tokens: they
    survive `skip_special_tokens=True`.
    """
    first = [*COLORS, *SHAPES, *"0123", *_FIRST_WORDS]
    words = [*first, *(f"\u0120{word}" for word in [*vocabulary(), *"0123456789"])]
    tokens = [BEGIN, PAD, UNKNOWN, END, FAKE, IMAGE, GLOBAL, *words, *_OTHER_TOKENS]
    numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(rf"\s*[^{_KEPT}]+\s*$"), ""),
            normalizers.Replace(Regex(rf"[^{_KEPT}]+"), " "),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([BEGIN, PAD, UNKNOWN, END, FAKE, IMAGE, GLOBAL])
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


def carry_over(model: Any, processor: Any, folder: Path) -> None:
    """Give `model` the weights of the checkpoint in `folder`, whose tokenizer may be another.

    A token gets the mean of the embeddings of what the other tokenizer makes of its text; that of
    unknown words gets the mean of the other's single letters where the other spells such words.
    """
    before = Idefics3ForConditionalGeneration.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32
    )
    other = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    weights = before.state_dict()
    old = weights[_EMBEDDING]
    letters = [number for text, number in other.get_vocab().items() if len(text) == 1]
    new = model.state_dict()[_EMBEDDING].clone()
    for text, number in processor.tokenizer.get_vocab().items():
        if text in other.get_vocab():
            new[number] = old[other.get_vocab()[text]]
        elif parts := other(text.replace("\u0120", " ").replace("\u010a", "\n"))["input_ids"]:
            new[number] = old[parts].mean(0)
    if other.unk_token_id not in other(" zyx")["input_ids"]:
        new[processor.tokenizer.unk_token_id] = old[letters].mean(0)
    model.load_state_dict({**weights, _EMBEDDING: new, "lm_head.weight": new})


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
