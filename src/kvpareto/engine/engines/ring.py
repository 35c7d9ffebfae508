"""The ring cache as a decode engine: strict streaming in place, composed of what makes it fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import nn

from kvpareto.engine.engine import Bench, TorchEngine
from kvpareto.engine.options import Kernel, Quantised, Run, Scope

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvpareto.engine.streams.ring import RingStream


@dataclass(frozen=True)
class Ring(TorchEngine):
    """
    Attributes:
        run: how a step is executed.
        weights: as they are, or products and norms merged at load (see `fused`).
        quantised: what the weights' matrices are turned into, compiled or not.
        scope: which of them.
        kernel: of attention.
        sink_positions: `absolute` is the mistake of some engines, a control: sinks stay where they
            were in the stream, ever further from the query.
    """

    run: Run = "eager"
    weights: Literal["stock", "fused"] = "stock"
    quantised: Quantised = "none"
    scope: Scope = "all"
    kernel: Kernel = "auto"
    sink_positions: Literal["clamped", "absolute"] = "clamped"

    symbols: ClassVar[dict[str, str]] = {"kernel": "sdpa_", "sink_positions": "sinks_"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantised == "none" and self.scope != "all":
            raise ValueError(f"scope {self.scope!r} needs weights that are quantised")

    @property
    def exact(self) -> bool:
        return self._clamped and self.quantised == "none" and self.dtype == "float32"

    @property
    def _clamped(self) -> bool:
        return self.sink_positions == "clamped"

    def stream(self, model: PreTrainedModel, bench: Bench) -> RingStream:
        from transformers import PreTrainedModel

        from kvpareto.engine.fused import fused
        from kvpareto.engine.quantised import quantised
        from kvpareto.engine.streams.ring import RingStream

        computing: nn.Module = fused(model) if self.weights == "fused" else model
        if self.quantised != "none":
            computing = quantised(computing, self.quantised, self.scope)
        return RingStream(
            # A copy of the model has a configuration of its own, attention function included.
            computing if isinstance(computing, PreTrainedModel) else model,
            bench.cap,
            bench.sinks,
            computing=computing,
            run=self.run,
            kernel=self.kernel,
            clamped=self._clamped,
        )
