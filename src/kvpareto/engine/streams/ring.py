"""The ring cache as a decode engine: strict streaming in place, composed of what makes it fast."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from kvpareto.cache.ring import RING_ATTENTION, RingLayer
from kvpareto.cache.ring_clock import RingClock
from kvpareto.engine.options import Kernel, Run
from kvpareto.engine.steps import Captured, Compiled, Step, with_kernel
from kvpareto.models import families


class RingStream:
    """Decoding on ring layers; a step of a full ring leaves nothing to do for the host.

    Attributes:
        model: what computes; a model of the library, or fused weights.
        held: entries of every layer.
    """

    attention = RING_ATTENTION

    def __init__(
        self,
        model: PreTrainedModel,
        cap: int,
        sinks: int,
        *,
        computing: nn.Module | None = None,
        run: Run = "eager",
        kernel: Kernel = "auto",
        clamped: bool = True,
    ) -> None:
        """
        Args:
            computing: what computes in the model's place, called as a model is.
            clamped: as in `RingClock`.

        Raises:
            UnavailableError: `run` needs something that is not here.
        """
        self.model = model
        self.computing = model if computing is None else computing
        self.cap, self.sinks = cap, sinks
        self.clock = RingClock(families.rotary(model), cap, sinks, clamped)
        count = families.layer_count(model)
        self.layers = [RingLayer(self.clock, leads=index == 0) for index in range(count)]
        self.cache = Cache(layers=[*self.layers])
        self.held = 0
        self.kernel = kernel
        self._at_zero = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        self._growing: Step = self._step
        self._steady: Step = self._step
        if run == "compiled":
            self._growing = self._steady = Compiled(self._step)
        elif run == "graph":
            self._steady = Captured(self._step, model.device)

    @property
    def own_kernels(self) -> int:
        """Kernels of a compiled step that no operator of the library stands for."""
        return self._steady.kernels if isinstance(self._steady, Compiled) else 0

    @property
    def capture_s(self) -> float | None:
        """Seconds that capturing the step took; None: it is not captured."""
        return self._steady.capture_s if isinstance(self._steady, Captured) else None

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """Process the first tokens, [1, tokens], the sinks among them; logits, [1, vocab].

        Raises:
            ValueError: fewer tokens than sinks, or more than the ring holds.
        """
        if not self.sinks <= ids.shape[1] <= self.cap:
            raise ValueError(
                f"a ring of {self.cap} entries and {self.sinks} sinks is prefilled with "
                f"{ids.shape[1]} tokens: give it all sinks and no more than it holds"
            )
        logits = self._fill(ids)
        if isinstance(self._steady, Captured) and not self._steady.ready:
            while self.held < self.cap:
                self.decode(ids[:, -1:])
            self._steady.capture()
            logits = self._fill(ids)  # capturing decodes tokens, which belong to no stream
        return logits

    def _fill(self, ids: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            layer.reset()
        self.held = ids.shape[1]
        positions = torch.arange(self.held, device=ids.device)[None]
        return self._forward(ids, positions)[:, -1]

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """One token, [1, 1]; logits, [1, vocab]."""
        if self.held == self.cap:
            return self._steady(ids)
        if self.held == self.cap - 1:  # this step leaves the ring full: no graph for it alone
            logits = self._step(ids)
        else:
            self.clock.growing = True
            logits = self._growing(ids)
            self.clock.growing = False
            for layer in self.layers:
                layer.grew()
        self.held += 1
        return logits

    def _step(self, ids: torch.Tensor) -> torch.Tensor:
        return self._forward(ids, self._at_zero)[:, -1]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        with with_kernel(self.kernel):
            output = self.computing(
                input_ids=ids,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
                ring=self.clock,
                logits_to_keep=1,
            )
        logits: torch.Tensor = output.logits
        return logits
