"""Ours: however many chunks there are, together they weigh as much as the best of them.

Each further chunk adds to the context's share of attention, whether it knows anything or not, and
at shared positions nothing tells it from the others. The chunks' shares among each other are left
as they are; with one chunk the offset is zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from kvpareto.merge.offset import Offset


@dataclass(frozen=True)
class Decrowd(Offset):
    """offset = max L - log sum exp(L), the same for all chunks."""

    def target(self, lses: Iterable[torch.Tensor]) -> torch.Tensor | None:
        best: torch.Tensor | None = None
        together: torch.Tensor | None = None
        for batch in lses:
            top, lse = batch.amax(0), batch.logsumexp(0)
            best = top if best is None else torch.maximum(best, top)
            together = lse if together is None else torch.logaddexp(together, lse)
        if best is None or together is None:
            return None
        return (best - together).where(best > -torch.inf, 0)

    def offset(
        self, lses: torch.Tensor, target: torch.Tensor | None, seeds: Sequence[int]
    ) -> torch.Tensor:
        assert target is not None
        return target.expand_as(lses)
