from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from kvpareto.eviction.policy import Entries
from kvpareto.eviction.scored import ScoredPolicy


@dataclass(frozen=True)
class SnapKV(ScoredPolicy):
    """At each prune the last w queries vote on what stays; the votes are pooled over neighbours.

    The window of w newest entries stays as well. In decode form: the paper prunes once, after the
    prompt. Source: Li et al., SnapKV, https://arxiv.org/abs/2404.14469.

    Attributes:
        recent: w, queries that vote and entries that stay.
        kernel: entries that a vote is pooled over, centred.
        pool: `avg` or `max`.
    """

    kernel: Literal[3, 5, 7, 9, 11, 13] = 5
    pool: Literal["avg", "max"] = "avg"

    reads = "queries"
    symbols = ScoredPolicy.symbols | {"recent": "w", "kernel": "k"}

    @property
    def observed(self) -> int:
        return self.recent

    def score(self, entries: Entries) -> torch.Tensor:
        assert entries.attention is not None
        votes = entries.attention.sum(dim=(2, 3))
        window = votes[..., -self.recent :]
        pool = functional.avg_pool1d if self.pool == "avg" else functional.max_pool1d
        pooled = pool(votes[..., : -self.recent], self.kernel, 1, self.kernel // 2)
        return torch.cat([pooled, window], dim=-1)
