"""The library's static sliding window: the last `cap` keys, rolled along at every step."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, StaticSlidingWindowLayer

from kvpareto.measure.dynamic import DynamicStream
from kvpareto.models import families


class SlidingWindowStream(DynamicStream):
    """Positions go on with the stream, and no sink stays: not what streaming computes."""

    def __init__(self, model: PreTrainedModel, cap: int) -> None:
        super().__init__(model)
        self.cap = cap
        self.position = 0

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        layers = [
            StaticSlidingWindowLayer(self.cap, self.cap)
            for _ in range(families.layer_count(self.model))
        ]
        self.cache = Cache(layers=[*layers])  # type: ignore[assignment]
        self.position = 0
        return self.forward(ids, logits_to_keep=1)[:, -1]

    def forward(self, ids: torch.Tensor, **options: object) -> torch.Tensor:
        end = self.position + ids.shape[1]
        options["position_ids"] = torch.arange(self.position, end, device=ids.device)[None]
        self.position = end
        return super().forward(ids, **options)
