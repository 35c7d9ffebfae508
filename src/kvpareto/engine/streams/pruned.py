"""The library's own cache, cut back after every step (strict streaming) or every R steps (lazy).

This is how streaming is usually written: keys and values are concatenated, those that stay are
gathered, and keys that moved are rotated to their new positions, again and again.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from kvpareto.attention.rope import turned
from kvpareto.eviction.policy import sinks_and_recent
from kvpareto.measure.dynamic import DynamicStream
from kvpareto.models import families


class PrunedStream(DynamicStream):
    """StreamingLLM on a DynamicCache whose keys stand at their positions in the cache."""

    def __init__(self, model: PreTrainedModel, cap: int, sinks: int, period: int) -> None:
        """
        Args:
            cap: keys that a step attends at most, the current token's included.
            period: tokens from prune to prune, and entries that each takes away.
        """
        super().__init__(model)
        self.cap = cap
        self.sinks = sinks
        self.period = period
        self.rotary = families.rotary(model)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        logits = super().decode(ids)
        if self.cache.get_seq_length() == self.cap:
            self._prune()
        return logits

    def _prune(self) -> None:
        device = self.model.device
        keep = sinks_and_recent(self.cap, self.sinks, self.period).to(device)
        cos, sin = self.rotary.angles(torch.tensor([-self.period], device=device))
        layers: list[Any] = self.cache.layers
        for layer in layers:
            keys = layer.keys.index_select(2, keep)
            keys[:, :, self.sinks :] = turned(keys[:, :, self.sinks :], cos, sin)
            layer.keys, layer.values = keys, layer.values.index_select(2, keep)
