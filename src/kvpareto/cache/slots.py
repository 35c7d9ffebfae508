"""What every cache layer of this project shares: slot buffers in which index is position.

A layer is passed to a model as part of `past_key_values`; no model code is changed. The entries of
a layer stand in slots start..end-1, oldest first, and the key in slot i is rotated for position i.
Attention under RoPE depends on differences of positions only, so it does not matter where `start`
is: entries have the positions 0, 1, 2, ... *in the cache*, up to a common shift.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

from kvpareto.attention.rope import Rotary


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer; subclasses say how evicted entries leave (`evict`).

    A moved key is rotated in one step from the key as it arrived (kept beside it, rotary dimensions
    only), never from an already moved one: repeated rotation in 16 bit drifts by percents.
    """

    is_sliding = False
    is_compileable = False

    def __init__(self, rotary: Rotary, slots: int) -> None:
        """
        Args:
            slots: entries to make room for; the layer grows when they do not suffice.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.rotary = rotary
        self.slots = slots
        self.start = self.end = 0

    @property
    def length(self) -> int:
        """Entries held."""
        return self.end - self.start

    @abstractmethod
    def evict(self, keep: torch.Tensor) -> None:
        """Keep the entries `keep`, in that order; they take consecutive positions.

        Args:
            keep: sorted entry indices (0 is the oldest), [kept] for all rows and heads, or
                [batch, heads, kept].
        """

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        batch, heads, _, head_dim = key_states.shape
        self._keys = key_states.new_empty(batch, heads, self.slots, head_dim)
        self._values = value_states.new_empty(batch, heads, self.slots, value_states.shape[-1])
        self._arrived = key_states.new_empty(batch, heads, self.slots, self.rotary.dim)
        # The position at which each key arrived; one row serves all heads until a policy evicts
        # different entries in different heads.
        self._arrived_at = torch.empty(1, 1, self.slots, dtype=torch.int64, device=self.device)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append entries whose keys are rotated for positions end, end + 1, ...

        Args:
            key_states, value_states: [batch, heads, new, head_dim].

        Returns:
            Keys and values of all entries, [batch, heads, length, head_dim], as views.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[2]
        if self.end + new > self.slots:
            raise RuntimeError(f"{self.end + new} slots needed, {self.slots} there: call make_room")
        added = slice(self.end, self.end + new)
        self._keys[:, :, added] = key_states
        self._values[:, :, added] = value_states
        self._arrived[:, :, added] = key_states[..., : self.rotary.dim]
        self._arrived_at[..., added] = torch.arange(added.start, added.stop, device=self.device)
        self.end = added.stop
        entries = slice(self.start, self.end)
        self.keys, self.values = self._keys[:, :, entries], self._values[:, :, entries]
        return self.keys, self.values

    def make_room(self, new: int) -> None:
        """Make sure that `new` more entries fit. Must be called before the positions are chosen."""
        if not self.is_initialized:
            self.slots = max(self.slots, new)
        elif self.end + new > self.slots:
            if self.length + new > self.slots:
                self._grow(2 * (self.length + new))
            self._move(torch.arange(self.length, device=self.device), to=0)

    def _move(self, entries: torch.Tensor, to: int) -> None:
        """Put `entries`, [moved] or [batch, heads, moved], into slots to, to + 1, ..."""
        target = slice(to, to + entries.shape[-1])
        source = entries + self.start
        for buffer in (self._keys, self._values, self._arrived):
            if source.ndim == 1:
                buffer[:, :, target] = buffer.index_select(2, source)
            else:
                rows = source[..., None].expand(*source.shape, buffer.shape[-1])
                buffer[:, :, target] = buffer.gather(2, rows)
        if source.ndim == 1:
            self._arrived_at[..., target] = self._arrived_at.index_select(2, source)
        else:
            self._arrived_at = self._arrived_at.expand(*source.shape[:2], self.slots).contiguous()
            self._arrived_at[..., target] = self._arrived_at.gather(2, source)
        positions = torch.arange(target.start, target.stop, device=self.device)
        self._keys[:, :, target, : self.rotary.dim] = self.rotary.rotate(
            self._arrived[:, :, target], positions - self._arrived_at[..., target]
        )
        if to == 0:
            self.start, self.end = 0, target.stop

    def _grow(self, slots: int) -> None:
        for name in ("_keys", "_values", "_arrived", "_arrived_at"):
            old = getattr(self, name)
            new = old.new_empty(*old.shape[:2], slots, *old.shape[3:])
            new[:, :, : self.slots] = old
            setattr(self, name, new)
        self.slots = slots

    @property
    def bytes_per_entry(self) -> int:
        """Bytes of one entry's key and value, all rows and heads; 0 before the first one."""
        if not self.is_initialized:
            return 0
        return self._keys[:, :, :1].nbytes + self._values[:, :, :1].nbytes

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        """Forget every entry; keep the buffers."""
        self.start = self.end = 0
