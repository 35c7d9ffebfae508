"""What chunk by chunk saves of memory and costs in time, against a concatenated cache.

Keys and values are random: neither figure depends on what they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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
from kvpareto.models.families import Blocks, head_dim, kv_heads
from kvpareto.provenance import machine

log = logging.getLogger(__name__)

CONCATENATED = "concatenated"
"""How the control runs; it is also what every ratio is of."""


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
            rows += [about | row for row in _measure(blocks, cache, offset, settings, confidence)]
    frame = pd.DataFrame(rows).assign(machine=machine())
    # The control is the same for every method: once is enough.
    return frame[~frame.duplicated(["offset", "top_k", "run", "chunks"])].reset_index(drop=True)


def random_cache(blocks: Blocks, chunks: int, tokens: int) -> ChunkedCache:
    """A cache of chunks with random entries, all at shared positions."""
    draw = torch.Generator().manual_seed(0)
    shape = (blocks.layers, kv_heads(blocks.model), tokens, head_dim(blocks.model))

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


@dataclass(frozen=True)
class _Way:
    """A way to run a method.

    Attributes:
        prepare: what a cache in chunks becomes first.
    """

    offset: Offset
    prepare: Callable[[ChunkedCache], ChunkedCache]
    at_once: bool = False


def _measure(
    blocks: Blocks,
    cache: ChunkedCache,
    offset: Offset,
    settings: MergeMemorySettings,
    confidence: float,
) -> Iterator[dict[str, Any]]:
    """A row for each way to run a method; for one that runs out of memory, its status."""
    question = torch.arange(settings.question_tokens) % int(blocks.model.config.vocab_size)
    device = blocks.model.device
    ways = {
        CONCATENATED: _Way(Concat(), ChunkedCache.concatenated),
        "chunk by chunk": _Way(offset, ChunkedCache.fork),
        "at once": _Way(offset, ChunkedCache.stacked, at_once=True),
    }

    def ask(name: str, prepared: ChunkedCache, ids: torch.Tensor) -> None:
        forward(blocks, prepared, ids, ways[name].offset, at_once=ways[name].at_once)

    def first_pass(name: str) -> None:
        ask(name, ways[name].prepare(cache), question)

    rows: dict[str, dict[str, Any]] = {}
    begun: dict[str, ChunkedCache] = {}
    for name, way in ways.items():
        rows[name] = {"run": name, "status": "ok", "why": ""}
        if name == CONCATENATED:
            rows[name] |= {"offset": "concat", "top_k": None}
        try:
            peak = peak_allocation(partial(first_pass, name), 1, device)
            begun[name] = way.prepare(cache)
        except Exception as error:
            log.exception("%s failed", name)
            rows[name]["status"], rows[name]["why"] = failure(error)
        else:
            rows[name]["peak_extra_bytes"] = peak
    times: dict[str, dict[str, list[float]]] = {n: {"pass": [], "step": []} for n in begun}
    report = progress(f"{len(cache.seeds)} chunks, pairs")
    for pair in range(-settings.warm_up, settings.pairs):
        for name in list(begun) if pair % 2 else list(begun)[::-1]:
            step = begun[name].fork()
            begin = now(device)
            first_pass(name)
            middle = now(device)
            ask(name, step, question[:1])
            end = now(device)
            if pair >= 0:
                times[name]["pass"].append(1e3 * (middle - begin))
                times[name]["step"].append(1e3 * (end - middle))
        report(max(0, pair + 1), settings.pairs)
    for name, own in times.items():
        for part, values in own.items():
            rows[name][f"{part}_ms"] = float(np.median(values))
            if CONCATENATED in times:
                control = times[CONCATENATED][part]
                ratio = median_ratio(values, control, confidence=confidence)
                rows[name] |= {
                    f"{part}_ratio": ratio.estimate,
                    f"{part}_ratio_lo": ratio.lo,
                    f"{part}_ratio_hi": ratio.hi,
                }
    yield from rows.values()
