"""Causal attention with grouped heads, in several ways that agree."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from kvpareto.attention.mask_cache import causal_mask
from kvpareto.attention.masks import attend, visible
from kvpareto.attention.softmax import stable_softmax

Backend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Attention scaled by 1 / sqrt(head_dim).

Args:
    query: [batch, heads, queries, head_dim].
    key, value: [batch, kv_heads, keys, head_dim]; heads is a multiple of kv_heads.
    mask: [queries, keys] or [batch, 1, queries, keys], bool (true: seen) or to be added (0 or
        -inf). None: causal, with the queries as the last tokens.

Returns:
    [batch, heads, queries, head_dim]; zeros for a query that sees no key.
"""


def reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    softmax: Callable[[torch.Tensor], torch.Tensor] = stable_softmax,
) -> torch.Tensor:
    """The formula, softmax(Q K' / sqrt(d) + mask) V, with softmax in float32 or better."""
    batch, heads, queries, head_dim = query.shape
    kv_heads, keys = key.shape[1:3]
    # Heads that share a key are further queries of it, so that no key has to be repeated.
    stacked = (query * head_dim**-0.5).reshape(batch, kv_heads, -1, head_dim)
    scores = (stacked @ key.mT).view(batch, heads, queries, keys)
    scores = scores.to(score_dtype(scores.dtype))
    if mask is None:
        mask = causal_mask(queries, keys, scores.dtype, scores.device)
    # In place: at 4096 tokens each copy of the scores is as large as many a model.
    scores = (
        scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores.add_(mask)
    )
    weights = softmax(scores).to(value.dtype).view(batch, kv_heads, -1, keys)
    return (weights @ value).view(query.shape)


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which scores are added up, of queries of a dtype."""
    return torch.promote_types(dtype, torch.float32)


def sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """torch's fused kernel; it never has all scores in memory."""
    queries, keys = query.shape[2], key.shape[2]
    if mask is None and queries != keys:
        # The kernel's own causal mask takes the queries for the first tokens.
        mask = visible(torch.arange(keys - queries, keys, device=key.device), keys)
    return attend(query, key, value, mask, query.shape[-1] ** -0.5)


def flex(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """FlexAttention, compiled: the mask is a function, and blocks that nobody sees are left out.

    It is compiled for every shape anew, in seconds. On a CPU it needs a C++ compiler, and has no
    gradients.
    """
    # One kernel for all lengths would do, but what torch 2.13 writes for sizes it does not know
    # is not always C++: it depends on the names that the sizes get.
    return flex_eager(query, key, value, mask, kernel=_compiled_kernel(query.shape, key.shape))


def flex_eager(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    kernel: Callable[..., Any] = flex_attention,
) -> torch.Tensor:
    """FlexAttention as it runs without a compiler, with all scores in memory."""
    batch, queries, keys = query.shape[0], query.shape[2], key.shape[2]
    if mask is None:
        blocks = _causal_blocks(queries, keys, query.device)
    else:
        seen = mask if mask.dtype == torch.bool else mask == 0
        seen = seen.expand(batch, 1, queries, keys)
        blocks = create_block_mask(
            lambda row, head, i, j: seen[row, 0, i, j], batch, None, queries, keys, query.device
        )
    grouped = query.shape[1] != key.shape[1]
    attended: torch.Tensor = kernel(query, key, value, block_mask=blocks, enable_gqa=grouped)
    return attended


@cache
def _compiled_kernel(queries: torch.Size, keys: torch.Size) -> Callable[..., Any]:
    """A function of its own for each shape: recompiling one too often ends without the compiler."""

    def kernel(*inputs: Any, **options: Any) -> Any:
        return flex_attention(*inputs, **options)

    return torch.compile(kernel, dynamic=False, fullgraph=True)


@lru_cache(maxsize=16)
def _causal_blocks(queries: int, keys: int, device: torch.device) -> BlockMask:
    ahead = keys - queries
    with torch.inference_mode(False):  # for training, too, whoever comes first
        return create_block_mask(
            lambda row, head, i, j: j <= i + ahead, None, None, queries, keys, device
        )


BACKENDS: dict[str, Backend] = {
    "reference": reference,
    "sdpa": sdpa,
    "flex": flex,
    "flex_eager": flex_eager,
}


def refusal(backend: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> str:
    """Why a backend cannot attend here, or give gradients to those that ask for them.

    Found out by trying, on tensors as of `Backend`. Empty if it can.
    """
    backward = query.requires_grad
    try:
        with torch.inference_mode(not backward):
            attended = BACKENDS[backend](query, key, value, None)
        if backward:
            attended.sum().backward()
    except RuntimeError as error:  # what is not implemented, and what no compiler was found for
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""
