"""A cache layer that evicts by freeing slots, which the next tokens are written into."""

from __future__ import annotations

from typing import Any

import torch

from kvpareto.cache.slots import EvictingLayer


class OverwritingLayer(EvictingLayer):
    """Kept entries stay where they are, in memory and in position; only a table of slots changes.

    Positions are *original*: a key stays rotated for the index in the stream at which it came, so
    the distances of kept entries are the true ones, grow with the stream, and pass the trained
    length with it; the model's own angles, in float32, lose precision as they grow. Nothing is ever
    rotated here, and no policy is refused.

    The slots in use are 0..length-1 after every `update`, in an order of each head's own, which
    attention of one query ignores. Where a prune drops more entries than the next token fills, the
    entries behind that range move into the holes, one for each dropped entry at most. Several
    queries see different entries, by age: for them the entries are put in order first.
    """

    def __init__(self, slots: int) -> None:
        """
        Args:
            slots: entries to make room for; the layer grows when they do not suffice.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.slots = slots
        self._start()

    def _start(self) -> None:
        self._length = self._used = self.end = 0
        self._by_age = True

    @property
    def length(self) -> int:
        return self._length

    @property
    def columns(self) -> torch.Tensor | None:
        return None if self._by_age else self._table[..., : self._length]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        batch, heads, _, head_dim = key_states.shape
        self._keys = key_states.new_empty(batch, heads, self.slots, head_dim)
        self._values = value_states.new_empty(batch, heads, self.slots, value_states.shape[-1])
        self._number_slots()
        self.is_initialized = True

    def _number_slots(self) -> None:
        # Slots of the entries by age, then holes, then slots never used, [batch or 1, heads or 1,
        # slots]: one row serves all heads until a policy evicts different entries in each.
        self._table = torch.arange(self.slots, device=self.device)[None, None]

    def make_room(self, new: int, longest: int) -> None:
        needed = self._length + new
        if not self.is_initialized:
            self.slots = max(self.slots, new)
        elif needed > self.slots:
            before = self.slots
            self._grow(2 * needed)
            added = torch.arange(before, self.slots, device=self.device)
            added = added.expand(*self._table.shape[:2], -1)
            self._table = torch.cat([self._table, added], dim=-1)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add entries whose keys are rotated for positions end, end + 1, ...

        Args:
            key_states, value_states: [batch, heads, new, head_dim].

        Returns:
            Keys and values of all entries, [batch, heads, length, head_dim], as views; in the order
            of `columns`, several new entries last.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[2]
        length = self._length + new
        if length > self.slots:
            raise RuntimeError(f"{length} slots needed, {self.slots} there: call make_room")
        if new > 1 and not self._by_age:
            self._sort_by_age()
        elif self._used > length:
            self._close_holes(length)
        added = self._table[..., self._length : length]
        for buffer, states in ((self._keys, key_states), (self._values, value_states)):
            if self._by_age:
                buffer[:, :, self._length : length] = states
            else:
                buffer.scatter_(2, _rows(added, buffer), states)
        self._length = self._used = length
        self.end += new
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]
        return self.keys, self.values

    def evict(self, keep: torch.Tensor, end: int) -> None:
        """Free the slots of the entries that are not in `keep`, which must be sorted."""
        keep = keep.to(self.device)
        order = torch.cat([keep, _missing(keep, self._length)], dim=-1)
        if order.ndim == 3 and self._table.shape[:2] != order.shape[:2]:
            self._table = self._table.expand(*order.shape[:2], -1).clone()
        held = self._table[..., : self._length]
        self._table[..., : self._length] = held.gather(-1, order.expand_as(held))
        self._length = keep.shape[-1]
        self._by_age = False

    def _close_holes(self, length: int) -> None:
        """Move the entries in slots length, ... into holes before them; leave the lowest holes.

        How many there are differs between heads. All slots from `length` on are listed, those in
        use first, and beside them as many holes, lowest first; a hole that is listed as a slot
        comes out beside itself.
        """
        held, used = self._length, self._used
        holes = self._table[..., held:used].sort(dim=-1).values
        target = holes[..., length - held :]
        in_use = torch.ones(*holes.shape[:2], used, dtype=torch.int8, device=self.device)
        in_use.scatter_(-1, holes, 0)
        source = length + in_use[..., length:].argsort(dim=-1, descending=True, stable=True)
        for buffer in (self._keys, self._values):
            buffer.scatter_(2, _rows(target, buffer), buffer.gather(2, _rows(source, buffer)))
        moved = torch.arange(used, device=self.device).expand_as(in_use).scatter(-1, source, target)
        self._table[..., :held] = moved.gather(-1, self._table[..., :held])
        self._table[..., held:length] = holes[..., : length - held]
        self._table[..., length:used] = torch.arange(length, used, device=self.device)

    def _sort_by_age(self) -> None:
        by_age = self._table[..., : self._length]
        for buffer in (self._keys, self._values):
            buffer[:, :, : self._length] = buffer.gather(2, _rows(by_age, buffer))
        self._number_slots()
        self._by_age = True

    def reset(self) -> None:
        """Forget every entry; keep the buffers."""
        self._start()
        if self.is_initialized:
            self._number_slots()


def _rows(slots: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    """`slots` [batch or 1, heads or 1, n] as an index into dimension 2 of a buffer."""
    return slots[..., None].expand(*buffer.shape[:2], -1, buffer.shape[-1])


def _missing(keep: torch.Tensor, length: int) -> torch.Tensor:
    """The indices below `length` that are not in the sorted `keep`, [..., kept]; sorted as well.

    The i-th of them has before it i missing ones and the kept ones with at most i missing before.
    """
    kept = keep.shape[-1]
    gaps = keep - torch.arange(kept, device=keep.device)
    nth = torch.arange(length - kept, device=keep.device).repeat(*keep.shape[:-1], 1)
    return nth + torch.searchsorted(gaps, nth, right=True)
