"""Strict streaming, or lazy, on the library's own cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kvpareto.engine.engine import Bench, TorchEngine
from kvpareto.jobs import RefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvpareto.engine.streams.pruned import PrunedStream


@dataclass(frozen=True)
class Prune(TorchEngine):
    """
    Attributes:
        period: R. A step attends `cap` keys at most, and right after a prune R - 1 fewer.
    """

    period: int = 1

    symbols: ClassVar[dict[str, str]] = {"period": "R"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.period < 1:
            raise ValueError(f"period {self.period} is not a positive number of tokens")

    @property
    def exact(self) -> bool:
        return self.period == 1 and self.dtype == "float32"

    def cycle(self, bench: Bench) -> int:
        return self.period

    def stream(self, model: PreTrainedModel, bench: Bench) -> PrunedStream:
        from kvpareto.engine.streams.pruned import PrunedStream

        if self.period > bench.cap - 1 - bench.sinks:
            raise RefusedError(
                f"a prune of {self.period} entries takes more than the {bench.cap - 1} entries of "
                f"cap {bench.cap} have beside {bench.sinks} sinks"
            )
        return PrunedStream(model, bench.cap, bench.sinks, self.period)
