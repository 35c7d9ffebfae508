"""The arms that probes of the prune period run."""

from __future__ import annotations

from typing import Any

from kvpareto.eviction.policies.lazy import Lazy
from kvpareto.eviction.policies.start_recent import StartRecent
from kvpareto.eviction.policy import EvictionPolicy


def pruned_every(options: dict[str, Any], period: int) -> EvictionPolicy:
    """Sinks and recent tokens at the probe's cap, pruned every `period` tokens; 1 is strict."""
    kept = {"capacity": options["cap"], "sinks": options["sinks"]}
    return StartRecent(**kept) if period == 1 else Lazy(**kept, period=period)
