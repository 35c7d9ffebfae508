"""The public oracle: streaming decode with raw keys and positions in the cache, the slow plain way.

Independent of the package's caches, rotation and block evaluation. Position 0 makes RoPE the
identity, so the model runs with all positions 0 and the cache holds raw keys; the attention
function rotates them, at every step, for the places where they stand now, with the model's own
tables.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

Keep = Callable[[int, int], torch.Tensor | None]
"""(step, length) -> indices of the entries that stay, or None."""


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    dim = cos.shape[-1]
    turned, rest = x[..., :dim], x[..., dim:]
    half = dim // 2
    swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
    return torch.cat([turned * cos + swapped * sin, rest], dim=-1)


def _attention(module, query, key, value, mask, scaling, dropout=0.0, *, tables, **_):
    length = key.shape[2]
    cos, sin = (table[:, :length] for table in tables)
    key = _rotate(key, cos[:, None], sin[:, None])
    query = _rotate(query, cos[:, None, -1:], sin[:, None, -1:])
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    weights = (query @ key.transpose(-1, -2) * scaling).softmax(-1)
    return (weights @ value).transpose(1, 2), None


AttentionInterface.register("oracle", _attention)


@torch.inference_mode()
def oracle_logits(model: PreTrainedModel, ids: torch.Tensor, keep: Keep) -> torch.Tensor:
    """Logits after every token of `ids`, fed one at a time: [batch, tokens, vocab]."""
    rotary = next(m for name, m in model.named_modules() if name.endswith("rotary_emb"))
    positions = torch.arange(ids.shape[1] + 1)[None]
    tables = rotary(torch.zeros(1, 1, 1), positions)
    cache = DynamicCache()
    zero = torch.zeros(1, 1, dtype=torch.long)
    before = model.config._attn_implementation
    model.set_attn_implementation("oracle")
    steps = []
    try:
        for step in range(ids.shape[1]):
            output = model(
                input_ids=ids[:, step : step + 1],
                position_ids=zero,
                past_key_values=cache,
                use_cache=True,
                tables=tables,
            )
            steps.append(output.logits[:, -1])
            chosen = keep(step, cache.layers[0].keys.shape[2])
            if chosen is not None:
                for layer in cache.layers:
                    layer.keys = layer.keys[:, :, chosen]
                    layer.values = layer.values[:, :, chosen]
    finally:
        model.set_attn_implementation(before)
    return torch.stack(steps, dim=1)
