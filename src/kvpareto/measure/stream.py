"""Teacher-forced streaming decode: where policy, cache and model meet.

A document is prefilled up to what the policy keeps, then goes on token by token; after each token
the policy says what to evict. Quality needs every token's loss but not its time, so tokens are fed in
blocks where that gives the same numbers: a block is one forward pass in which each query attends what
it would have attended alone (see `attend_block`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from kvpareto.attention.rope import Rotary
from kvpareto.cache.layouts import EvictingCache, Layout
from kvpareto.eviction.arms import prefill_length
from kvpareto.eviction.policy import Clock, Entries, EvictionPolicy
from kvpareto.models import families

BLOCK_TOKENS = 128


@dataclass(frozen=True)
class Block:
    """What the queries of one forward pass may see.

    Attributes:
        evicted: [queries], entries right after the sinks that are gone by the time of each query.
        sinks: entries before them.
        rotary: moves the sinks, which follow the window, to where each query sees them.
    """

    evicted: torch.Tensor
    sinks: int
    rotary: Rotary


def attend_block(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    block: Block,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attention of several queries, each with its own evictions already applied.

    When e entries after the sinks are gone, the sinks stand e positions closer to the query. Only
    differences of positions count, so the query is rotated back by e for the sink columns instead:
    one softmax over sinks and recent tokens, exact.

    Args:
        query: [batch, heads, queries, head_dim].
        key, value: [batch, kv_heads, entries, head_dim]; the last `queries` entries are the queries'
            own.

    Returns:
        [batch, queries, heads, head_dim].
    """
    batch, heads, queries, head_dim = query.shape
    kv_heads, entries = key.shape[1], key.shape[2]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads, queries, head_dim)
    keys, values = key[:, :, None], value[:, :, None]
    scores = (grouped @ keys.transpose(-1, -2)).float()
    column = torch.arange(entries, device=query.device)
    own = torch.arange(entries - queries, entries, device=query.device)
    hidden = column > own[:, None]
    if bool(block.evicted.any()):
        gone_to = block.sinks + block.evicted[:, None]
        hidden |= (column >= block.sinks) & (column < gone_to)
        if block.sinks:
            dim = block.rotary.dim
            turned = block.rotary.rotate(grouped[..., :dim], -block.evicted)
            moved = torch.cat([turned, grouped[..., dim:]], dim=-1)
            sink_keys = keys[..., : block.sinks, :]
            scores[..., : block.sinks] = (moved @ sink_keys.transpose(-1, -2)).float()
    weights = (scores * scaling).masked_fill_(hidden, float("-inf")).softmax(dim=-1)
    output = weights.to(value.dtype) @ values
    return output.reshape(batch, heads, queries, head_dim).transpose(1, 2).contiguous(), None


BLOCK_ATTENTION = "kvpareto_block"
AttentionInterface.register(BLOCK_ATTENTION, attend_block)


class Stream:
    """One or more documents (a batch of equal lengths) in streaming decode.

    The policy is the same for all rows and layers; what it keeps may differ between them.
    """

    def __init__(self, model: PreTrainedModel, policy: EvictionPolicy, cache: EvictingCache):
        self.model = model
        self.policy = policy
        self.cache = cache
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
        self.cache.reset()
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
            f"layer {entries.layer}, step {entries.step}: kept indices of shape {tuple(keep.shape)} "
            f"are not {wanted} sorted entries out of {entries.length} with the first {sinks}"
        )


def new_cache(
    model: PreTrainedModel, layout: Layout, policy: EvictionPolicy, longest: int
) -> EvictingCache:
    """A cache for a stream; `longest` is the most entries it will hold."""
    room = 2 * longest if layout == "soft_ring" else longest
    return EvictingCache(layout, families.layer_count(model), families.rotary(model), room)


