"""Offline surprisal: in every chunk, the tokens that the model expected least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kvpareto.reuse.strategy import Budgeted, View, best, budget


@dataclass(frozen=True)
class SurprisalPerChunk(Budgeted):
    """The budget is shared out by length; each chunk then takes its tokens of largest loss.

    The losses come with the store, from the same forward pass that encoded the chunk, so nothing
    is scored online.
    """

    def choose(self, view: View) -> torch.Tensor:
        """
        Raises:
            ValueError: the store has no losses, or not one for each token.
        """
        start, end = view.item.document
        losses = view.surprisal
        if losses is None or len(losses) != len(view.item.ids):
            have = "none" if losses is None else str(len(losses))
            raise ValueError(
                f"the store has {have} of the {len(view.item.ids)} losses of item "
                f"{view.item.id}; set store.surprisal to true and precompute again"
            )
        spans = view.item.spans
        shares = largest_remainder(budget(self.ratio, end - start), [b - a for a, b in spans])
        chosen = [
            first + best(losses[first:last], share)
            for (first, last), share in zip(spans, shares, strict=True)
        ]
        return torch.cat([torch.arange(0, device=losses.device), *chosen])


def largest_remainder(total: int, lengths: Sequence[int]) -> list[int]:
    """Share `total` out in proportion to `lengths`, in whole numbers.

    Each gets the floor of its share; what is left goes to the largest fractions, then to the
    longest, then to the first. Integer arithmetic: no share depends on rounding.
    """
    whole = sum(lengths)
    if whole == 0:
        return [0] * len(lengths)
    shares = [total * length // whole for length in lengths]
    order = sorted(
        range(len(lengths)), key=lambda i: (-(total * lengths[i] % whole), -lengths[i], i)
    )
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares
