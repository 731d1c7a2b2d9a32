"""One answer of a model on the CPU, token by token: the likeliest tokens, as transformers' `generate`
finds them, with less Python around each.

`generate`, and what `forward` does besides, take as long as the layers of a small model. `greedy_step`
calls the layers alone. It is used only where its numbers are the model's own to the last bit, so that
a run that was recorded without it replays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

__all__ = ["greedy_step", "likeliest_tokens"]

_HARMLESS = {
    "bos_token_id",
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "use_cache",
}
"""Settings of a checkpoint's generation that do not change which token is the likeliest. Others do, such
as `repetition_penalty` and `bad_words_ids`."""


def greedy_step(model: Any) -> Callable[[Any, int, Any], Any] | None:
    """A function that gives the logits after one more token, of shape (1, vocabulary), for `model`, an
    image-text model of transformers: of the token's id, of shape (1, 1), its position, and the cache,
    to which it adds the token. None where it does not give what the model itself does, and where the
    checkpoint's settings ask for more than the likeliest token.
    """
    import torch
    from transformers import DynamicCache
    from transformers.models.llama.modeling_llama import LlamaModel, apply_rotary_pos_emb

    text: Any = getattr(getattr(model, "model", None), "text_model", None)
    if type(text) is not LlamaModel or "logits_to_keep" not in signature(model.forward).parameters:
        return None
    settings = model.generation_config.to_diff_dict()
    if any(not name.startswith("_") for name in settings.keys() - _HARMLESS):
        return None
    attend = torch.nn.functional.scaled_dot_product_attention
    grouped = text.layers[0].self_attn.num_key_value_groups > 1
    heads = (1, 1, -1, text.layers[0].self_attn.head_dim)

    def step(token: Any, position: int, cache: Any) -> Any:
        x = text.embed_tokens(token)
        cos, sin = text.rotary_emb(x, position_ids=torch.tensor([[position]]))
        for layer, kept in zip(text.layers, cache.layers, strict=True):
            attention = layer.self_attn
            seen = layer.input_layernorm(x)
            query = attention.q_proj(seen).view(heads).transpose(1, 2)
            key = attention.k_proj(seen).view(heads).transpose(1, 2)
            value = attention.v_proj(seen).view(heads).transpose(1, 2)
            query, key = apply_rotary_pos_emb(query, key, cos, sin)
            key, value = kept.update(key, value)
            found = attend(query, key, value, scale=attention.scaling, enable_gqa=grouped)
            x = x + attention.o_proj(found.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return model.lm_head(text.norm(x))[:, -1]

    try:
        with torch.inference_mode():
            caches = [DynamicCache(config=text.config) for _ in range(2)]
            first, second = torch.tensor([[0, 1, 2]]), torch.tensor([[3]])
            for cache in caches:
                text(input_ids=first, cache=cache, use_cache=True)
            ours = step(second, 3, caches[0])
            whole = text(input_ids=second, cache=caches[1], use_cache=True).last_hidden_state
            theirs = model.lm_head(whole)[:, -1]
    except Exception:  # noqa: BLE001  # another release of transformers, or another kind of model
        return None
    return step if torch.equal(ours, theirs) else None


def likeliest_tokens(
    model: Any,
    step: Callable[[Any, int, Any], Any],
    inputs: Mapping[str, Any],
    *,
    limit: int,
    ends: set[int],
    watch: Callable[[Any, Any], Any],
) -> Any:
    """The tokens of `inputs` and of the answer to them, of shape (1, n), as `generate` gives them.

    step: as `greedy_step` gives it.
    inputs: what the model's processor makes of one question.
    limit: number of tokens of the answer at most.
    ends: tokens that end an answer.
    watch: called with the tokens so far after each; one True in what it gives ends the answer.
    """
    import torch

    tokens = inputs["input_ids"]
    begin = tokens.shape[1]
    output = model(**inputs, use_cache=True, logits_to_keep=1)
    logits, cache = output.logits[:, -1], output.cache
    while True:
        token = logits.argmax(-1, keepdim=True)
        tokens = torch.cat((tokens, token), dim=1)
        length = tokens.shape[1]
        if bool(watch(tokens, None)) or int(token) in ends or length - begin >= limit:
            return tokens
        logits = step(token, length - 1, cache)
