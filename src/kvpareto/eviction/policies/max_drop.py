from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from kvpareto.eviction.periodic import PeriodicPolicy
from kvpareto.eviction.policy import Clock


@dataclass(frozen=True)
class MaxDrop(PeriodicPolicy):
    """Staged eviction: one prune drops at most delta entries, as long as the hard limit allows.

    The hard limit is C + sigma, soft capacity and slack. Source: the streaming log's `max_drop`
    with `cache_slack`; together with R = 32 it calls them softlite.

    Attributes:
        slack: sigma.
        max_drop: delta, most entries that one prune drops.
        variant: `naive` leaves as much as the hard limit allows, so R is reached again sooner and
            prunes come more often (the log's "frequency trap"). `cooldown` waits R tokens after a
            prune and leaves at most C + sigma - R entries, so that the hard limit is not reached
            meanwhile.
    """

    slack: NonNegativeInt = 16
    max_drop: PositiveInt = 32
    variant: Literal["naive", "cooldown"] = "naive"

    symbols = PeriodicPolicy.symbols | {"slack": "sigma", "max_drop": "delta"}

    @property
    def reserved(self) -> int:
        return self.slack

    @property
    def overshoot(self) -> int:
        # Without slack a cooling stream stays below the capacity, but is prefilled up to it.
        most = self.period if self.variant == "naive" else 1
        return max(0, most - self.slack)

    @property
    def beside_window(self) -> int:
        cooling = self.period - self.slack if self.variant == "cooldown" else 0
        return self.sinks + max(0, cooling)

    def drop(self, clock: Clock) -> int:
        over = clock.length - self.capacity
        hard = self.slack  # the hard limit, counted from the capacity as well
        staged = min(over, self.max_drop)
        if self.variant == "naive":
            return max(staged, over - hard) if over >= self.period else 0
        due = over >= hard or (over > 0 and clock.since_prune >= self.period)
        return max(staged, over - (hard - self.period)) if due else 0
