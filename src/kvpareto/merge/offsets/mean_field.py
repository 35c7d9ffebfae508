"""The baseline that the sources gave up: the deficit against the mean of all chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from kvpareto.merge.offset import Offset, gate


@dataclass(frozen=True)
class MeanField(Offset):
    """offset = -softplus(T - L), T the mean of all L that are not -inf."""

    def target(self, lses: Iterable[torch.Tensor]) -> torch.Tensor | None:
        total: torch.Tensor | None = None
        count: torch.Tensor | None = None
        for batch in lses:
            visible = batch > -torch.inf
            sums = batch.where(visible, 0).sum(0), visible.sum(0)
            total = sums[0] if total is None else total + sums[0]
            count = sums[1] if count is None else count + sums[1]
        return None if total is None or count is None else total / count.clamp_min(1)

    def offset(
        self, lses: torch.Tensor, target: torch.Tensor | None, seeds: Sequence[int]
    ) -> torch.Tensor:
        return gate(lses, target)
