"""CUDA graphs as the library offers them, around a cache that is concatenated: what fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvpareto.engine.engine import Bench, TorchEngine
from kvpareto.jobs import UnavailableError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvpareto.engine.streams.reduce_overhead import ReduceOverheadStream


@dataclass(frozen=True)
class ReduceOverhead(TorchEngine):
    """What the sources tried; where torch refuses it the row is `invalid` and says so."""

    @property
    def exact(self) -> bool:
        return self.dtype == "float32"

    def stream(self, model: PreTrainedModel, bench: Bench) -> ReduceOverheadStream:
        from kvpareto.engine.streams.reduce_overhead import ReduceOverheadStream

        if model.device.type != "cuda":
            raise UnavailableError("CUDA graphs need a CUDA device, and the model is on the CPU")
        return ReduceOverheadStream(model, bench.cap, bench.sinks)
