"""Softmax of attention scores that may hold infinities."""

from __future__ import annotations

import torch


def stable_softmax(scores: torch.Tensor) -> torch.Tensor:
    """exp(scores) / sum of exp(scores) over the last dimension, exact at any size of the scores.

    The largest score is taken off first, so that no exponential overflows and the sum is at least
    1: nothing has to be added to it. A row of -inf alone, a query that sees no key, gives zeros,
    and so do its gradients. Scores of +inf share the weight, as equal scores do.

    Args:
        scores: [..., keys].

    Returns:
        A tensor like `scores`.
    """
    top = torch.finfo(scores.dtype).max
    # A constant in the gradient: softmax is the same whatever is taken off a row.
    largest = scores.detach().amax(dim=-1, keepdim=True).clamp(-top, top)
    weights = scores.clamp(max=top).sub_(largest).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1.0)
