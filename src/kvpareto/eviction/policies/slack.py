from __future__ import annotations

from dataclasses import dataclass

from pydantic import NonNegativeInt

from kvpareto.eviction.periodic import PeriodicPolicy


@dataclass(frozen=True)
class Slack(PeriodicPolicy):
    """Lazy pruning with sigma entries of the cap set aside.

    The sources' `cache_slack` without `max_drop`: a prune goes back to C = cap - sigma, so the
    slack is a smaller window and nothing else.

    Attributes:
        slack: sigma, entries of the cap that a prune leaves free.
    """

    slack: NonNegativeInt = 16

    symbols = PeriodicPolicy.symbols | {"slack": "sigma"}

    @property
    def reserved(self) -> int:
        return self.slack

    @property
    def overshoot(self) -> int:
        return max(0, self.period - self.slack)
