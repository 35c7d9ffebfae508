"""The ring: strict start_recent (sinks and a recent window, one eviction a token) without a copy.

S sinks, `cap` keys attended including the current one, t the index of the current token. In the
cache sinks have the positions 0..S-1, recents S..cap-2 and the query cap-1. Between a query and a
recent key that is the distance in the stream, so a recent key is rotated for its index in the
stream, once, and never moves. Only sinks move: sink i is rotated for t - (cap - 1) + i at every
step, in one rotation from the key as it arrived. The token t is written over the oldest recent one,
into slot S + (t - S) mod (cap - S); attention does not mind the order of keys.

Models take their angles in float32, which are wrong by 1e-3 at position 1e5 and meaningless past
2^24, and positions cannot be wrapped, for the frequencies have no common period. So the model is
handed the positions 0..new-1 within each forward pass, and the index of its first token is added
here, to keys by `RingLayer` and to queries by `attend_ring`, with float64 angles: exact at any
length of the stream. Scaled cosines (YaRN) are in the keys and queries that the model makes; what
is added is a unit rotation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kvpareto.cache.ring_clock import RingClock
from kvpareto.cache.slots import EvictingLayer

RING_ATTENTION = "kvpareto_ring"


class RingLayer(EvictingLayer):
    """Keys and values of one layer in static buffers of `cap` slots, written in place.

    While it fills, entries stand by age and several tokens may come at once. From then on one token
    comes at a time, over the oldest recent one; `evict` merely says so beforehand. A stream that
    does not evict is stopped by `make_room`; who drives a ring without a stream need call neither.
    """

    attention = RING_ATTENTION

    def __init__(self, clock: RingClock, leads: bool) -> None:
        """
        Args:
            leads: whether this is the cache's first layer, which moves the clock on.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.clock = clock
        self.leads = leads
        self.slots = clock.cap
        self.end = 0
        self._length = 0
        entries = torch.arange(clock.cap)
        self._but_oldest = entries[entries != clock.sinks]

    @property
    def length(self) -> int:
        return self._length

    @property
    def options(self) -> dict[str, object]:
        return {"ring": self.clock}

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        batch, heads, _, head_dim = key_states.shape
        self._keys = key_states.new_zeros(batch, heads, self.slots, head_dim)
        self._values = value_states.new_zeros(batch, heads, self.slots, value_states.shape[-1])
        # The keys of `clock.columns` as they arrived.
        self._arrived = key_states.new_zeros(batch, heads, self.clock.moving + 1, head_dim)
        for buffer in (self._keys, self._values, self._arrived):
            torch._dynamo.mark_static_address(buffer)
        self.is_initialized = True

    def make_room(self, new: int, longest: int) -> None:
        """Nothing to make: refuse what would overwrite an entry that was not evicted.

        Raises:
            ValueError: the entries would not fit.
        """
        if self._length + new > self.slots:
            raise ValueError(
                f"layout 'ring' has {self.slots} slots, {self._length} of them held, and is to "
                f"take {new} tokens: it serves policies that keep sinks and the newest entries and "
                "prune after every token, one token at a time once it is full"
            )

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add entries whose keys are rotated for positions 0, 1, ... within this forward pass.

        Args:
            key_states, value_states: [batch, heads, new, head_dim].

        Returns:
            Keys and values of all entries, [batch, heads, length, head_dim], as views; in the order
            of `columns`. While the clock says `growing`, whole buffers.

        Raises:
            RuntimeError: several tokens and not enough free slots, or another attention function.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.clock.query_due:
            raise RuntimeError(
                f"layout 'ring' rotates keys, and nothing rotated the queries: the model must run "
                f"under attention {RING_ATTENTION!r} and be given the cache's `options`"
            )
        self.clock.query_due = True
        new = key_states.shape[2]
        if self.leads:
            # Where one graph serves every length, nothing in it may read the length.
            self.clock.tick(new, self.slots if self.clock.growing else self._length)
        if new == 1 and (self.clock.growing or self._length >= self.slots - 1):
            self._overwrite(key_states, value_states)
        else:
            self._append(key_states, value_states)
        # A slice of a length that grows would be a graph for each length.
        entries = slice(0, self.slots if self.clock.growing else self._length)
        self.keys, self.values = self._keys[:, :, entries], self._values[:, :, entries]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.slots - 1 if self.clock.growing else self._length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (self.slots, 0) if self.clock.growing else super().get_mask_sizes(query_length)

    def _append(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        begin, end = self._length, self._length + key_states.shape[2]
        if end > self.slots:
            raise RuntimeError(f"{end} slots needed, {self.slots} there: call make_room")
        sinks = max(0, min(end, self.clock.moving) - begin)
        self._arrived[:, :, begin : begin + sinks] = key_states[:, :, :sinks]
        self._keys[:, :, begin:end] = self.clock.turn(key_states)
        self._values[:, :, begin:end] = value_states
        self._length = end

    def _overwrite(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        clock = self.clock
        self._arrived[:, :, clock.moving :] = key_states
        self._keys.index_copy_(2, clock.columns, clock.turn_written(self._arrived))
        self._values.index_copy_(2, clock.columns[clock.moving :], value_states)
        if not clock.growing:
            self._length = self.slots

    def grew(self) -> None:
        """Count the token of a step that ran while the clock said `growing`."""
        self._length += 1

    def evict(self, keep: torch.Tensor, end: int) -> None:
        """Say that the oldest recent entry goes; the next token is written over it.

        Raises:
            ValueError: any other eviction.
        """
        expected = self._but_oldest
        if self._length != self.slots or not torch.equal(
            keep.cpu(), expected.expand(*keep.shape[:-1], -1)
        ):
            raise ValueError(
                f"layout 'ring' evicts the oldest entry after its {self.clock.sinks} sinks, one a "
                f"token, once it holds {self.slots}; asked to keep {keep.shape[-1]} of "
                f"{self._length}: take the layout 'compact' for this policy"
            )
        self._length -= 1

    @property
    def columns(self) -> torch.Tensor | None:
        if self._length < self.slots - 1:
            return None
        clock = self.clock
        recent = torch.arange(self.slots - self._length, clock.recents, device=self.device)
        wrapped = clock.sinks + (clock.position - clock.sinks + recent) % clock.recents
        sinks = torch.arange(clock.sinks, device=self.device)
        return torch.cat([sinks, wrapped])[None, None]

    def reset(self) -> None:
        """Forget every entry; keep the buffers."""
        self._length = 0
        if self.leads:
            self.clock.reset()


def attend_ring(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    ring: RingClock | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The models' `sdpa` attention, after turning the query into the ring's frame.

    Without a ring it is `sdpa` itself, so that a model can stay under it for every layout. While
    the ring is growing, slots that are free yet are masked. Heads that share keys are handed over
    as so many queries of one head, where each sees every entry: keys are then read once for all.

    Args:
        query: [batch, heads, queries, head_dim].
        key, value: [batch, kv_heads, entries, head_dim].

    Returns:
        [batch, queries, heads, head_dim].
    """
    if ring is not None:
        query = ring.turn(query)
        ring.query_due = False
        if ring.growing:
            attention_mask = ring.visible[None, None, None]
        if query.shape[2] == 1:
            output = scaled_dot_product_attention(
                query.unflatten(1, (key.shape[1], -1)).squeeze(3),
                key,
                value,
                attn_mask=attention_mask,
                scale=options["scaling"],
            )
            return output.flatten(1, 2)[:, None], None
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return output, None


def ring_mask(
    *, q_length: int, attention_mask: torch.Tensor | None = None, **options: Any
) -> torch.Tensor | None:
    """The mask of `sdpa`, but none for a single query, which sees every entry.

    Compiled, `sdpa_mask` would make one all the same, at the price of the fast kernels.
    """
    if q_length == 1 and attention_mask is None:
        return None
    mask: torch.Tensor | None = sdpa_mask(
        q_length=q_length, attention_mask=attention_mask, **options
    )
    return mask


AttentionInterface.register(RING_ATTENTION, attend_ring)
AttentionMaskInterface.register(RING_ATTENTION, ring_mask)
