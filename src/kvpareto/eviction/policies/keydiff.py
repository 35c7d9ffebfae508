from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from kvpareto.eviction.policy import Entries
from kvpareto.eviction.scored import ScoredPolicy


@dataclass(frozen=True)
class KeyDiff(ScoredPolicy):
    """Keep the keys that differ most from the mean key, by cosine. Needs no attention.

    Source: Park et al., KeyDiff, https://arxiv.org/abs/2504.15364.
    """

    reads = "keys"

    def score(self, entries: Entries) -> torch.Tensor:
        assert entries.keys is not None
        keys = functional.normalize(entries.keys.float(), dim=-1)
        return -functional.cosine_similarity(keys, keys.mean(dim=-2, keepdim=True), dim=-1)
