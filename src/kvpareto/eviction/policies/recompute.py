from __future__ import annotations

from dataclasses import dataclass, field

from kvpareto.eviction.policy import Clock, EvictionPolicy


@dataclass(frozen=True)
class Recompute(EvictionPolicy):
    """No cache: every token is predicted from a fresh forward pass over the last `cap` tokens.

    The baseline of the sources. It attends exactly `cap` tokens, so its cap is a cap on the peak.
    """

    sinks: int = field(default=0, init=False)
    uses_cache = False
    budgets = ("peak",)

    def drop(self, clock: Clock) -> int:
        return max(0, clock.length - self.capacity)
