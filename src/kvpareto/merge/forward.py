"""A forward pass of new tokens over a cache in chunks: the question's prefill and each step after.

The model's own submodules, one step at a time; only attention is ours.
"""

from __future__ import annotations

import torch

from kvpareto.attention.masks import visible
from kvpareto.attention.rope import turned
from kvpareto.jobs import RefusedError
from kvpareto.merge.chunked import ChunkedCache, Watch, unwatched
from kvpareto.merge.offset import Offset
from kvpareto.models.families import Blocks
from kvpareto.reuse.strategy import Layer


@torch.inference_mode()
def forward(
    blocks: Blocks,
    cache: ChunkedCache,
    ids: torch.Tensor,
    offset: Offset,
    *,
    at_once: bool = False,
    watch: Watch = unwatched,
) -> torch.Tensor:
    """Append tokens to the cache's own block and compute what follows each.

    Args:
        ids: [tokens].
        at_once: not chunk by chunk; faster, and see `ChunkedLayer.attend_at_once`.

    Returns:
        Logits, [tokens, vocab].

    Raises:
        RefusedError: the model has a sliding window.
    """
    if set(blocks.windows) != {None}:
        raise RefusedError("a sliding window counts positions, which chunks may share")
    ids = ids.to(blocks.model.device)
    steps = torch.arange(len(ids), device=ids.device)
    cos, sin = blocks.angles(cache.position + steps)
    known = cache.layers[0].own.keys.shape[1]
    mask = visible(known + steps, known + len(ids))
    hidden = blocks.embed(ids)
    for index, layer in enumerate(cache.layers):
        query, key, value = blocks.project(index, hidden)
        layer.own = Layer(
            torch.cat([layer.own.keys, turned(key, cos, sin)[0]], dim=1),
            torch.cat([layer.own.values, value[0]], dim=1),
        )
        scaled = turned(query, cos, sin)[0].float() * blocks.softmax_scale
        attend = layer.attend_at_once if at_once else layer.attend
        attended = attend(scaled, mask, offset, cache.seeds, watch)
        hidden = blocks.finish(index, hidden, attended[None].to(hidden.dtype))
    cache.position += len(ids)
    return blocks.logits(hidden)[0]


def answer(
    blocks: Blocks,
    cache: ChunkedCache,
    logits: torch.Tensor,
    offset: Offset,
    most: int,
    ends: frozenset[int],
    *,
    at_once: bool = False,
) -> list[int]:
    """Greedy continuation.

    Args:
        logits: [vocab], of the first new token.
        most: tokens at most.
        ends: tokens after which nothing more is wanted; the one that ends is part of the answer.
    """
    tokens = [int(logits.argmax())]
    while len(tokens) < most and tokens[-1] not in ends:
        following = forward(blocks, cache, torch.tensor(tokens[-1:]), offset, at_once=at_once)
        tokens.append(int(following[-1].argmax()))
    return tokens
