"""Execution layouts by name, and the cache that is made of one of them."""

from __future__ import annotations

from typing import Literal

from transformers.cache_utils import Cache

from kvpareto.attention.rope import Rotary
from kvpareto.cache.compacting import CompactingLayer
from kvpareto.cache.slots import SlotLayer
from kvpareto.cache.soft_ring import SoftRingLayer

Layout = Literal["compact", "soft_ring"]

_LAYERS: dict[Layout, type[SlotLayer]] = {"compact": CompactingLayer, "soft_ring": SoftRingLayer}


class EvictingCache(Cache):
    """One slot layer per model layer; a drop-in `past_key_values`."""

    layers: list[SlotLayer]  # type: ignore[assignment]

    def __init__(self, layout: Layout, layers: int, rotary: Rotary, slots: int) -> None:
        """
        Args:
            slots: buffer size per layer, in entries. `soft_ring` wraps when it is used up, so it
                wants room beyond the longest length that occurs.
        """
        super().__init__(layers=[_LAYERS[layout](rotary, slots) for _ in range(layers)])

    def next_position(self, new: int) -> int:
        """Make room for `new` tokens in every layer; the position of the first of them."""
        for layer in self.layers:
            layer.make_room(new)
        return self.layers[0].end

    @property
    def bytes_per_entry(self) -> int:
        """Bytes of one entry's keys and values in all layers."""
        return sum(layer.bytes_per_entry for layer in self.layers)
