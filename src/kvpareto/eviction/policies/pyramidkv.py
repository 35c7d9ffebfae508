from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import PositiveInt

from kvpareto.eviction.policies.snapkv import SnapKV
from kvpareto.eviction.policy import EvictionPolicy


@dataclass(frozen=True)
class PyramidKV(SnapKV):
    """SnapKV with more of the budget in the lower layers.

    Capacities fall linearly over the layers, from 2(C - w) - m down to m = (C - w) / beta entries
    beside the window (no fewer than the sinks), and are C on the mean. The lowest layers
    hold almost 2 C, so their positions may pass the trained length. Source: Cai et al., PyramidKV,
    https://arxiv.org/abs/2406.02069.

    Attributes:
        beta: how much smaller the last layer's share is than the mean.
    """

    beta: PositiveInt = 20

    symbols = SnapKV.symbols | {"beta": "beta"}

    def for_layer(self, layer: int, layers: int) -> EvictionPolicy:
        if layers == 1:
            return self
        beside = self.capacity - self.recent
        least = max(beside // self.beta, self.sinks)
        # One division of integers: layers as far from either end round by the same amount.
        share = beside + round((beside - least) * (layers - 1 - 2 * layer) / (layers - 1))
        return replace(self, capacity=self.recent + share)
