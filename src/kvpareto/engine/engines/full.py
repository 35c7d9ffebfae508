"""The library's own cache, which grows by concatenation: nothing is evicted."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from kvpareto.engine.engine import Bench, TorchEngine
from kvpareto.measure.dynamic import DynamicStream


@dataclass(frozen=True)
class Full(TorchEngine):
    """The cost of not bounding the cache; its time grows with the age of the stream."""

    @property
    def exact(self) -> bool:
        return False

    def stream(self, model: PreTrainedModel, bench: Bench) -> DynamicStream:
        return DynamicStream(model)
