from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveInt

from kvpareto.eviction.policy import Clock, EvictionPolicy


@dataclass(frozen=True)
class Lazy(EvictionPolicy):
    """Sinks and recent tokens, pruned only every R tokens.

    The sources' log calls this `compress_every`. Its code and its text differ, so both are here.

    Attributes:
        period: R, tokens between prunes.
        trigger: `overflow` prunes when R entries are over the capacity (what their code does),
            `clock` when the step is a multiple of R (what their text says). From a full cache the
            two prune at the same steps; they differ while it fills.
    """

    period: PositiveInt = 64
    trigger: Literal["overflow", "clock"] = "overflow"

    @property
    def overshoot(self) -> int:
        return self.period

    def drop(self, clock: Clock) -> int:
        over = clock.length - self.capacity
        due = over >= self.period if self.trigger == "overflow" else clock.step % self.period == 0
        return max(0, over) if due else 0
