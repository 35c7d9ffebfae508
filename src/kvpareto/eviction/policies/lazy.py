from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvpareto.eviction.periodic import PeriodicPolicy
from kvpareto.eviction.policy import Clock


@dataclass(frozen=True)
class Lazy(PeriodicPolicy):
    """Sinks and recent tokens, pruned only every R tokens.

    The sources' log calls this `compress_every`. Its code and its text differ, so both are here.

    Attributes:
        trigger: `overflow` prunes when R entries are over the capacity (what their code does),
            `clock` when the step is a multiple of R (what their text says). From a full cache the
            two prune at the same steps; they differ while it fills.
    """

    trigger: Literal["overflow", "clock"] = "overflow"

    def drop(self, clock: Clock) -> int:
        if self.trigger == "overflow":
            return super().drop(clock)
        return max(0, clock.length - self.capacity) if clock.step % self.period == 0 else 0
