"""The library's own cache, which grows by concatenation: nothing is evicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvpareto.engine.engine import Bench, TorchEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvpareto.measure.dynamic import DynamicStream


@dataclass(frozen=True)
class Full(TorchEngine):
    """The cost of not bounding the cache; its time grows with the age of the stream."""

    @property
    def exact(self) -> bool:
        return False

    def stream(self, model: PreTrainedModel, bench: Bench) -> DynamicStream:
        from kvpareto.measure.dynamic import DynamicStream

        return DynamicStream(model)
