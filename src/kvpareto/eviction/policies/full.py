from __future__ import annotations

from dataclasses import dataclass, field

from kvpareto.eviction.policy import Clock, EvictionPolicy


@dataclass(frozen=True)
class Full(EvictionPolicy):
    """Evict nothing: the upper bound of quality, for as long as the trained length lasts."""

    sinks: int = field(default=0, init=False)
    budgets = ()

    def drop(self, clock: Clock) -> int:
        return 0
