"""How close a prompt's approximated cache comes to the true one, beside what the task says."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, [kv_heads, tokens, head_dim]."""


def kl_by_token(reference: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """KL(reference || approximation) of the next token for logits [..., vocab], in nats: [...]."""
    true, guess = reference.double().log_softmax(-1), logits.double().log_softmax(-1)
    return (true.exp() * (true - guess)).sum(-1).clamp_min(0)


def kl_nats(reference: torch.Tensor, logits: torch.Tensor) -> float:
    """The mean of `kl_by_token`."""
    return float(kl_by_token(reference, logits).mean())


def kv_error(
    reference: Sequence[Pair], approximation: Sequence[Pair], span: tuple[int, int]
) -> list[float]:
    """Error of keys and values on a span of positions, relative to their norm; one per layer."""
    errors = []
    for true, guess in zip(reference, approximation, strict=True):
        error, norm = (
            sum(float(part[:, slice(*span)].double().square().sum()) for part in parts)
            for parts in ([a - b for a, b in zip(true, guess, strict=True)], true)
        )
        errors.append((error / norm) ** 0.5 if norm else 0.0)
    return errors


def greedy_match(reference: Sequence[int], tokens: Sequence[int]) -> float:
    """Share of a reference answer that is matched before the first difference."""
    for index, (true, guess) in enumerate(zip(reference, tokens, strict=False)):
        if true != guess:
            return index / len(reference)
    return min(len(reference), len(tokens)) / len(reference)
