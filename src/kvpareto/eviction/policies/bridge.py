from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import NonNegativeInt

from kvpareto.eviction.periodic import PeriodicPolicy
from kvpareto.eviction.policy import Entries


@dataclass(frozen=True)
class Bridge(PeriodicPolicy):
    """At each prune keep b tokens on the far side of the cut, between the sinks and the window.

    They are the oldest of the tokens that leave the window, and replace those of the last prune.
    (Those on the near side would be a longer window and nothing else.) They take their places from
    the window: the sources' `bridge_budget`, which made perplexity worse.

    Attributes:
        bridge: b.
    """

    bridge: NonNegativeInt = 16

    symbols = PeriodicPolicy.symbols | {"bridge": "b"}

    @property
    def beside_window(self) -> int:
        return self.sinks + self.bridge

    def keep(self, entries: Entries, drop: int) -> torch.Tensor:
        # After the sinks: the old bridge, the tokens that leave, the window.
        old = self.sinks + min(self.bridge, drop)
        return torch.cat(
            [
                torch.arange(self.sinks),
                torch.arange(old, old + self.bridge),
                torch.arange(self.sinks + self.bridge + drop, entries.length),
            ]
        )
