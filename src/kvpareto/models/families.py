"""How each model family names its parts: the only place that knows."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any

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


_PROJECTION = re.compile(r"\b(q_proj|k_proj|v_proj|query_key_value)\b")


class UnsupportedModelError(ValueError):
    """The model's family or its kind of RoPE is not supported; the message lists what is."""


def rotary(model: PreTrainedModel) -> Rotary:
    """The model's rotation.

    Raises:
        UnsupportedModelError: another family, a sliding window, or frequencies that change with
            the length (dynamic NTK, longrope), for which a stored key cannot be moved by one
            rotation.
    """
    found = _rotation(model)
    windows = {sliding_window(model, layer) for layer in range(layer_count(model))} - {None}
    if windows:
        raise UnsupportedModelError(
            f"a sliding window of {windows.pop()} tokens is not supported: the cache would ignore "
            "it"
        )
    return found


def _rotation(model: PreTrainedModel) -> Rotary:
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
    inv_freq: torch.Tensor = module.inv_freq  # type: ignore[assignment]
    return Rotary(inv_freq.detach())


def sliding_window(model: PreTrainedModel, layer: int) -> int | None:
    """Keys that a query of a layer sees, itself included; None: all before it."""
    window = getattr(model.config, "sliding_window", None)
    kinds = getattr(model.config, "layer_types", None)
    return window if kinds is None or kinds[layer] == "sliding_attention" else None


def layer_count(model: PreTrainedModel) -> int:
    return int(model.config.num_hidden_layers)


def trained_context(model: PreTrainedModel) -> int:
    """Longest length, in tokens, whose positions the model was trained on."""
    return int(model.config.max_position_embeddings)


def kv_heads(model: PreTrainedModel) -> int:
    """Key-value heads per layer (fewer than query heads under grouped-query attention)."""
    config = model.config
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def head_dim(model: PreTrainedModel) -> int:
    """Width of one head."""
    config = model.config
    found = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(found)


class Blocks(ABC):
    """A model's own submodules, one step at a time: for a forward pass that is not the usual one.

    Hidden states are [1, rows, hidden_size]; the rows need not be consecutive tokens.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.rotary = _rotation(model)
        self.layers = layer_count(model)
        # Scaled cosines (YaRN): every rotated query and key is multiplied by this.
        turning: Any = model.get_submodule(_ROTARY[model.config.model_type])
        self.rotary_scale = float(turning.attention_scaling)
        self._output: Any = model.get_output_embeddings()
        self._trunk: Any = model.base_model
        self.windows = [sliding_window(model, layer) for layer in range(self.layers)]

    @abstractmethod
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids [rows] to hidden states."""

    @abstractmethod
    def project(
        self, layer: int, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [1, heads, rows, head_dim], keys and values [1, kv_heads, rows, head_dim].

        Before RoPE, and after the norm of queries and keys where there is one.
        """

    @abstractmethod
    def finish(self, layer: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The layer's output.

        Args:
            hidden: its input.
            attended: attention's output, [1, heads, rows, head_dim].
        """

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final norm and output layer: [1, rows, vocab]."""

    @property
    @abstractmethod
    def softmax_scale(self) -> float:
        """Factor of query times key."""

    @property
    def layer_weights(self) -> tuple[int, int]:
        """Weights of one layer's matrices: query, key and value projections; all others."""
        matrices = {
            name: parameter.numel()
            for name, parameter in self._trunk.layers[0].named_parameters()
            if parameter.ndim == 2
        }
        projection = sum(size for name, size in matrices.items() if _PROJECTION.search(name))
        return projection, sum(matrices.values()) - projection

    def angles(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What `turned` takes to bring queries and keys to positions: cosine and sine."""
        cos, sin = self.rotary.angles(positions)
        return cos * self.rotary_scale, sin * self.rotary_scale


class _LlamaBlocks(Blocks):
    """Llama, Mistral, Qwen2 (biases), Qwen3 (norms of queries and keys)."""

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self._trunk.embed_tokens(ids[None])  # type: ignore[no-any-return]

    def project(
        self, layer: int, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        block = self._trunk.layers[layer]
        own, normed = block.self_attn, block.input_layernorm(hidden)
        shape = (*hidden.shape[:-1], -1, own.head_dim)
        query, key, value = (
            linear(normed).view(shape) for linear in (own.q_proj, own.k_proj, own.v_proj)
        )
        if hasattr(own, "q_norm"):
            query, key = own.q_norm(query), own.k_norm(key)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def finish(self, layer: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        block = self._trunk.layers[layer]
        hidden = hidden + block.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
        return hidden + block.mlp(block.post_attention_layernorm(hidden))  # type: ignore[no-any-return]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._output(self._trunk.norm(hidden))  # type: ignore[no-any-return]

    @property
    def softmax_scale(self) -> float:
        return float(self._trunk.layers[0].self_attn.scaling)


class _NeoxBlocks(Blocks):
    """GPT-NeoX: one fused projection, partial rotary, attention and MLP side by side."""

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self._trunk.embed_in(ids[None])  # type: ignore[no-any-return]

    def project(
        self, layer: int, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        block = self._trunk.layers[layer]
        own = block.attention
        fused = own.query_key_value(block.input_layernorm(hidden))
        heads = fused.view(*hidden.shape[:-1], -1, 3 * own.head_size).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=-1)
        return query, key, value

    def finish(self, layer: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        block = self._trunk.layers[layer]
        output = block.attention.dense(attended.transpose(1, 2).flatten(2))
        beside = hidden if block.use_parallel_residual else hidden + output
        return hidden + output + block.mlp(block.post_attention_layernorm(beside))  # type: ignore[no-any-return]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._output(self._trunk.final_layer_norm(hidden))  # type: ignore[no-any-return]

    @property
    def softmax_scale(self) -> float:
        return float(self._trunk.layers[0].attention.scaling)


def blocks(model: PreTrainedModel) -> Blocks:
    """A model taken apart.

    Raises:
        UnsupportedModelError: another family, or frequencies that change with the length.
    """
    return _NeoxBlocks(model) if model.config.model_type == "gpt_neox" else _LlamaBlocks(model)
