from __future__ import annotations

from dataclasses import dataclass

from kvpareto.eviction.periodic import PeriodicPolicy


@dataclass(frozen=True)
class StaticCache(PeriodicPolicy):
    """Lazy pruning in the library's StaticCache: refused, a recorded negative result.

    That cache's layers count the tokens they have ever taken and never shrink, so a pruned one
    writes past its end. The probe `static_cache` shows how, without this guard.
    """

    refusal = (
        "Hugging Face StaticCache cannot be pruned: its layers only count upwards and would write "
        "past their end; take the policy lazy, whose cache can"
    )
