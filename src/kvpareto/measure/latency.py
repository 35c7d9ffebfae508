"""Time per token, paired: an arm and the yardstick take turns in one process.

Clocks of shared machines drift by tens of percents between jobs, so an arm's time is reported as a
ratio to a yardstick that ran beside it, block by block, and absolute times come along.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from kvpareto.cache.layouts import Layout
from kvpareto.eviction.arms import prefill_length
from kvpareto.eviction.policy import EvictionPolicy
from kvpareto.measure.stream import Stream, new_cache


class Decoder(Protocol):
    """Something that decodes a document token by token and says how long each took."""

    def start(self) -> tuple[float, float]:
        """Prefill; (prefill, prefill and first token) in seconds."""

    def token(self) -> tuple[float, bool]:
        """Decode one token; (seconds, whether entries were evicted). Starts over at the end."""


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _use_attention(model: PreTrainedModel, name: str) -> None:
    """The decoders of one model take turns, and not all use one attention function; not timed."""
    if model.config._attn_implementation != name:
        model.set_attn_implementation(name)


class CachedDecoder:
    """Streaming decode with a policy and a cache, batch 1.

    Decoding is teacher forced; the arg max that a server would take is part of the timed step.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        policy: EvictionPolicy,
        layout: Layout,
        ids: torch.Tensor,
        score_start: int,
        structural: torch.Tensor | None = None,
    ) -> None:
        """
        Args:
            ids: [1, tokens], the document.
            score_start: where scoring starts in the quality run.
            structural: as in `Stream`.
        """
        longest = policy.peak + 1 if policy.budgets else ids.shape[1]
        self.ids = ids.to(model.device)
        # Without a budget time grows with the length, so it is taken around the stream's middle.
        middle = (score_start + ids.shape[1]) // 2
        self.prefill = prefill_length(policy, score_start if policy.budgets else middle)
        self.peak_entries = policy.peak if policy.budgets else ids.shape[1]
        cache = new_cache(model, layout, policy, longest)
        self.stream = Stream(model, policy, cache, structural=structural, checked=False)
        self.position = 0

    @torch.inference_mode()
    def start(self) -> tuple[float, float]:
        _use_attention(self.stream.model, self.stream.attention)
        _synchronise(self.ids.device)
        begin = time.perf_counter()
        self.stream.prefill(self.ids[:, : self.prefill]).argmax(-1)
        _synchronise(self.ids.device)
        prefilled = time.perf_counter()
        self.position = self.prefill
        seconds, _ = self.token()
        return prefilled - begin, prefilled - begin + seconds

    @torch.inference_mode()
    def token(self) -> tuple[float, bool]:
        if self.position == self.ids.shape[1]:
            self.start()
        chunk = self.ids[:, self.position : self.position + 1]
        self.position += 1
        _use_attention(self.stream.model, self.stream.attention)
        before = self.stream.lengths
        _synchronise(self.ids.device)
        begin = time.perf_counter()
        self.stream.decode(chunk).argmax(-1)
        _synchronise(self.ids.device)
        seconds = time.perf_counter() - begin
        pairs = zip(self.stream.lengths, before, strict=True)
        return seconds, any(now <= was for now, was in pairs)


class RecomputeDecoder:
    """The baseline: a forward pass over the last `cap` tokens for every token."""

    def __init__(self, model: PreTrainedModel, cap: int, ids: torch.Tensor) -> None:
        self.model = model
        self.cap = cap
        self.ids = ids.to(model.device)
        self.position = cap

    def start(self) -> tuple[float, float]:
        """Nothing is prefilled: the first token costs what every token costs."""
        self.position = self.cap
        seconds, _ = self.token()
        return 0.0, seconds

    @torch.inference_mode()
    def token(self) -> tuple[float, bool]:
        if self.position > self.ids.shape[1]:
            self.position = self.cap
        window = self.ids[:, self.position - self.cap : self.position]
        self.position += 1
        _use_attention(self.model, "sdpa")
        _synchronise(self.ids.device)
        begin = time.perf_counter()
        logits = self.model(input_ids=window, use_cache=False, logits_to_keep=1).logits
        logits[:, -1].argmax(-1)
        _synchronise(self.ids.device)
        return time.perf_counter() - begin, False


def paired_blocks(
    arm: Decoder,
    yardstick: Decoder,
    blocks: int,
    tokens_per_block: int,
    warm_up_tokens: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Two decoders in alternating blocks (see `alternating_blocks`): `arm` and `yardstick`."""
    runners = {"arm": arm, "yardstick": yardstick}
    tokens = dict.fromkeys(runners, tokens_per_block)
    return alternating_blocks(runners, blocks, tokens, warm_up_tokens, progress)


def alternating_blocks(
    runners: Mapping[str, Decoder],
    blocks: int,
    tokens_per_block: Mapping[str, int],
    warm_up_tokens: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Decode in alternating blocks, reversing the order each time, and time every token.

    All runners must have been started.

    Returns:
        One row per token: block, runner (its name), ms, pruned.
    """
    for decoder in runners.values():
        for _ in range(warm_up_tokens):
            decoder.token()
    rows = []
    for block in range(blocks):
        order = list(runners) if block % 2 == 0 else list(runners)[::-1]
        for name in order:
            for _ in range(tokens_per_block[name]):
                seconds, pruned = runners[name].token()
                rows.append((block, name, 1e3 * seconds, pruned))
        progress(block + 1, blocks)
    return pd.DataFrame(rows, columns=["block", "runner", "ms", "pruned"])


def prefill_times(decoder: Decoder, repeats: int) -> dict[str, float]:
    """Median prefill_ms and ttft_ms (time to first token) over `repeats` starts."""
    starts = np.array([decoder.start() for _ in range(repeats)]) * 1e3
    prefill, ttft = np.median(starts, axis=0)
    return {"prefill_ms": float(prefill), "ttft_ms": float(ttft)}


def summarise(tokens: pd.DataFrame) -> dict[str, float | None]:
    """Time per output token of the arm in `tokens` (as `paired_blocks` returns them).

    Returns:
        tpot_ms_{mean,p50,p95,p99,max}, prune_ms_p50 and plain_ms_p50 (steps with and without an
        eviction; None where there is none). The mean is the median over blocks of block means, so
        that one stall of the machine does not decide it; prunes are part of every block.
    """
    mine = tokens[tokens["runner"] == "arm"]
    ms = mine["ms"].to_numpy()
    parts = {
        f"{kind}_ms_p50": float(part.median()) if len(part) else None
        for kind, part in (
            ("prune", mine.loc[mine["pruned"], "ms"]),
            ("plain", mine.loc[~mine["pruned"], "ms"]),
        )
    }
    return {
        "tpot_ms_mean": float(block_means(tokens, "arm").median()),
        **{f"tpot_ms_p{q}": float(np.percentile(ms, q)) for q in (50, 95, 99)},
        "tpot_ms_max": float(ms.max()),
        **parts,
    }


def block_means(tokens: pd.DataFrame, runner: str) -> pd.Series[float]:
    """Mean ms per token of every block, in block order."""
    mine = tokens[tokens["runner"] == runner]
    return mine.groupby("block")["ms"].mean()
