"""Policies that give every entry a score and evict the lowest."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveInt

from kvpareto.eviction.periodic import PeriodicPolicy
from kvpareto.eviction.policy import Entries


@dataclass(frozen=True)
class ScoredPolicy(PeriodicPolicy):
    """Base of policies that keep, per row and head, sinks, the newest entries and the best scores.

    Attributes:
        recent: newest entries that stay whatever their score.
        positions: `in_cache` renumbers the kept entries, so that keys older than an evicted one
            move; `original` leaves them where they were, which passes the trained length.
    """

    recent: PositiveInt = 32
    positions: Literal["in_cache", "original"] = "in_cache"

    @property
    def keeps_positions(self) -> bool:
        return self.positions == "original"

    @property
    def spared(self) -> int:
        """Newest entries that stay."""
        return self.recent

    @property
    def beside_window(self) -> int:
        return self.sinks + max(0, self.recent - 1)

    @abstractmethod
    def score(self, entries: Entries) -> torch.Tensor:
        """How much each entry matters: [rows, heads, length]; a `heads` of 1 is for all heads."""

    def keep(self, entries: Entries, drop: int) -> torch.Tensor:
        score = self.score(entries).expand(entries.rows, entries.heads, -1)
        return best(score, self.sinks, self.spared, entries.length - drop)


def best(score: torch.Tensor, sinks: int, spared: int, kept: int) -> torch.Tensor:
    """The first `sinks` entries, the last `spared` ones, and the highest scores between them.

    Args:
        score: [rows, heads, length]; of equal scores the older entry stays.
        kept: entries to keep in all.

    Returns:
        Sorted indices, [rows, heads, kept].
    """
    length = score.shape[-1]
    spared = min(spared, kept - sinks)
    between = score[..., sinks : length - spared]
    ranked = between.sort(dim=-1, descending=True, stable=True).indices + sinks
    chosen = ranked[..., : kept - sinks - spared].sort(dim=-1).values
    rows = score.shape[:-1]
    first = torch.arange(sinks, device=score.device).expand(*rows, -1)
    last = torch.arange(length - spared, length, device=score.device).expand(*rows, -1)
    return torch.cat([first, chosen, last], dim=-1)
