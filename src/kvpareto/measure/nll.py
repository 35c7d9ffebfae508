"""Teacher-forced loss of every token of a document under an eviction policy.

Quality needs every token's loss but not its time, so tokens are fed in blocks: one forward pass in
which each query attends what it would have attended alone (see `block`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from transformers import PreTrainedModel

from kvpareto.eviction.arms import prefill_length
from kvpareto.eviction.policy import EvictionPolicy
from kvpareto.measure.block import BLOCK_ATTENTION
from kvpareto.measure.stream import Stream, new_cache, quality_layout

BLOCK_TOKENS = 128


@torch.inference_mode()
def stream_nll(
    model: PreTrainedModel,
    policy: EvictionPolicy,
    ids: torch.Tensor,
    score_start: int,
    *,
    structural: torch.Tensor | None = None,
    blockwise: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Loss of every scored token under a policy.

    Args:
        ids: [documents, tokens], one row per document, all fed once and in order.
        score_start: index of the first scored token.
        structural: as in `Stream`.
        blockwise: feed tokens in blocks; False feeds them one by one. Equal up to rounding.

    Returns:
        One row per document and token from `score_start` on: document, position (index of the
        predicted token), nll_nats, entropy_nats, attended (entries attended, the query's own
        included; the mean over layers), length_before, length_after, dropped, pruned. The row of
        the first token is predicted by the prefill when that reaches it.

    Raises:
        InvalidDecisionError: the policy broke the contract of `keep`.
    """
    documents, tokens = ids.shape
    if policy.reads == "entropy" and documents > 1:
        # Each document prunes at times of its own, which a rectangular batch cannot.
        frames = []
        for row in range(documents):
            one = stream_nll(model, policy, ids[row : row + 1], score_start, blockwise=blockwise)
            frames.append(one.assign(document=np.int32(row)))
            progress(row + 1, documents)
        return pd.concat(frames, ignore_index=True)
    prefill = prefill_length(policy, score_start)
    many = BLOCK_TOKENS if blockwise else 1
    longest = max(prefill, policy.peak) + many if policy.budgets else tokens
    cache = new_cache(model, quality_layout(policy), policy, longest)
    stream = Stream(model, policy, cache, structural=structural)
    table = _Table(ids)
    plain_attention = model.config._attn_implementation
    try:
        if stream.observing:
            model.set_attn_implementation(BLOCK_ATTENTION)
        logits = stream.prefill(ids[:, :prefill])
        table.add(prefill, logits[:, None], [(prefill, prefill, 0)])
        model.set_attn_implementation(BLOCK_ATTENTION)
        position = prefill
        while position < tokens - 1:
            most = min(many, tokens - 1 - position)
            block = _Block(stream)
            if policy.reads == "entropy":
                most = min(most, max(1, policy.capacity + policy.quiet - stream.lengths[0]))
            else:
                while len(block.steps) < most and not block.closed:
                    block.advance()
                most = len(block.steps)
            chunk = ids[:, position : position + most]
            logits = stream.forward(chunk, evicted=block.before(most).to(ids.device))
            while len(block.steps) < most:
                block.advance()
            position += most
            table.add(position - most + 1, logits, block.steps)
            if any(block.dropped):
                stream.evict(block.dropped, documents)
            progress(position, tokens - 1)
    finally:
        model.set_attn_implementation(plain_attention)
    return table.frame(score_start)


class _Block:
    """Tokens of one forward pass, by the policy's decisions on lengths.

    Attributes:
        steps: (attended, length after, dropped) of each token, rounded means over the layers.
        dropped: entries that go after the pass, of each layer.
        closed: whether no further token fits: the policy must see the entries to choose.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.lengths = stream.lengths
        self.steps: list[tuple[int, int, int]] = []
        self.dropped = [0] * len(self.lengths)
        self.evicted: list[int] = []
        self.closed = False

    def advance(self) -> None:
        """Count one more token."""
        self.evicted.append(self.dropped[0])
        attended = [length + 1 for length in self.lengths]
        drops = self.stream.advance(attended)
        self.lengths = [length - drop for length, drop in zip(attended, drops, strict=True)]
        self.dropped = [gone + drop for gone, drop in zip(self.dropped, drops, strict=True)]
        # A prune in any layer is one, however few entries it is on the mean.
        dropped = math.ceil(sum(drops) / len(drops))
        self.steps.append((_mean(attended), _mean(attended) - dropped, dropped))
        self.closed = any(drops) and not self.stream.policy.keeps_sinks_and_recent

    def before(self, tokens: int) -> torch.Tensor:
        """Entries evicted before each of the `tokens` queries: none while no plan was made."""
        return torch.tensor(self.evicted or [0] * tokens)


def _mean(lengths: list[int]) -> int:
    return round(sum(lengths) / len(lengths))


class _Table:
    """Collects per-token figures of all rows, block by block."""

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids = ids
        self.blocks: list[dict[str, np.ndarray]] = []

    def add(self, position: int, logits: torch.Tensor, steps: list[tuple[int, int, int]]) -> None:
        """Score logits [documents, n, vocab], which predict tokens position, position + 1, ..."""
        documents, count = logits.shape[:2]
        log_p = logits.float().log_softmax(-1)
        targets = self.ids[:, position : position + count]
        nll = -log_p.gather(-1, targets[..., None])[..., 0]
        entropy = -(log_p.exp() * log_p).sum(-1)
        attended, after, dropped = (
            np.tile(column, documents) for column in zip(*steps, strict=True)
        )
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
            name: np.concatenate([block[name] for block in self.blocks]) for name in self.blocks[0]
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


def perplexity(nll: ArrayLike) -> float:
    """exp of the mean negative log-likelihood, in nats per token, taken in float64."""
    return float(np.exp(np.asarray(nll, dtype=np.float64).mean()))
