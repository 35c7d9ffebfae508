from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveInt

from kvpareto.eviction.periodic import PeriodicPolicy
from kvpareto.eviction.policy import Entries, Reads
from kvpareto.eviction.scored import best


@dataclass(frozen=True)
class Refresh(PeriodicPolicy):
    """Keep B tokens of what leaves the window as its summary.

    Source: the streaming log (`refresh_budget`, uniform, at the tail) and the improvement plan, B3.

    Attributes:
        budget: B.
        selector: `uniform` takes evenly spaced tokens, `structural` those that end a line, a
            sentence or a quotation (then the oldest), `uncertainty` those predicted with the
            highest entropy.
        placement: where they stand in the cache. `middle`: between sinks and window, in place of
            those of the last prune (of the oldest tokens, the first time). `sinks`: the same, but
            the earlier ones compete with the new ones, and may stay as long as sinks do. `tail`:
            after the newest token, as the sources did, which tells the model that they have just
            been read.
    """

    budget: PositiveInt = 16
    selector: Literal["uniform", "structural", "uncertainty"] = "uniform"
    placement: Literal["tail", "middle", "sinks"] = "middle"

    symbols = PeriodicPolicy.symbols | {"budget": "B"}

    @property
    def beside_window(self) -> int:
        return self.sinks + self.budget

    @property
    def in_order(self) -> bool:
        return self.placement != "tail"

    @property
    def reads(self) -> Reads | None:
        marks: dict[str, Reads] = {"structural": "structure", "uncertainty": "uncertainty"}
        return marks.get(self.selector)

    def keep(self, entries: Entries, drop: int) -> torch.Tensor:
        # Behind the sinks stand those chosen last time; at the tail they are in the window.
        earlier = min(self.budget, drop) if self.placement == "middle" else 0
        first, window = self.sinks + earlier, self.sinks + self.budget + drop
        chosen = first + self._choose(entries, first, window)
        rows = chosen.shape[:-1]
        sinks = torch.arange(self.sinks, device=chosen.device).expand(*rows, -1)
        recent = torch.arange(window, entries.length, device=chosen.device).expand(*rows, -1)
        parts = [sinks, chosen, recent] if self.in_order else [sinks, recent, chosen]
        return torch.cat(parts, dim=-1)

    def _choose(self, entries: Entries, first: int, end: int) -> torch.Tensor:
        """B of the entries first..end-1, counted from `first`: [B] or [rows, heads, B]."""
        if self.selector == "uniform":
            return torch.arange(self.budget) * (end - first - 1) // max(1, self.budget - 1)
        score = entries.uncertainty if self.selector == "uncertainty" else entries.structural
        assert score is not None
        between = score[..., first:end].float()
        between = between.expand(entries.rows, entries.heads, -1)
        return best(between, sinks=0, spared=0, kept=self.budget)
