"""How each model family names its parts: the only place that knows."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from kvpareto.attention.rope import Rotary

_ROTARY = {
    "gpt_neox": "gpt_neox.rotary_emb",
    "llama": "model.rotary_emb",
    "mistral": "model.rotary_emb",
    "qwen2": "model.rotary_emb",
    "qwen3": "model.rotary_emb",
}


class UnsupportedModelError(ValueError):
    """The model's family or its kind of RoPE is not supported; the message lists what is."""


def rotary(model: PreTrainedModel) -> Rotary:
    """The model's rotation.

    Raises:
        UnsupportedModelError: another family, a sliding window, or frequencies that change with
            the length (dynamic NTK, longrope), for which a stored key cannot be moved by one
            rotation.
    """
    family = model.config.model_type
    if family not in _ROTARY:
        raise UnsupportedModelError(
            f"model family {family!r} is not supported; supported: {', '.join(sorted(_ROTARY))}"
        )
    module = model.get_submodule(_ROTARY[family])
    kind = module.rope_type
    if kind in ("dynamic", "longrope"):
        raise UnsupportedModelError(
            f"rope type {kind!r} changes its frequencies with the length: cached keys cannot move"
        )
    window = getattr(model.config, "sliding_window", None)
    kinds = getattr(model.config, "layer_types", None) or ["sliding_attention"]
    if window is not None and "sliding_attention" in kinds:
        raise UnsupportedModelError(
            f"a sliding window of {window} tokens is not supported: the cache would ignore it"
        )
    inv_freq: torch.Tensor = module.inv_freq  # type: ignore[assignment]
    return Rotary(inv_freq.detach())


def layer_count(model: PreTrainedModel) -> int:
    return int(model.config.num_hidden_layers)


def trained_context(model: PreTrainedModel) -> int:
    """Longest length, in tokens, whose positions the model was trained on."""
    return int(model.config.max_position_embeddings)


def kv_heads(model: PreTrainedModel) -> int:
    """Key-value heads per layer (fewer than query heads under grouped-query attention)."""
    config = model.config
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
