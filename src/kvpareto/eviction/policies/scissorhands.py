from __future__ import annotations

from dataclasses import dataclass, field

import torch
from pydantic import PositiveInt

from kvpareto.eviction.policy import Clock, Entries
from kvpareto.eviction.scored import ScoredPolicy


@dataclass(frozen=True)
class Scissorhands(ScoredPolicy):
    """Persistence of importance: evict what the last queries hardly ever attended much.

    When the cache is over its capacity, half of the capacity goes at once: the entries that got
    more than 1/t of a query's attention, t its attended length, least often over the last queries.

    Source: Liu et al., Scissorhands, https://arxiv.org/abs/2305.17118, Algorithm 2, which leaves
    open what counts for queries that share a key-value head (here: each), and for entries younger
    than the history (here: the queries they saw).

    Attributes:
        history: w, queries that are looked back on.
        recent: r.
    """

    period: PositiveInt = field(default=1, init=False)
    recent: PositiveInt = 10
    history: PositiveInt = 400

    reads = "attention"
    symbols = ScoredPolicy.symbols | {"history": "w"}

    @property
    def prune_period(self) -> int:
        return max(1, self.capacity // 2)

    @property
    def beside_window(self) -> int:
        return 2 * (self.sinks + self.recent)

    def drop(self, clock: Clock) -> int:
        return self.capacity // 2 if clock.length > self.capacity else 0

    def remember(self, memory: torch.Tensor | None, attention: torch.Tensor) -> torch.Tensor:
        queries, length = attention.shape[-2:]
        seen = torch.arange(length - queries + 1, length + 1, device=attention.device)
        above = (attention > 1 / seen[:, None]).sum(dim=2, dtype=torch.uint8)
        history = above if memory is None else torch.cat([memory, above], dim=2)
        return history[:, :, -self.history :]

    def score(self, entries: Entries) -> torch.Tensor:
        assert entries.memory is not None
        return entries.memory.sum(dim=2)
