"""Adaptive parallel encoding: a sharper context with a scaled weight.

Yang et al., "APE: Faster and Longer Context-Augmented Generation via Adaptive Parallel Encoding",
https://arxiv.org/abs/2502.05431
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from kvpareto.merge.offset import Offset


@dataclass(frozen=True)
class Ape(Offset):
    """The context's logits are divided by T, and its log partition function is multiplied by S T.

    Attributes:
        temperature: T.
        scale: S.
    """

    temperature: float = 0.9
    scale: float = 0.9

    symbols: ClassVar[dict[str, str]] = {"temperature": "T", "scale": "S"}

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature} must be positive")

    @property
    def context_temperature(self) -> float:
        return self.temperature

    def target(self, lses: Iterable[torch.Tensor]) -> torch.Tensor | None:
        """L of the whole context."""
        together: torch.Tensor | None = None
        for batch in lses:
            lse = batch.logsumexp(0)
            together = lse if together is None else torch.logaddexp(together, lse)
        return together

    def offset(
        self, lses: torch.Tensor, target: torch.Tensor | None, seeds: Sequence[int]
    ) -> torch.Tensor:
        assert target is not None
        shift = (self.scale * self.temperature - 1) * target
        return shift.where(target > -torch.inf, 0).expand_as(lses)
