"""The common kind of policy: prunes when R entries are over the capacity."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveInt

from kvpareto.eviction.policy import Clock, EvictionPolicy


@dataclass(frozen=True)
class PeriodicPolicy(EvictionPolicy):
    """Base of policies that prune back to the capacity every R tokens.

    Attributes:
        period: R, tokens between prunes; 1 prunes after every token.
    """

    period: PositiveInt = 64

    @property
    def overshoot(self) -> int:
        return self.period

    @property
    def prune_period(self) -> int:
        return self.period

    def drop(self, clock: Clock) -> int:
        over = clock.length - self.capacity
        return over if over >= self.period else 0
