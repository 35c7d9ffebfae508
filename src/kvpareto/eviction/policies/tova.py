from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import PositiveInt

from kvpareto.eviction.policy import Entries
from kvpareto.eviction.scored import ScoredPolicy


@dataclass(frozen=True)
class Tova(ScoredPolicy):
    """Evict what the last query attends least, on the mean over all heads of the layer.

    Source: Oren et al., Transformers are Multi-State RNNs, https://arxiv.org/abs/2401.06104.
    """

    recent: PositiveInt = 1

    reads = "attention"

    def remember(self, memory: torch.Tensor | None, attention: torch.Tensor) -> torch.Tensor:
        return attention[..., -1, :].mean(dim=(1, 2))[:, None, None]

    def score(self, entries: Entries) -> torch.Tensor:
        assert entries.memory is not None
        return entries.memory[:, :, 0]
