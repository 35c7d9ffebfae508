"""No cache: a forward pass over the last `cap` tokens for every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kvpareto.engine.engine import Bench, TorchEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvpareto.engine.streams.recomputed import RecomputedStream


@dataclass(frozen=True)
class Recompute(TorchEngine):
    """Another computation than streaming: its tokens never saw what has left the window."""

    stateless: ClassVar[bool] = True

    @property
    def exact(self) -> bool:
        return False

    def stream(self, model: PreTrainedModel, bench: Bench) -> RecomputedStream:
        from kvpareto.engine.streams.recomputed import RecomputedStream

        return RecomputedStream(model, bench.cap)

    def block(self, bench: Bench) -> int:
        # Every token costs the same, and a dozen times what it costs others.
        return max(1, bench.block_tokens // 8)

    def attended(self, bench: Bench) -> int:
        return 0
