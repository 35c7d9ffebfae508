"""A cache layer that evicts by compacting, as the source implementations do."""

from __future__ import annotations

import torch

from kvpareto.cache.slots import SlotLayer


class CompactingLayer(SlotLayer):
    """Every prune gathers the kept entries to the front and re-rotates the keys that moved."""

    def evict(self, keep: torch.Tensor, end: int) -> None:
        start = end - keep.shape[-1]
        self._move(keep.to(self.device), to=start)
        self.start, self.end = start, end
