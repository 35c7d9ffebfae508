"""Which key a query may see, by position."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def visible(rows: torch.Tensor, length: int, window: int | None = None) -> torch.Tensor:
    """Whether the query at `rows[a]` may see the key at position j: j <= rows[a], in the window.

    The causal masks of the usual kernels take the queries for the last ones, or for all. For
    scattered queries both are wrong, and only a comparison of positions is right.

    Args:
        rows: [queries], positions.
        length: number of keys, at positions 0 .. length - 1.
        window: a query sees this many keys, itself included; None: all before it.

    Returns:
        [queries, length], bool.
    """
    key = torch.arange(length, device=rows.device)
    mask = key <= rows[:, None]
    if window is not None:
        mask &= key > rows[:, None] - window
    return mask


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Attention with grouped heads under a mask; torch's fused kernel.

    Args:
        query: [batch, heads, queries, head_dim], at any positions.
        key, value: [batch, kv_heads, length, head_dim].
        mask: broadcast to [batch, heads, queries, length]; bool, or to be added to the logits.
            None: causal, with a query for every key.

    Returns:
        [batch, heads, queries, head_dim].
    """
    if mask is not None and query.is_cuda:
        # With a mask, CUDA's fused kernels take no grouped heads.
        group = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
