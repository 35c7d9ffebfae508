"""The library's static sliding window: the last `cap` keys, rolled along at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvpareto.engine.engine import Bench, TorchEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvpareto.engine.streams.rolled import SlidingWindowStream


@dataclass(frozen=True)
class SlidingWindow(TorchEngine):
    """A window without sinks, in static buffers that are copied at every step."""

    @property
    def exact(self) -> bool:
        return False

    def stream(self, model: PreTrainedModel, bench: Bench) -> SlidingWindowStream:
        from kvpareto.engine.streams.rolled import SlidingWindowStream

        return SlidingWindowStream(model, bench.cap)
