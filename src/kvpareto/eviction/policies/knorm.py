from __future__ import annotations

from dataclasses import dataclass

import torch

from kvpareto.eviction.policy import Entries
from kvpareto.eviction.scored import ScoredPolicy


@dataclass(frozen=True)
class KNorm(ScoredPolicy):
    """Keep the keys of the smallest norm: they tend to be attended most. Needs no attention.

    Source: Devoto et al., A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression,
    https://arxiv.org/abs/2406.11430.
    """

    reads = "keys"

    def score(self, entries: Entries) -> torch.Tensor:
        assert entries.keys is not None
        # In the first layer equal tokens have equal keys but for rounding: a tie, not a rank.
        norm: torch.Tensor = entries.keys.float().norm(dim=-1)
        return -norm.round(decimals=4)
