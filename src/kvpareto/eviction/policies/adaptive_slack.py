from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveInt

from kvpareto.eviction.policy import Clock, EvictionPolicy


@dataclass(frozen=True)
class AdaptiveSlack(EvictionPolicy):
    """Prune when more than Delta entries are over the capacity, in place of a fixed period.

    Source: the improvement plan, B4, `extra_slack`; with fixed Delta it is `lazy` at R = Delta + 1.

    Attributes:
        delta: Delta.
    """

    delta: PositiveInt = 48

    symbols = EvictionPolicy.symbols | {"delta": "Delta"}

    @property
    def overshoot(self) -> int:
        return self.delta + 1

    def drop(self, clock: Clock) -> int:
        over = clock.length - self.capacity
        return over if over > self.delta else 0
