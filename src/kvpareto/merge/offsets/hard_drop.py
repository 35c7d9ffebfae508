"""Physical deletion of what looks like noise: the route that the sources rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from kvpareto.merge.offset import Deficit


@dataclass(frozen=True)
class HardDrop(Deficit):
    """A chunk is deleted where its deficit is beyond a threshold.

    Attributes:
        threshold: in nats.
        judge: `head`: each head for itself; `average`: by the mean deficit of all heads, since
            memory is only saved if no head keeps the chunk.
    """

    threshold: float = 2.0
    judge: Literal["head", "average"] = "head"

    deletes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge not in ("head", "average"):
            raise ValueError(f"judge {self.judge!r} is neither head nor average")

    def offset(
        self, lses: torch.Tensor, target: torch.Tensor | None, seeds: Sequence[int]
    ) -> torch.Tensor:
        assert target is not None
        deficit = target - lses
        if self.judge == "average":
            deficit = deficit.mean(1, keepdim=True).expand_as(lses)
        return torch.zeros_like(lses).masked_fill(deficit > self.threshold, -torch.inf)
