"""Multi-head self-attention as a module."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from kvpareto.attention.backends import BACKENDS, score_dtype
from kvpareto.attention.mask_cache import CausalMaskCache


class KeyValueCache(Protocol):
    """What the module asks of a cache; those of transformers and of this project have it."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, [batch, kv_heads, new, head_dim]; all of the layer so far."""


class SelfAttention(nn.Module):
    """Causal self-attention with grouped heads, a padding mask, and a key-value cache.

    Exact gradients in every backend that has any (see `backends.refusal`). Runs under autocast and
    torch.compile. The mask cache is no part of the state dict.

    Attributes:
        backend: a name in `BACKENDS`; may be changed at any time.
        masks: the causal masks of the reference backend, and of all under padding.
    """

    def __init__(
        self,
        embedding: int = 256,
        heads: int = 4,
        kv_heads: int | None = None,
        *,
        backend: str = "reference",
        masks: CausalMaskCache | None = None,
        layer: int = 0,
    ) -> None:
        """
        Args:
            embedding: width of the input and the output.
            kv_heads: heads of keys and values, each shared by heads / kv_heads; None: as `heads`.
            masks: shared by the layers of a model, as a rule; None: one of its own.
            layer: the module's layer in a key-value cache.

        Raises:
            ValueError: heads do not divide, or there is no such backend.
        """
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if embedding % heads or heads % kv_heads:
            raise ValueError(
                f"embedding {embedding} must be a multiple of heads {heads}, and heads of "
                f"kv_heads {kv_heads}"
            )
        if backend not in BACKENDS:
            raise ValueError(f"backend {backend!r} must be one of {', '.join(BACKENDS)}")
        self.head_dim = embedding // heads
        self.backend = backend
        self.masks = CausalMaskCache() if masks is None else masks
        self.layer = layer
        self.query = nn.Linear(embedding, embedding, bias=False)
        self.key = nn.Linear(embedding, kv_heads * self.head_dim, bias=False)
        self.value = nn.Linear(embedding, kv_heads * self.head_dim, bias=False)
        self.output = nn.Linear(embedding, embedding, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        padding: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> torch.Tensor:
        """Attend from every token to itself and those before it.

        Args:
            x: [batch, length, embedding].
            padding: [batch, keys], bool, true for tokens and false for padding, which nobody sees;
                keys count what the cache holds already. A padding token sees only tokens before it,
                and gives zeros where there are none.
            cache: holds the tokens before `x`; takes in those of `x`.

        Returns:
            [batch, length, embedding].
        """
        query, key, value = self.project(x)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        mask = self._mask(query, key, padding)
        return self.join(BACKENDS[self.backend](query, key, value, mask))

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, [batch, heads, length, head_dim], key and value, the same with kv_heads."""
        query, key, value = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        return query, key, value

    def join(self, attended: torch.Tensor) -> torch.Tensor:
        """[batch, length, embedding], from the outputs of all heads, [batch, heads, ...]."""
        joined: torch.Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return joined

    def _mask(
        self, query: torch.Tensor, key: torch.Tensor, padding: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Additive for the reference; for the fused kernels bool, and none where causality is all
        there is to say.
        """
        formula = self.backend == "reference"
        if padding is None and not formula:
            return None
        dtype = score_dtype(query.dtype) if formula else torch.bool
        mask = self.masks.get(query.shape[2], key.shape[2], dtype, query.device)
        if padding is None:
            return mask
        seen = padding[:, None, None, :]
        return mask.masked_fill(~seen, -torch.inf) if formula else mask & seen
