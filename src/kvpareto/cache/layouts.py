"""Execution layouts by name, and the cache that is made of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from transformers.cache_utils import Cache

from kvpareto.attention.rope import Rotary
from kvpareto.cache.compacting import CompactingLayer
from kvpareto.cache.overwriting import OverwritingLayer
from kvpareto.cache.ring import RingLayer
from kvpareto.cache.ring_clock import RingClock
from kvpareto.cache.slots import EvictingLayer
from kvpareto.cache.soft_ring import SoftRingLayer
from kvpareto.cache.staging import Staging

Layout = Literal["compact", "soft_ring", "ring", "overwrite"]


def _layers(
    layout: Layout, count: int, rotary: Rotary, slots: int, sinks: int, staging: Staging | None
) -> Sequence[EvictingLayer]:
    match layout:
        case "compact":
            return [CompactingLayer(rotary, slots, staging) for _ in range(count)]
        case "soft_ring":
            return [SoftRingLayer(rotary, slots, staging) for _ in range(count)]
        case "ring":
            clock = RingClock(rotary, slots, sinks)
            return [RingLayer(clock, leads=index == 0) for index in range(count)]
        case "overwrite":
            return [OverwritingLayer(slots) for _ in range(count)]


class EvictingCache(Cache):
    """One evicting layer per model layer; a drop-in `past_key_values`.

    Beside it a model needs the cache's `attention` and `options` (see `EvictingLayer`).
    """

    layers: list[EvictingLayer]  # type: ignore[assignment]

    def __init__(
        self,
        layout: Layout,
        layers: int,
        rotary: Rotary,
        slots: int,
        *,
        sinks: int = 0,
        staging: bool = False,
    ) -> None:
        """
        Args:
            slots: buffer size per layer, in entries. `soft_ring` wraps when it is used up, so it
                wants room beyond the longest length that occurs; `ring` takes it for the number of
                entries attended, the policy's capacity and the current token.
            sinks: first entries of the stream, never evicted; what `ring` alone must know.
            staging: gather what a prune moves in one preallocated buffer; `ring` and `overwrite`
                move nothing.
        """
        self.staging = Staging() if staging else None
        super().__init__(layers=[*_layers(layout, layers, rotary, slots, sinks, self.staging)])

    @property
    def attention(self) -> str | None:
        """The attention function that the model must run under; None: any."""
        return self.layers[0].attention

    @property
    def options(self) -> dict[str, object]:
        """Keyword arguments that the model's forward pass must be given."""
        return self.layers[0].options

    def next_position(self, new: int) -> int:
        """Make room for `new` tokens in every layer; the position of the first of them."""
        longest = max(layer.length for layer in self.layers)
        for layer in self.layers:
            layer.make_room(new, longest)
        return self.layers[0].end

    def evict(self, keep: Sequence[torch.Tensor | None]) -> None:
        """Keep the entries `keep` of each layer (see `EvictingLayer.evict`); None: all of them."""
        if any(kept is None for kept in keep):
            end = self.layers[0].end
        else:
            end = max(kept.shape[-1] for kept in keep if kept is not None)
        for layer, kept in zip(self.layers, keep, strict=True):
            if kept is not None:
                layer.evict(kept, end)

    @property
    def bytes_per_entry(self) -> int:
        """Bytes of one entry's keys and values in all layers."""
        return sum(layer.bytes_per_entry for layer in self.layers)
