"""The tiered cache that the sources gave up: deletion by the average, with rare misjudgements."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from kvpareto.merge.offset import Deficit


@dataclass(frozen=True)
class Tiered(Deficit):
    """A chunk is evicted by the mean deficit of all heads; now and then the decision is wrong.

    Attributes:
        threshold: in nats.
        misjudged: share of chunks whose decision is turned around.
    """

    threshold: float = 2.0
    misjudged: float = 0.01

    deletes: ClassVar[bool] = True
    symbols: ClassVar[dict[str, str]] = {**Deficit.symbols, "misjudged": "p"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.misjudged <= 1:
            raise ValueError(f"misjudged {self.misjudged} is not between 0 and 1")

    def offset(
        self, lses: torch.Tensor, target: torch.Tensor | None, seeds: Sequence[int]
    ) -> torch.Tensor:
        assert target is not None
        noise = (target - lses).mean(1, keepdim=True).expand_as(lses) > self.threshold
        wrong = [random.Random(seed).random() < self.misjudged for seed in seeds]
        turned = torch.tensor(wrong, device=lses.device)[:, None, None]
        return torch.zeros_like(lses).masked_fill(noise ^ turned, -torch.inf)
