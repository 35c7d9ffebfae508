"""The baseline that the sources gave up: the deficit against the mean of all chunks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

from kvpareto.merge.offset import Offset


@dataclass(frozen=True)
class MeanField(Offset):
    """offset = -softplus(T - L), T the mean of all L that are not -inf."""

    def target(self, lses: Iterable[torch.Tensor]) -> torch.Tensor | None:
        total, count = torch.zeros(()), torch.zeros(())
        for lse in lses:
            visible = lse > -torch.inf
            total, count = total.to(lse) + lse.where(visible, 0), count.to(lse) + visible
        return total / count.clamp_min(1)

    def offset(self, lse: torch.Tensor, target: torch.Tensor | None, seed: int) -> torch.Tensor:
        assert target is not None
        return -softplus(target - lse)
