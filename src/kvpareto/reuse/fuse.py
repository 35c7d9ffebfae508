"""The fusion forward: a prefill that computes the chosen tokens and takes the rest from the store.

Layers before the check layer c compute all tokens. In layer c all tokens are projected, the rows
are chosen, and only they go on, attending to the fresh keys and values. In later layers the rows'
keys and values replace those of the store, and the rows attend to the mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from kvpareto.attention.masks import attend, visible
from kvpareto.attention.rope import turned
from kvpareto.cache.store import Segment
from kvpareto.models.families import Blocks
from kvpareto.reuse.strategy import Layer, Strategy, View
from kvpareto.text.tasks.item import Item

Mark = Callable[[str], None]
"""Told what part of the work has just ended: rotate, select, recompute, first_token."""


@dataclass(frozen=True)
class Prefilled:
    """A prompt's cache and what follows it.

    Attributes:
        logits: [vocab], of the token after the prompt.
        layers: keys after RoPE and values of each layer, [kv_heads, tokens, head_dim].
        queries: of the question's computed tokens in each layer, [heads, rows, head_dim].
        rows: positions computed from the check layer on, sorted.
    """

    logits: torch.Tensor
    layers: list[Layer]
    queries: list[torch.Tensor]
    rows: torch.Tensor

    @property
    def length(self) -> int:
        return self.layers[0].keys.shape[1]


def assemble(segments: Sequence[Segment], tokens: int) -> Segment:
    """Stored segments one after another, and zeros up to `tokens` where nothing is stored."""
    first = segments[0].keys
    layers, heads, _, head_dim = first.shape
    known = sum(map(len, segments))
    rest = first.new_zeros(layers, heads, tokens - known, head_dim)
    losses = [segment.surprisal for segment in segments if segment.surprisal is not None]
    return Segment(
        torch.cat([*(segment.keys for segment in segments), rest], dim=2),
        torch.cat([*(segment.values for segment in segments), rest], dim=2),
        torch.cat([*losses, torch.zeros(tokens - known)]) if len(losses) == len(segments) else None,
    )


def _silent(_: str) -> None:
    pass


@torch.inference_mode()
def fuse(
    blocks: Blocks,
    item: Item,
    stored: Segment,
    strategy: Strategy,
    *,
    seed: int = 0,
    truth: Callable[[], Sequence[Layer]] | None = None,
    mark: Mark = _silent,
) -> Prefilled:
    """Prefill an item from stored segments.

    Args:
        stored: of the whole prompt, as `assemble` makes it, on the model's device; not changed.
        truth: a full prefill's layers, for strategies that read them.
        mark: called after each part of the work.
    """
    if strategy.check_layer >= blocks.layers:
        raise ValueError(
            f"check_layer {strategy.check_layer} is beyond the model's {blocks.layers} layers"
        )
    ids = item.ids.to(stored.keys.device)
    length = len(ids)
    cos, sin = blocks.angles(torch.arange(length, device=ids.device))
    old = [
        Layer(turned(key, cos, sin), value)
        for key, value in zip(stored.keys, stored.values, strict=True)
    ]
    mark("rotate")
    rows = torch.arange(length, device=ids.device)
    hidden = blocks.embed(ids)
    layers: list[Layer] = []
    asked: list[torch.Tensor] = []
    masks = _masks(blocks, rows, length)
    for layer in range(blocks.layers):
        query, key, value = blocks.project(layer, hidden)
        query, key = turned(query, cos, sin), turned(key, cos, sin)
        if layer <= strategy.check_layer:
            now = Layer(key[0], value[0])
        else:
            # The rotated keys are our own; the values belong to the store and are copied.
            now = Layer(
                old[layer].keys.index_copy_(1, rows, key[0]),
                old[layer].values.index_copy(1, rows, value[0]),
            )
        if layer == strategy.check_layer:
            mark("recompute")
            view = View(
                item=item,
                queries=query[0],
                new=now,
                old=old[layer],
                scale=blocks.softmax_scale,
                surprisal=stored.surprisal,
                truth=lambda: list(zip(truth() if truth else [], old, strict=True)),
                seed=seed,
            )
            rows = strategy.rows(view).to(ids.device)
            query, hidden = query[:, :, rows], hidden[:, rows]
            cos, sin = cos[rows], sin[rows]
            masks = _masks(blocks, rows, length)
            mark("select")
        mask = masks[blocks.windows[layer]]
        attended = attend(query, now.keys[None], now.values[None], mask, blocks.softmax_scale)
        hidden = blocks.finish(layer, hidden, attended)
        layers.append(now)
        asked.append(query[0, :, -len(item.question) :])
    mark("recompute")
    logits = blocks.logits(hidden[:, -1:])[0, 0]
    mark("first_token")
    return Prefilled(logits, layers, asked, rows)


def _masks(
    blocks: Blocks, rows: torch.Tensor, length: int
) -> dict[int | None, torch.Tensor | None]:
    """The mask of each kind of layer, made once; None: the plain causal one."""
    everything = len(rows) == length
    return {
        window: None if everything and window is None else visible(rows, length, window)
        for window in set(blocks.windows)
    }


@torch.inference_mode()
def prefill(model: PreTrainedModel, item: Item) -> tuple[torch.Tensor, list[Layer]]:
    """The full prefill by the model's own forward pass: what reuse is held against.

    Returns:
        Logits of the next token, [vocab], and the cache.
    """
    ids = item.ids.to(model.device)
    cache = DynamicCache()
    output = model(input_ids=ids[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
    layers: Any = cache.layers
    return output.logits[0, -1], [Layer(one.keys[0], one.values[0]) for one in layers]
