"""mlx-lm on the same weights: a peer with a rotating cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvpareto.engine.engine import Bench, TorchEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvpareto.engine.cost import Cost
    from kvpareto.engine.streams.mlx import MlxStream
    from kvpareto.measure.latency import TimedDecoder


@dataclass(frozen=True)
class MlxLm(TorchEngine):
    """The rotating cache of mlx-lm, with sinks kept."""

    @property
    def exact(self) -> bool:
        return False

    def stream(self, model: PreTrainedModel, bench: Bench) -> MlxStream:
        from kvpareto.engine.streams.mlx import MlxStream

        return MlxStream(model, bench.cap, bench.sinks)

    def cost(self, decoder: TimedDecoder, bench: Bench) -> Cost:
        from kvpareto.engine.cost import Cost, cache_bytes

        stream: Any = decoder.stream
        return Cost(
            read_bytes=stream.read_bytes + cache_bytes(stream.model, bench.cap),
            peak_bytes=stream.peak_bytes(decoder),
        )
