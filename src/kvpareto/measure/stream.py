"""Streaming decode: where policy, cache and model meet.

A document is prefilled up to what the policy keeps, then goes on token by token; after each token
the policy says what to evict, and the cache does it.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from kvpareto.cache.layouts import EvictingCache, Layout
from kvpareto.eviction.policy import Clock, Entries, EvictionPolicy
from kvpareto.models import families


class Stream:
    """One or more documents (a batch of equal lengths) in streaming decode.

    The policy is the same for all rows and layers; what it keeps may differ between them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        policy: EvictionPolicy,
        cache: EvictingCache,
        *,
        checked: bool = True,
    ) -> None:
        """
        Args:
            checked: hold every decision against the contract of `keep`; off in timed runs, whose
                arms have been checked by their quality run.
        """
        self.model = model
        self.policy = policy
        self.cache = cache
        self.checked = checked
        self.rotary = families.rotary(model)
        self.kv_heads = families.kv_heads(model)
        self.step = 0
        self.since_prune = 0

    @property
    def length(self) -> int:
        return self.cache.get_seq_length()

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """Process the first tokens, [batch, tokens]; logits of the last one, [batch, vocab]."""
        self.step = self.since_prune = 0
        for layer in self.cache.layers:
            layer.reset()
        return self.forward(ids, logits_to_keep=1)[:, -1]

    def forward(self, ids: torch.Tensor, **options: object) -> torch.Tensor:
        """Logits for new tokens, [batch, new, vocab]; appends them to the cache, evicts nothing."""
        first = self.cache.next_position(ids.shape[1])
        positions = torch.arange(first, first + ids.shape[1], device=ids.device)[None]
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **options,
        )
        logits: torch.Tensor = output.logits
        return logits

    def advance(self, length: int) -> int:
        """Count one token whose entry made the cache `length` long; how many entries must go."""
        self.step += 1
        self.since_prune += 1
        drop = self.policy.drop(Clock(self.step, length, self.since_prune))
        if drop:
            self.since_prune = 0
        return drop

    def evict(self, drop: int, rows: int) -> None:
        """Let the policy choose, in every layer, which `drop` entries go."""
        for index, layer in enumerate(self.cache.layers):
            entries = Entries(layer.length, rows, self.kv_heads, index, self.step)
            keep = self.policy.keep(entries, drop)
            if self.checked:
                _check_kept(keep, entries, drop, self.policy.sinks)
            layer.evict(keep)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """One token per row, [batch, 1], and the policy's eviction after it: one decode step."""
        logits = self.forward(ids)
        drop = self.advance(self.length)
        if drop:
            self.evict(drop, ids.shape[0])
        return logits[:, -1]


class InvalidDecisionError(ValueError):
    """A policy returned indices that are not a sorted subset of the right size with all sinks."""


def _check_kept(keep: torch.Tensor, entries: Entries, drop: int, sinks: int) -> None:
    wanted = entries.length - drop
    shapes = {(wanted,), (entries.rows, entries.heads, wanted)}
    flat = keep.reshape(-1, keep.shape[-1]) if keep.ndim else keep
    if (
        tuple(keep.shape) not in shapes
        or bool((flat[:, 1:] <= flat[:, :-1]).any())
        or int(flat[:, -1].max()) >= entries.length
        or not torch.equal(flat[:, :sinks], torch.arange(sinks).expand(flat.shape[0], sinks))
    ):
        raise InvalidDecisionError(
            f"layer {entries.layer}, step {entries.step}: kept indices {tuple(keep.shape)} "
            f"are not {wanted} sorted entries out of {entries.length} with the first {sinks}"
        )


def new_cache(
    model: PreTrainedModel, layout: Layout, policy: EvictionPolicy, longest: int
) -> EvictingCache:
    """A cache for a stream; `longest` is the most entries it will hold."""
    room = 2 * longest if layout == "soft_ring" else longest
    return EvictingCache(layout, families.layer_count(model), families.rotary(model), room)