@torch.inference_mode()
def stream_nll(
    model: PreTrainedModel,
    policy: EvictionPolicy,
    ids: torch.Tensor,
    score_start: int,
    *,
    blockwise: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Loss of every scored token under a policy.

    Args:
        ids: [documents, tokens], one row per document, all fed once and in order.
        score_start: index of the first scored token.
        blockwise: feed tokens in blocks; False feeds them one by one. Equal up to rounding.

    Returns:
        One row per document and token from `score_start` on: document, position (index of the
        predicted token), nll_nats, entropy_nats, attended (entries attended, the query's own
        included), length_before, length_after, dropped, pruned. The row of the first token is
        predicted by the prefill when that reaches it.

    Raises:
        InvalidDecisionError: the policy broke the contract of `keep`.
    """
    documents, tokens = ids.shape
    prefill = prefill_length(policy, score_start)
    many = BLOCK_TOKENS if blockwise else 1
    longest = prefill + policy.overshoot + many if policy.budgets else tokens
    stream = Stream(model, policy, new_cache(model, "soft_ring", policy, longest))
    table = _Table(ids)
    plain_attention = model.config._attn_implementation
    try:
        logits = stream.prefill(ids[:, :prefill])
        table.add(prefill, logits[:, None], [(prefill, prefill, 0)])
        model.set_attn_implementation(BLOCK_ATTENTION)
        position = prefill
        while position < tokens - 1:
            steps, evicted = _plan_block(stream, min(many, tokens - 1 - position))
            chunk = ids[:, position : position + len(steps)]
            block = Block(torch.tensor(evicted), policy.sinks, stream.rotary)
            logits = stream.forward(chunk, block=block)
            position += len(steps)
            table.add(position - len(steps) + 1, logits, steps)
            total = sum(dropped for _, _, dropped in steps)
            if total:
                stream.evict(total, documents)
            progress(position, tokens - 1)
    finally:
        model.set_attn_implementation(plain_attention)
    return table.frame(score_start)


def _plan_block(stream: Stream, most: int) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Steps that one forward pass may hold, from the policy's decisions on lengths alone.

    Returns:
        (attended, length after, dropped) of each step, and the entries evicted before each query.
    """
    steps: list[tuple[int, int, int]] = []
    evicted: list[int] = []
    length, gone = stream.length, 0
    while len(steps) < most:
        length += 1
        drop = stream.advance(length)
        steps.append((length, length - drop, drop))
        evicted.append(gone)
        length -= drop
        gone += drop
        if drop and not stream.policy.keeps_sinks_and_recent:
            break
    return steps, evicted


class _Table:
    """Collects per-token figures of all rows, block by block."""

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids = ids
        self.blocks: list[dict[str, np.ndarray]] = []

    def add(
        self, position: int, logits: torch.Tensor, steps: list[tuple[int, int, int]]
    ) -> None:
        """Score logits [documents, n, vocab], which predict tokens position, position + 1, ..."""
        documents, count = logits.shape[:2]
        log_p = logits.float().log_softmax(-1)
        targets = self.ids[:, position : position + count]
        nll = -log_p.gather(-1, targets[..., None])[..., 0]
        entropy = -(log_p.exp() * log_p).sum(-1)
        attended, after, dropped = (np.tile(column, documents) for column in zip(*steps, strict=True))
        self.blocks.append(
            {
                "document": np.repeat(np.arange(documents, dtype=np.int32), count),
                "position": np.tile(np.arange(position, position + count), documents),
                "nll_nats": nll.flatten().cpu().numpy(),
                "entropy_nats": entropy.flatten().cpu().numpy(),
                "attended": attended,
                "length_before": attended - 1,
                "length_after": after,
                "dropped": dropped,
            }
        )

    def frame(self, score_start: int) -> pd.DataFrame:
        columns = {
            name: np.concatenate([block[name] for block in self.blocks])
            for name in self.blocks[0]
        }
        frame = pd.DataFrame(columns)
        for name in ("position", "attended", "length_before", "length_after", "dropped"):
            frame[name] = frame[name].astype(np.int32)
        frame["pruned"] = frame["dropped"] > 0
        scored = frame[frame["position"] >= score_start]
        return scored.sort_values(["document", "position"], kind="stable", ignore_index=True)


@torch.inference_mode()
def recompute_nll(
    model: PreTrainedModel,
    cap: int,
    ids: torch.Tensor,
    positions: list[int],
    *,
    windows_at_once: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Loss of the tokens at `positions` without a cache: each from the `cap` tokens before it.

    Args:
        ids: [documents, tokens].
        positions: indices of the predicted tokens, ascending, none below `cap`.

    Returns:
        Columns as in `stream_nll`.
    """
    table: list[pd.DataFrame] = []
    jobs = [(document, position) for document in range(ids.shape[0]) for position in positions]
    for start in range(0, len(jobs), windows_at_once):
        part = jobs[start : start + windows_at_once]
        windows = torch.stack([ids[row, at - cap : at + 1] for row, at in part])
        logits = model(input_ids=windows[:, :-1], use_cache=False, logits_to_keep=1).logits
        block = _Table(windows)
        block.add(cap, logits, [(cap, cap, 0)])
        frame = block.frame(0)
        frame["document"] = np.array([row for row, _ in part], dtype=np.int32)
        frame["position"] = np.array([at for _, at in part], dtype=np.int32)
        table.append(frame)
        progress(start + len(part), len(jobs))
    return pd.concat(table, ignore_index=True)


def thinned(first: int, last: int, count: int) -> list[int]:
    """`count` positions spread evenly over first..last, ends included."""
    return sorted({int(value) for value in np.linspace(first, last, count).round()})
