from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import PositiveInt

from kvpareto.eviction.policy import Clock, EvictionPolicy


@dataclass(frozen=True)
class AdaptiveEntropy(EvictionPolicy):
    """Prune early where the model is uncertain, late where it is sure.

    A prune is due between R_min and R_max entries over the capacity: as soon as the mean entropy of
    the last predictions is above the stream's mean so far, at R_max in any case. Each document has
    its own trajectory. Source: the improvement plan, B4.

    Attributes:
        period_min: R_min.
        period_max: R_max.
        span: predictions that the running entropy is a mean of.
    """

    period_min: PositiveInt = 16
    period_max: PositiveInt = 64
    span: PositiveInt = 16

    reads = "entropy"
    symbols = EvictionPolicy.symbols | {"period_min": "Rmin", "period_max": "Rmax"}

    @property
    def overshoot(self) -> int:
        return max(self.period_min, self.period_max)

    @property
    def quiet(self) -> int:
        return self.period_min

    def drop(self, clock: Clock) -> int:
        over = clock.length - self.capacity
        if over < self.period_min:
            return 0
        running = np.mean(clock.entropies[-self.span :]) if clock.entropies else 0.0
        risky = bool(clock.entropies) and running > np.mean(clock.entropies)
        return over if risky or over >= self.period_max else 0
