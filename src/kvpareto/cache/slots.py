"""What the cache layers of this project share, and the kind whose slot index is a position.

A layer is passed to a model as part of `past_key_values`; no model code is changed.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from transformers.cache_utils import CacheLayerMixin

from kvpareto.attention.rope import Rotary
from kvpareto.cache.staging import Staging


class EvictingLayer(CacheLayerMixin):
    """A cache layer from which entries can be evicted: what a stream asks of it.

    Entries are counted by age, 0 the oldest, wherever a subclass stores them.

    Attributes:
        slots: entries that the buffers, [batch, heads, slots, head_dim], have room for.
        end: position for which the model must rotate the next token's query and key; one for all
            layers of a cache, also where they hold different numbers of entries.
    """

    is_sliding = False
    is_compileable = False

    attention: ClassVar[str | None] = None
    """The attention function that the model must run under; None: any."""

    _buffers: ClassVar[tuple[str, ...]] = ("_keys", "_values")
    _keys: torch.Tensor
    _values: torch.Tensor
    slots: int
    end: int

    @property
    @abstractmethod
    def length(self) -> int:
        """Entries held."""

    @abstractmethod
    def make_room(self, new: int, longest: int) -> None:
        """Make sure that `new` more entries fit. Must be called before the positions are chosen.

        Args:
            longest: entries of the layer that holds most.
        """

    @abstractmethod
    def evict(self, keep: torch.Tensor, end: int) -> None:
        """Keep the entries `keep`, in that order.

        Args:
            keep: entry indices (0 is the oldest), [kept] for all rows and heads, or
                [batch, heads, kept].
            end: what `end` shall be afterwards in a layout that renumbers kept entries.
        """

    @property
    def columns(self) -> torch.Tensor | None:
        """Where each entry stands in the keys that `update` returned last.

        Returns:
            [batch or 1, heads or 1, length], int64; None when entry i is column i.
        """
        return None

    @property
    def options(self) -> dict[str, object]:
        """Keyword arguments that the model's forward pass must be given for this layer."""
        return {}

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

    def _grow(self, slots: int) -> None:
        for name in self._buffers:
            old = getattr(self, name)
            new = old.new_empty(*old.shape[:2], slots, *old.shape[3:])
            new[:, :, : self.slots] = old
            setattr(self, name, new)
        self.slots = slots


class SlotLayer(EvictingLayer):
    """Keys and values of one layer in slots whose index is a position.

    The entries stand in slots start..end-1, oldest first, and the key in slot i is rotated for
    position i. Attention under RoPE depends on differences of positions only, so it does not matter
    where `start` is: entries have the positions 0, 1, 2, ... *in the cache*, up to a common shift.
    All layers end at one slot, since the model knows one position. Subclasses say how evicted
    entries leave (`evict`); those that stay take consecutive positions.

    A moved key is rotated in one step from the key as it arrived (kept beside it, rotary dimensions
    only), never from an already moved one: repeated rotation in 16 bit drifts by percents.
    """

    _buffers = ("_keys", "_values", "_arrived", "_arrived_at")

    def __init__(self, rotary: Rotary, slots: int, staging: Staging | None = None) -> None:
        """
        Args:
            slots: entries to make room for; the layer grows when they do not suffice.
            staging: where entries are gathered before they are put into place; None: in memory
                that is allocated for it.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.rotary = rotary
        self.slots = slots
        self.staging = staging
        self.start = self.end = 0

    @property
    def length(self) -> int:
        return self.end - self.start

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

    def make_room(self, new: int, longest: int) -> None:
        if not self.is_initialized:
            self.slots = max(self.slots, new)
        elif self.end + new > self.slots:
            if longest + new > self.slots:
                self._grow(2 * (longest + new))
            length = self.length
            self._move(torch.arange(length, device=self.device), to=longest - length)
            self.start, self.end = longest - length, longest

    def forget_newest(self, entries: int) -> None:
        """Undo the last `entries` entries: what comes next takes their places."""
        self.end -= entries

    def _move(self, entries: torch.Tensor, to: int) -> None:
        """Put `entries`, [moved] or [batch, heads, moved], into slots to, to + 1, ..."""
        target = slice(to, to + entries.shape[-1])
        source = entries + self.start
        for buffer in (self._keys, self._values, self._arrived):
            buffer[:, :, target] = self._gathered(buffer, source)
        if source.ndim == 1:
            self._arrived_at[..., target] = self._arrived_at.index_select(2, source)
        else:
            self._arrived_at = self._arrived_at.expand(*source.shape[:2], self.slots).contiguous()
            self._arrived_at[..., target] = self._arrived_at.gather(2, source)
        positions = torch.arange(target.start, target.stop, device=self.device)
        self._keys[:, :, target, : self.rotary.dim] = self.rotary.rotate(
            self._arrived[:, :, target], positions - self._arrived_at[..., target]
        )

    def _gathered(self, buffer: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """Slots `source`, [moved] or [batch, heads, moved], of a buffer."""
        out = None
        if self.staging is not None:
            shape = (*buffer.shape[:2], source.shape[-1], buffer.shape[-1])
            out = self.staging.room_for(shape, buffer)
        if source.ndim == 1:
            return torch.index_select(buffer, 2, source, out=out)
        rows = source[..., None].expand(*source.shape, buffer.shape[-1])
        return torch.gather(buffer, 2, rows, out=out)

    def reset(self) -> None:
        """Forget every entry; keep the buffers."""
        self.start = self.end = 0
