"""What chunk by chunk saves of memory and costs in time, against a concatenated cache.

Keys and values are random: neither figure depends on what they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from kvpareto.cache.store import Segment
from kvpareto.claims.bootstrap import median_ratio
from kvpareto.jobs import failure, progress
from kvpareto.measure.latency import now
from kvpareto.measure.memory import peak_allocation
from kvpareto.merge.arms import settings_of
from kvpareto.merge.chunked import ChunkedCache, chunked_cache
from kvpareto.merge.forward import forward
from kvpareto.merge.offset import Offset, offset_of
from kvpareto.merge.offsets.concat import Concat
from kvpareto.merge_settings import MergeMemorySettings
from kvpareto.models.families import Blocks, kv_heads
from kvpareto.provenance import machine

log = logging.getLogger(__name__)

CONCATENATED = "concatenated"
"""How the control runs; it is also what every ratio is of."""

Pass = Callable[[ChunkedCache, torch.Tensor], object]


def measure_memory(
    blocks: Blocks, settings: MergeMemorySettings, confidence: float
) -> pd.DataFrame:
    """Peak memory and time of a question's pass and of a step after it.

    Every method runs chunk by chunk, and with all chunks at once. The control
    concatenates the cache of all layers and then attends to it.

    Returns:
        One row per method, way to run it and number of chunks: offset, top_k, run, chunks, tokens,
        peak_extra_bytes (beyond the chunks' own entries, for the question's pass), pass_ms and
        step_ms with their ratios to the control's (for which a step has the cache concatenated
        or stacked already), machine, status, why.
    """
    rows: list[dict[str, Any]] = []
    for chunks in settings.chunks:
        log.info("%d chunks of %d tokens", chunks, settings.chunk_tokens)
        cache = random_cache(blocks, chunks, settings.chunk_tokens)
        for offset, about in _methods(settings):
            about |= {"chunks": chunks, "tokens": chunks * settings.chunk_tokens}
            try:
                rows += [
                    about | row for row in _measure(blocks, cache, offset, settings, confidence)
                ]
            except Exception as error:
                log.exception("%s failed", about["offset"])
                status, why = failure(error)
                rows.append(about | {"run": "chunk by chunk", "status": status, "why": why})
    frame = pd.DataFrame(rows).assign(machine=machine())
    # The control is the same for every method: once is enough.
    return frame[~frame.duplicated(["offset", "top_k", "run", "chunks"])].reset_index(drop=True)


def random_cache(blocks: Blocks, chunks: int, tokens: int) -> ChunkedCache:
    """A cache of chunks with random entries, all at shared positions."""
    config = blocks.model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    draw = torch.Generator().manual_seed(0)
    shape = (blocks.layers, kv_heads(blocks.model), tokens, head_dim)

    def some() -> torch.Tensor:
        return torch.randn(shape, generator=draw).to(blocks.model.dtype)

    segments = [Segment(some(), some()) for _ in range(chunks)]
    return chunked_cache(blocks, None, segments, "shared", range(chunks))


def _methods(settings: MergeMemorySettings) -> Iterator[tuple[Offset, dict[str, Any]]]:
    for entry in settings.arms:
        for setting in settings_of(entry):
            yield (
                offset_of(entry.offset, setting),
                {"offset": entry.offset, "top_k": setting.get("top_k")},
            )


def _measure(
    blocks: Blocks,
    cache: ChunkedCache,
    offset: Offset,
    settings: MergeMemorySettings,
    confidence: float,
) -> Iterator[dict[str, Any]]:
    question = torch.arange(settings.question_tokens) % int(blocks.model.config.vocab_size)
    ways: dict[str, Pass] = {
        CONCATENATED: lambda cache, ids: forward(blocks, cache, ids, Concat()),
        "chunk by chunk": lambda cache, ids: forward(blocks, cache, ids, offset),
        "at once": lambda cache, ids: forward(blocks, cache, ids, offset, at_once=True),
    }
    stacked = cache.fork()
    for layer in stacked.layers:
        layer.stack()
    starts = {CONCATENATED: cache.concatenated(), "chunk by chunk": cache, "at once": stacked}
    passes: dict[str, list[float]] = {name: [] for name in ways}
    steps: dict[str, list[float]] = {name: [] for name in ways}
    report = progress(f"{len(cache.seeds)} chunks, pairs")
    for pair in range(-settings.warm_up, settings.pairs):
        for name in list(ways) if pair % 2 else list(ways)[::-1]:
            asked, after = cache.fork(), starts[name].fork()
            begin = now(blocks.model.device)
            ways[name](asked.concatenated() if name == CONCATENATED else asked, question)
            middle = now(blocks.model.device)
            ways[name](after, question[:1])
            end = now(blocks.model.device)
            if pair >= 0:
                passes[name].append(1e3 * (middle - begin))
                steps[name].append(1e3 * (end - middle))
        report(max(0, pair + 1), settings.pairs)
    for name, way in ways.items():
        row: dict[str, Any] = {
            "run": name,
            "peak_extra_bytes": peak_allocation(
                lambda name=name, way=way: way(  # type: ignore[misc]
                    cache.fork().concatenated() if name == CONCATENATED else cache.fork(), question
                ),
                1,
                blocks.model.device,
            ),
        }
        for part, times in (("pass", passes), ("step", steps)):
            ratio = median_ratio(times[name], times[CONCATENATED], confidence=confidence)
            row |= {
                f"{part}_ms": float(np.median(times[name])),
                f"{part}_ratio": ratio.estimate,
                f"{part}_ratio_lo": ratio.lo,
                f"{part}_ratio_hi": ratio.hi,
            }
        if name == CONCATENATED:
            row |= {"offset": "concat", "top_k": None}
        yield row | {"status": "ok", "why": ""}
