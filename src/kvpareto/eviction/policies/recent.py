from __future__ import annotations

from dataclasses import dataclass, field

from kvpareto.eviction.policy import Clock, EvictionPolicy


@dataclass(frozen=True)
class Recent(EvictionPolicy):
    """Keep the last W tokens and no sinks, pruning after every token: plain window attention."""

    sinks: int = field(default=0, init=False)

    def drop(self, clock: Clock) -> int:
        return max(0, clock.length - self.capacity)
