"""The embedded checkpoint as GGUF files, for llama.cpp's `llama-server`.

    python -m flowrun.tasks.embedded.training.to_gguf --out DIR
    llama-server -m DIR/model.gguf --mmproj DIR/mmproj.gguf --jinja

Needs the package `gguf`. Made for this one model: a checkpoint of another size of the same classes
(Idefics3 with a LLaMA text side, tied embeddings, a tokenizer of whole words) converts too.

llama.cpp shows such a model each picture twice, as one tile and as an overview, where ours has
learnt to look once: about what its answers are worth there, see the test.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.tasks.embedded import MODEL_DIR

__all__ = ["CHAT_TEMPLATE", "convert"]

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}User:{% set parts = message['content'].split('__>') %}"
    "{% if parts | length > 1 %}{{ parts | first }}__>{% endif %}"
    "{{ ' ' + (parts | last | trim | lower | replace('?', '') | replace('.', '')) }}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""The checkpoint's own, but llama.cpp puts a marker such as `<__media__>` before the text for a picture,
and its tokenizer leaves no marks out."""

_MORE_TOKENS = ("\n\n", "<row_1_col_1>")
"""llama.cpp writes these around the pictures of an Idefics3; our vocabulary does without them. They
get embeddings of zeros."""

_SPACE = "\u0120"
_TEXT, _VISION, _CONNECTOR = "model.text_model.", "model.vision_model.", "model.connector."


def convert(out: Path, checkpoint: Path = MODEL_DIR) -> tuple[Path, Path]:
    """Write `model.gguf` (the text side) and `mmproj.gguf` (the vision side) into `out`."""
    from safetensors import safe_open

    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((checkpoint / "config.json").read_text())
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118
    model, projector = out / "model.gguf", out / "mmproj.gguf"
    _write_text_side(model, checkpoint, config, weights)
    _write_vision_side(projector, checkpoint, config, weights)
    return model, projector


def _write_text_side(
    path: Path, checkpoint: Path, config: dict[str, Any], weights: dict[str, NDArray[np.float32]]
) -> None:
    import gguf

    text = config["text_config"]
    heads, layers = text["num_attention_heads"], text["num_hidden_layers"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("flowrun embedded")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(layers)
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_rope_freq_base(text["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(text["head_dim"])
    more = len(_letters(checkpoint)) + len(_MORE_TOKENS)
    writer.add_vocab_size(text["vocab_size"] + more)
    _add_tokenizer(writer, checkpoint, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    for name, tensor in weights.items():
        if name.startswith(_TEXT):
            own = f"model.{name.removeprefix(_TEXT)}"
            if own.endswith("q_proj.weight"):
                tensor = _interleaved(tensor, heads)  # noqa: PLW2901
            elif own == "model.embed_tokens.weight":
                tensor = _more_embeddings(tensor, checkpoint)  # noqa: PLW2901
            elif own.endswith("k_proj.weight"):
                tensor = _interleaved(tensor, text["num_key_value_heads"])  # noqa: PLW2901
            writer.add_tensor(_tensor_name(names, own), np.ascontiguousarray(tensor))
    _write(writer)


def _write_vision_side(
    path: Path, checkpoint: Path, config: dict[str, Any], weights: dict[str, NDArray[np.float32]]
) -> None:
    import gguf

    vision, text = config["vision_config"], config["text_config"]
    images = json.loads((checkpoint / "processor_config.json").read_text())["image_processor"]
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name("flowrun embedded")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.IDEFICS3)
    writer.add_vision_projection_dim(text["hidden_size"])
    writer.add_vision_image_size(vision["image_size"])
    writer.add_vision_preproc_image_size(images["size"]["longest_edge"])
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["num_hidden_layers"])
    writer.add_vision_head_count(vision["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(vision["layer_norm_eps"])
    writer.add_vision_projector_scale_factor(config["scale_factor"])
    writer.add_vision_use_gelu(True)
    writer.add_vision_image_mean(images["image_mean"])
    writer.add_vision_image_std(images["image_std"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, vision["num_hidden_layers"])
    for name, tensor in weights.items():
        if name.startswith((_VISION, _CONNECTOR)):
            writer.add_tensor(_tensor_name(names, name), np.ascontiguousarray(tensor))
    _write(writer)


def _add_tokenizer(writer: Any, checkpoint: Path, config: dict[str, Any]) -> None:
    import gguf

    made = _tokenizer(checkpoint)
    vocabulary = _vocabulary(made)
    kinds = {
        token["content"]: gguf.TokenType.CONTROL
        if token["special"]
        else gguf.TokenType.USER_DEFINED
        for token in made["added_tokens"]
    }
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    tokens = [*words, *_letters(checkpoint), *_MORE_TOKENS]
    kinds |= dict.fromkeys(_MORE_TOKENS, gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")  # takes a word of the vocabulary whole
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_token_merges([f"{_SPACE} {_SPACE}"])  # there must be one
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["text_config"]["pad_token_id"])
    writer.add_add_bos_token(False)  # the template writes it
    writer.add_chat_template(CHAT_TEMPLATE)


def _tokenizer(checkpoint: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((checkpoint / "tokenizer.json").read_text())
    return made


def _vocabulary(made: dict[str, Any]) -> dict[str, int]:
    words: dict[str, int] = made["model"]["vocab"]
    return words | {token["content"]: token["id"] for token in made["added_tokens"]}


def _letters(checkpoint: Path) -> list[str]:
    """The bytes that llama.cpp spells a word with which the vocabulary does not have."""
    from tokenizers import pre_tokenizers

    known = _vocabulary(_tokenizer(checkpoint))
    return sorted(set(pre_tokenizers.ByteLevel.alphabet()) - known.keys())


def _more_embeddings(embeddings: NDArray[np.float32], checkpoint: Path) -> NDArray[np.float32]:
    """Return `embeddings` with a row for each more token: a letter has that of an unknown word."""
    made = _tokenizer(checkpoint)
    unknown = embeddings[_vocabulary(made)[made["model"]["unk_token"]]]
    letters = np.tile(unknown, (len(_letters(checkpoint)), 1))
    others = np.zeros((len(_MORE_TOKENS), embeddings.shape[1]), dtype=embeddings.dtype)
    return np.concatenate([embeddings, letters, others])


def _interleaved(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of a query or key projection in ggml's order: rotated pairs side by side, where
    transformers has the first halves of all pairs, then the second ones."""
    rows, columns = weights.shape
    return (
        weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def _tensor_name(names: Any, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ValueError(f"GGUF has no name for {name!r}")
    return str(found)


def _write(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    for made in convert(parser.parse_args().out):
        print(f"{made}: {made.stat().st_size / 2**20:.1f} MiB")
