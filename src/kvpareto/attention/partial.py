"""Attention over a part of the keys, and the parts put together again.

A part's output and the natural logarithm L of its partition function are all that the rest needs to
know of it: the whole is the mean of the outputs, weighted by exp(L). In float32 throughout.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

_LOWEST = torch.finfo(torch.float32).min


class Partial(NamedTuple):
    """What a part of the keys makes of the queries, or several parts do.

    Attributes:
        output: [..., heads, queries, head_dim]; zero where no key is visible.
        lse: [..., heads, queries], natural logarithm of the sum of exp(logit); -inf where no key is
            visible.
    """

    output: torch.Tensor
    lse: torch.Tensor


def logits_of(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits of all heads without a copy of the keys for each head of a group.

    Args:
        query: [heads, queries, head_dim], scaled.
        key: [..., kv_heads, tokens, head_dim]; leading dimensions are parts of equal length.
        mask: broadcast to [..., heads, queries, tokens], bool; None: all keys are visible.

    Returns:
        [..., heads, queries, tokens].
    """
    heads, queries, head_dim = query.shape
    # The heads of a group are neighbours, so they can pass for queries of their key-value head.
    folded = query.float().reshape(key.shape[-3], heads // key.shape[-3] * queries, head_dim)
    logits = (folded @ key.float().mT).view(*key.shape[:-3], heads, queries, key.shape[-2])
    return logits if mask is None else logits.masked_fill(~mask, -torch.inf)


def log_partition(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """L alone, [..., heads, queries]; arguments as `logits_of`."""
    return logits_of(query, key, mask).logsumexp(-1)


def partial_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> Partial:
    """Output and L of a part; arguments as `logits_of`, values shaped as the keys."""
    logits = logits_of(query, key, mask)
    lse = logits.logsumexp(-1)
    # Where no key is visible, -inf - -inf would be NaN.
    weights = logits.sub_(lse.clamp_min(_LOWEST)[..., None]).exp_()
    rows = query.shape[0] // key.shape[-3] * query.shape[1]
    folded = weights.view(*key.shape[:-2], rows, key.shape[-2]) @ value.float()
    return Partial(folded.view(*key.shape[:-3], *query.shape), lse)


class OnlineMerge:
    """Parts, one by one: sum of exp(L - top) o over sum of exp(L - top), top the largest L."""

    def __init__(self, query: torch.Tensor) -> None:
        """Start with nothing, for queries [heads, queries, head_dim]."""
        self._output = torch.zeros_like(query, dtype=torch.float32)
        self._total = self._output.new_zeros(query.shape[:-1])
        self._top = torch.full_like(self._total, -torch.inf)

    def add(self, part: Partial) -> None:
        """Take a part in, in any order; a part that is nowhere visible changes nothing."""
        top = torch.maximum(self._top, part.lse)
        level = top.clamp_min(_LOWEST)
        kept, added = (self._top - level).exp_(), (part.lse - level).exp_()
        self._output.mul_(kept[..., None]).addcmul_(part.output, added[..., None])
        self._total.mul_(kept).add_(added)
        self._top = top

    def result(self) -> Partial:
        """Output and L of all parts together."""
        lse = self._top + self._total.log()
        return Partial(self._output / self._total.clamp_min(1e-30)[..., None], lse)
