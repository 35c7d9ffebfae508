"""The sources' offset: minus softplus of the deficit.

In closed form exp(L + offset) = exp(L) * sigmoid(L - T): a gate on each chunk. At L = T it halves
the chunk, so the offset is -ln 2 there and zero only in the limit L >> T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kvpareto.merge.offset import Deficit, gate


@dataclass(frozen=True)
class EnergyDeficit(Deficit):
    """offset = -softplus(T - L), T the mean of the K largest L."""

    def offset(
        self, lses: torch.Tensor, target: torch.Tensor | None, seeds: Sequence[int]
    ) -> torch.Tensor:
        return gate(lses, target)
