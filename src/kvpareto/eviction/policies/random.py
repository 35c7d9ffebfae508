from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt

from kvpareto.eviction.periodic import PeriodicPolicy
from kvpareto.eviction.policy import Entries


@dataclass(frozen=True)
class Random(PeriodicPolicy):
    """Control: evict entries drawn at random, in every layer, row and head on its own.

    Sinks and the newest R entries are spared, as they are under `lazy` with the same R.

    Attributes:
        seed: of the draws.
    """

    period: PositiveInt = 16
    seed: NonNegativeInt = 0

    def keep(self, entries: Entries, drop: int) -> torch.Tensor:
        candidates = max(drop, entries.length - self.sinks - self.period)
        draws = np.random.default_rng([self.seed, entries.layer, entries.step])
        order = draws.random((entries.rows, entries.heads, candidates)).argsort(-1)
        stay = np.ones((entries.rows, entries.heads, entries.length), dtype=bool)
        np.put_along_axis(stay, self.sinks + order[..., :drop], False, axis=-1)
        kept = stay.nonzero()[-1].reshape(entries.rows, entries.heads, -1)
        return torch.from_numpy(kept)
