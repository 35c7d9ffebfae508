"""The pattern that fails: `torch.compile` with CUDA graphs around a cache that is concatenated.

A step's keys and values come out of a captured graph, live in its memory, and go into the next
step, whose replay overwrites them: "accessing tensor output of CUDAGraphs that has been
overwritten". What is done about it is in `steps.Captured`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from kvpareto.engine.streams.pruned import PrunedStream


class ReduceOverheadStream(PrunedStream):
    """Strict streaming on a DynamicCache, each forward pass compiled with CUDA graphs."""

    def __init__(self, model: PreTrainedModel, cap: int, sinks: int) -> None:
        super().__init__(model, cap, sinks, period=1)
        self._compiled: Any = torch.compile(model.forward, mode="reduce-overhead")

    def forward(self, ids: torch.Tensor, **options: object) -> torch.Tensor:
        output = self._compiled(
            input_ids=ids, past_key_values=self.cache, use_cache=True, **options
        )
        logits: torch.Tensor = output.logits
        return logits
