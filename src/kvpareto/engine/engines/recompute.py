"""No cache: a forward pass over the last `cap` tokens for every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from kvpareto.engine.engine import Bench, TorchEngine


class RecomputedStream:
    """Keeps the last `cap` tokens and nothing else."""

    attention = "sdpa"

    def __init__(self, model: PreTrainedModel, cap: int) -> None:
        self.model = model
        self.cap = cap
        self.window = torch.empty(1, 0, dtype=torch.int64)

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        self.window = ids[:, -self.cap :]
        logits: torch.Tensor = self.model(
            input_ids=self.window, use_cache=False, logits_to_keep=1
        ).logits
        return logits[:, -1]

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        return self.prefill(torch.cat([self.window, ids], dim=1))


@dataclass(frozen=True)
class Recompute(TorchEngine):
    """Another computation than streaming: its tokens never saw what has left the window."""

    stateless: ClassVar[bool] = True

    @property
    def exact(self) -> bool:
        return False

    def stream(self, model: PreTrainedModel, bench: Bench) -> RecomputedStream:
        return RecomputedStream(model, bench.cap)

    def block(self, bench: Bench) -> int:
        # Every token costs the same, and a dozen times what it costs others.
        return max(1, bench.block_tokens // 8)

    def attended(self, bench: Bench) -> int:
        return 0
