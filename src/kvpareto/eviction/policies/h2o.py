from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import NonNegativeInt

from kvpareto.eviction.policy import Entries
from kvpareto.eviction.scored import ScoredPolicy


@dataclass(frozen=True)
class H2O(ScoredPolicy):
    """Heavy hitters: keep the newest entries and those with the most attention since they came.

    Sums over the queries that share a key-value head; the sum of an evicted entry is forgotten.
    Source: Zhang et al., H2O: Heavy-Hitter Oracle, https://arxiv.org/abs/2306.14048.

    Attributes:
        recent: newest entries that stay; 0: half of the capacity, as in the paper.
    """

    recent: NonNegativeInt = 0

    reads = "attention"

    @property
    def spared(self) -> int:
        return self.recent or max(1, self.capacity // 2)

    def remember(self, memory: torch.Tensor | None, attention: torch.Tensor) -> torch.Tensor:
        received = attention.sum(dim=(2, 3))[:, :, None]
        return received if memory is None else memory + received

    def score(self, entries: Entries) -> torch.Tensor:
        assert entries.memory is not None
        return entries.memory[:, :, 0]
