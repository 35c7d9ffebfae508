"""No cache: a forward pass over the last `cap` tokens for every token."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


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
