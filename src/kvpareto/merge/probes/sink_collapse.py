"""The first tokens hold attention that has nowhere else to go: what deleting them does."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch

from kvpareto.merge.asking import Weights
from kvpareto.merge.chunked import ChunkedCache, ChunkedLayer
from kvpareto.merge.offset import offset_of
from kvpareto.merge.probing import Probing, Value
from kvpareto.reuse.strategy import Layer

DELETIONS = {"prompt": [0], "first_chunk": [1], "both": [0, 1]}
"""The heads that are deleted, by their numbers among the split cache's chunks."""


def run(probing: Probing) -> pd.DataFrame:
    """Delete the head of the first chunk, of the prompt, or of both, and answer.

    Measures, for each deletion: `mass`, the share of the last query's attention that the deleted
    tokens had (mean over layers and heads); `cost_score` in points of 100 and `cost_kl` in nats,
    against the whole cache.
    """
    return probing.table(_measured(probing))


def _measured(probing: Probing) -> Iterator[Value]:
    zero = offset_of("zero", {})
    for context in probing.contexts():
        asked = probing.asked(context)
        split = _split(asked.cache(), probing.settings.sink_tokens)
        weights = Weights()
        whole = asked.outcome(split.fork(), zero, weights.watch)
        blocks = 2 + len(split.layers[0].chunks)
        for name, numbers in DELETIONS.items():
            cut = split.fork()
            for layer in cut.layers:
                layer.gone[numbers] = True
            left = asked.outcome(cut, zero)
            yield name, "mass", "%", 100 * weights.mass(weights.after, blocks, numbers)
            yield name, "cost_score", "points", 100 * (whole["score"] - left["score"])
            yield name, "cost_kl", "nats", left["kl_to_full"] - whole["kl_to_full"]


def _split(cache: ChunkedCache, tokens: int) -> ChunkedCache:
    """The same entries with the heads of prompt and first chunk as chunks 0 and 1.

    Without an offset the partition into chunks changes nothing.
    """
    layers = []
    for layer in cache.layers:
        first, *others = layer.chunks
        heads = [_cut(layer.prefix, 0, tokens), _cut(first, 0, tokens)]
        rest = [_cut(layer.prefix, tokens, None), _cut(first, tokens, None)]
        chunks = [*heads, *rest, *others]
        gone = torch.cat([layer.gone[:1].expand(4, -1), layer.gone[1:]])
        layers.append(ChunkedLayer(_cut(layer.prefix, 0, 0), chunks, layer.own, gone))
    return ChunkedCache(layers, cache.position, list(range(len(chunks))))


def _cut(layer: Layer, start: int, end: int | None) -> Layer:
    return Layer(layer.keys[:, start:end], layer.values[:, start:end])
