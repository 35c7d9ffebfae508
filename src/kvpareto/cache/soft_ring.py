"""A cache layer that evicts by moving a view: what lies after the last evicted entry stays put."""

from __future__ import annotations

import torch

from kvpareto.cache.slots import SlotLayer


class SoftRingLayer(SlotLayer):
    """Kept entries older than the last evicted one move up against the newer ones, which stay.

    For sinks and a recent window that moves only the sinks. Positions grow until the buffer is
    full; then everything moves to its front, once per wrap.
    """

    def evict(self, keep: torch.Tensor, end: int) -> None:
        kept = keep.shape[-1]
        newest_kept = torch.arange(self.length - kept, self.length, device=keep.device)
        moved = (keep != newest_kept).reshape(-1, kept).any(0).nonzero()
        start = self.end - kept
        if moved.numel():
            last = int(moved[-1]) + 1
            self._move(keep[..., :last].to(self.device), to=start)
        self.start = start
