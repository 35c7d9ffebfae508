"""Streaming decode: where policy, cache and model meet.

A document is prefilled up to what the policy keeps, then goes on token by token; after each token
the policy says what to evict, and the cache does it.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from kvpareto.cache.layouts import EvictingCache, Layout
from kvpareto.cache.observer import Observer
from kvpareto.eviction.policy import Clock, Entries, EvictionPolicy
from kvpareto.measure.block import BLOCK_ATTENTION, Block
from kvpareto.models import families

_OBSERVED_PREFILL = 64
"""Queries at a time whose probabilities over a prefill are held in memory."""


class Stream:
    """One or more documents (a batch of equal lengths) in streaming decode.

    The policy is the same for all rows; what it keeps may differ between rows, heads and layers.
    The model must run under the stream's `attention` function.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        policy: EvictionPolicy,
        cache: EvictingCache,
        *,
        structural: torch.Tensor | None = None,
        checked: bool = True,
    ) -> None:
        """
        Args:
            structural: [vocab], whether a token ends a line, a sentence or a quotation; needed by
                policies that read `structure`.
            checked: hold every decision against the contract of `keep`; off in timed runs, whose
                arms have been checked by their quality run.
        """
        self.model = model
        self.policy = policy
        self.cache = cache
        self.checked = checked
        self.rotary = families.rotary(model)
        self.kv_heads = families.kv_heads(model)
        layers = families.layer_count(model)
        self.policies = [policy.for_layer(layer, layers) for layer in range(layers)]
        self.uniform = all(one is policy for one in self.policies)
        if policy.reads == "structure" and structural is None:
            raise ValueError("the policy reads structure: pass the table of structural tokens")
        self.observer = (
            Observer(self.policies, cache, self.rotary, structural) if policy.reads else None
        )
        self.step = 0
        self.since_prune = [0] * layers

    @property
    def observing(self) -> bool:
        """Whether the policy reads what attention computes."""
        return self.policy.reads in ("attention", "queries")

    @property
    def attention(self) -> str:
        """The attention function that the model must run under."""
        return self.cache.attention or (BLOCK_ATTENTION if self.observing else "sdpa")

    @property
    def lengths(self) -> list[int]:
        """Entries of every layer."""
        return [layer.length for layer in self.cache.layers]

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """Process the first tokens, [batch, tokens]; logits of the last one, [batch, vocab]."""
        self.step = 0
        self.since_prune = [0] * len(self.policies)
        for layer in self.cache.layers:
            layer.reset()
        if self.observer is None:
            return self.forward(ids, logits_to_keep=1)[:, -1]
        self.observer.reset()
        at_once = _OBSERVED_PREFILL if self.observing else ids.shape[1]
        for part in ids.split(at_once, dim=1):
            logits = self.forward(part)
        return logits[:, -1]

    def forward(
        self, ids: torch.Tensor, evicted: torch.Tensor | None = None, **options: object
    ) -> torch.Tensor:
        """Logits for new tokens, [batch, new, vocab]; appends them to the cache, evicts nothing.

        Args:
            evicted: [new], entries after the sinks that are gone by the time of each token, when
                several tokens go through at once (see `block`).
        """
        first = self.cache.next_position(ids.shape[1])
        positions = torch.arange(first, first + ids.shape[1], device=ids.device)[None]
        if self.observing or evicted is not None:
            gone = torch.zeros(ids.shape[1], dtype=torch.int64) if evicted is None else evicted
            observer = self.observer if self.observing else None
            options["block"] = Block(gone, self.policy.sinks, self.rotary, observer)
        options |= self.cache.options
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **options,
        )
        logits: torch.Tensor = output.logits
        if self.observer is not None:
            self.observer.note(ids, logits)
        return logits

    def advance(self, lengths: list[int]) -> list[int]:
        """Count one token that made every layer's cache `lengths` long; how many must go in each.

        Where all layers have one policy they have one answer as well.
        """
        self.step += 1
        entropies = self.observer.entropies if self.observer is not None else ()
        drops = []
        for layer, policy in enumerate(self.policies[: 1 if self.uniform else None]):
            self.since_prune[layer] += 1
            clock = Clock(self.step, lengths[layer], self.since_prune[layer], entropies)
            drops.append(policy.drop(clock))
            if drops[-1]:
                self.since_prune[layer] = 0
        return drops * len(self.policies) if self.uniform else drops

    def evict(self, drops: list[int], rows: int) -> None:
        """Let the policy choose which entries go, `drops` of them in each layer."""
        kept: list[torch.Tensor | None] = []
        for index, (policy, drop) in enumerate(zip(self.policies, drops, strict=True)):
            if not drop:
                kept.append(None)
                continue
            length = self.cache.layers[index].length
            entries = Entries(length, rows, self.kv_heads, index, self.step)
            if self.observer is not None:
                entries = self.observer.with_records(entries)
            keep = policy.keep(entries, drop)
            if self.checked:
                _check_kept(keep, entries, drop, policy)
            if self.observer is not None:
                self.observer.forget(index, keep)
            kept.append(keep)
        self.cache.evict(kept)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """One token per row, [batch, 1], and the policy's eviction after it: one decode step."""
        logits = self.forward(ids)
        drops = self.advance(self.lengths)
        if any(drops):
            self.evict(drops, ids.shape[0])
        return logits[:, -1]


class InvalidDecisionError(ValueError):
    """A policy returned indices that are not a sorted subset of the right size with all sinks."""


def _check_kept(keep: torch.Tensor, entries: Entries, drop: int, policy: EvictionPolicy) -> None:
    wanted, sinks = entries.length - drop, policy.sinks
    shapes = {(wanted,), (entries.rows, entries.heads, wanted)}
    flat = keep.reshape(-1, keep.shape[-1]) if keep.ndim else keep
    ordered = flat if policy.in_order else flat.sort(dim=-1).values
    first = torch.arange(sinks, device=keep.device)
    if (
        tuple(keep.shape) not in shapes
        or bool((ordered[:, 1:] <= ordered[:, :-1]).any())
        or int(ordered[:, -1].max()) >= entries.length
        or not torch.equal(flat[:, :sinks], first.expand(flat.shape[0], sinks))
    ):
        raise InvalidDecisionError(
            f"layer {entries.layer}, step {entries.step}: kept indices {tuple(keep.shape)} "
            f"are not {wanted} sorted entries out of {entries.length} with the first {sinks}"
        )


def new_cache(
    model: PreTrainedModel,
    layout: Layout,
    policy: EvictionPolicy,
    longest: int,
    *,
    staging: bool = False,
) -> EvictingCache:
    """A cache for a stream; `longest` is the most entries it will hold."""
    room = 2 * longest if layout == "soft_ring" else longest
    if layout == "ring":
        room = policy.peak
    return EvictingCache(
        layout,
        families.layer_count(model),
        families.rotary(model),
        room,
        sinks=policy.sinks,
        staging=staging,
    )


def quality_layout(policy: EvictionPolicy) -> Layout:
    """The layout in which a policy's quality is measured."""
    return "overwrite" if policy.keeps_positions else "soft_ring"
