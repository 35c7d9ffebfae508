"""Attention over a cache that stays in chunks: chunk by chunk, or all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from kvpareto.attention.partial import (
    OnlineMerge,
    Partial,
    log_partition,
    partial_attention,
)
from kvpareto.attention.rope import turned
from kvpareto.cache.store import Segment
from kvpareto.merge.offset import Offset
from kvpareto.models.families import Blocks
from kvpareto.reuse.strategy import Layer

Positions = Literal["shared", "sequential"]
"""Whether every chunk begins where the prefix ends, or where the chunk before it ends."""

Watch = Callable[[torch.Tensor, torch.Tensor], None]
"""Told of every block in every layer: its L before the offset and after it, [heads, queries].

In each layer the prefix comes first, then the question, then the chunks in their order.
"""


def unwatched(before: torch.Tensor, after: torch.Tensor) -> None:
    pass


@dataclass
class ChunkedLayer:
    """Keys and values of one layer, block by block; keys after RoPE.

    Attributes:
        prefix: the system prompt; never gets an offset.
        chunks: the context.
        own: the question and what is generated; never gets an offset.
        gone: [chunks, heads], what a method has deleted.
        stacked: all chunks in one tensor, made when `attend_at_once` first needs it.
    """

    prefix: Layer
    chunks: list[Layer]
    own: Layer
    gone: torch.Tensor
    stacked: Layer | None = None

    def attend(
        self,
        query: torch.Tensor,
        mask: torch.Tensor,
        offset: Offset,
        seeds: Sequence[int],
        watch: Watch = unwatched,
    ) -> torch.Tensor:
        """The merged output, [heads, queries, head_dim], float32, chunk by chunk.

        The offsets need all L before any output can be weighted, so there are two passes: L alone,
        then the outputs. Beside the entries it takes the memory of one chunk, however many they
        are.

        Args:
            query: [heads, queries, head_dim], after RoPE, scaled.
            mask: [queries, own tokens], what of its own block a query sees.
            seeds: of the chunks.
        """
        merge = OnlineMerge(query)
        for part in self._exempt(query, mask):
            merge.add(part)
            watch(part.lse, part.lse)
        context = query / offset.context_temperature
        target = offset.target(
            self._gone(number, log_partition(context, self._visible(number, offset).keys))[None]
            for number in range(len(self.chunks))
        )
        for number, seed in enumerate(seeds):
            chunk = self._visible(number, offset)
            part = partial_attention(context, chunk.keys, chunk.values)
            lse = self._gone(number, part.lse)
            (shift,) = offset.offset(lse[None], target, [seed])
            merge.add(Partial(part.output, lse + shift))
            watch(lse, lse + shift)
            if offset.deletes:
                # Judged by the last query of a pass; whoever comes later finds it gone.
                self.gone[number] |= shift[:, -1] == -torch.inf
        return merge.result().output

    def attend_at_once(
        self,
        query: torch.Tensor,
        mask: torch.Tensor,
        offset: Offset,
        seeds: Sequence[int],
        watch: Watch = unwatched,
    ) -> torch.Tensor:
        """The same up to rounding, in one pass that keeps every chunk's output.

        Faster, since all chunks are one batch; memory grows with their number, twice over.
        """
        exempt = list(self._exempt(query, mask))
        for part in exempt:
            watch(part.lse, part.lse)
        lengths = [chunk.keys.shape[1] for chunk in self.chunks]
        stacked = self.stack()
        place = torch.arange(max(lengths), device=query.device)
        skipped = [offset.skipped(number) for number in range(len(lengths))]
        start, end = (query.new_tensor(x)[:, None, None, None] for x in (skipped, lengths))
        context = query / offset.context_temperature
        parts = partial_attention(
            context, stacked.keys, stacked.values, (place >= start) & (place < end)
        )
        lses = parts.lse.masked_fill_(self.gone[..., None], -torch.inf)
        shifts = offset.offset(lses, offset.target([lses]), seeds)
        shifted = lses + shifts
        if watch is not unwatched:
            for before, after in zip(lses, shifted, strict=True):
                watch(before, after)
        if offset.deletes:
            self.gone |= shifts[..., -1] == -torch.inf
        weights = torch.cat([torch.stack([part.lse for part in exempt]), shifted]).softmax(0)
        outputs = torch.cat([torch.stack([part.output for part in exempt]), parts.output])
        return (weights[..., None] * outputs).sum(0)

    def stack(self) -> Layer:
        """All chunks in one tensor each, [chunks, kv_heads, longest, head_dim]; made once."""
        if self.stacked is None:
            both = zip(*((chunk.keys, chunk.values) for chunk in self.chunks), strict=True)
            keys, values = (
                pad_sequence([part.transpose(0, 1) for part in parts], batch_first=True)
                for parts in both
            )
            self.stacked = Layer(*(x.transpose(1, 2).contiguous() for x in (keys, values)))
        return self.stacked

    def _exempt(self, query: torch.Tensor, mask: torch.Tensor) -> Iterator[Partial]:
        yield partial_attention(query, self.prefix.keys, self.prefix.values)
        yield partial_attention(query, self.own.keys, self.own.values, mask)

    def _visible(self, number: int, offset: Offset) -> Layer:
        """A chunk without what a method skips at its head."""
        chunk, start = self.chunks[number], offset.skipped(number)
        return Layer(chunk.keys[:, start:], chunk.values[:, start:]) if start else chunk

    def _gone(self, number: int, lse: torch.Tensor) -> torch.Tensor:
        """L without what has been deleted."""
        return lse.masked_fill(self.gone[number][:, None], -torch.inf)


@dataclass
class ChunkedCache:
    """A prompt's cache in chunks, and where the next token stands.

    Attributes:
        layers: one for each layer of the model.
        position: of the next token.
        seeds: of the chunks, for methods that draw.
    """

    layers: list[ChunkedLayer]
    position: int
    seeds: list[int]

    def fork(self) -> ChunkedCache:
        """A cache that goes on from here by itself; what is there already is shared."""
        layers = [replace(layer, gone=layer.gone.clone()) for layer in self.layers]
        return ChunkedCache(layers, self.position, self.seeds)

    def stacked(self) -> ChunkedCache:
        """A fork with all chunks in one tensor, as `attend_at_once` needs them."""
        fork = self.fork()
        for layer in fork.layers:
            layer.stack()
        return fork

    def concatenated(self) -> ChunkedCache:
        """The same entries with the context as one chunk: what chunk by chunk does without."""
        layers = [
            ChunkedLayer(
                layer.prefix,
                [
                    Layer(
                        torch.cat([chunk.keys for chunk in layer.chunks], dim=1),
                        torch.cat([chunk.values for chunk in layer.chunks], dim=1),
                    )
                ],
                layer.own,
                layer.gone.all(0, keepdim=True),
            )
            for layer in self.layers
        ]
        return ChunkedCache(layers, self.position, [0])


def chunked_cache(
    blocks: Blocks,
    prefix: Segment | None,
    chunks: Sequence[Segment],
    positions: Positions,
    seeds: Sequence[int],
) -> ChunkedCache:
    """A cache of segments that were encoded apart, moved to their positions.

    With shared positions the question follows the longest chunk, with sequential ones the last.
    """
    start = 0 if prefix is None else len(prefix)
    placed, position, end = [], start, start
    for chunk in chunks:
        placed.append(_placed(blocks, chunk, position))
        end = max(end, position + len(chunk))
        if positions == "sequential":
            position = end
    nothing = chunks[0].keys[:, :, :0].to(blocks.model.device)
    first = (
        [Layer(empty, empty) for empty in nothing] if prefix is None else _placed(blocks, prefix, 0)
    )
    heads = int(blocks.model.config.num_attention_heads)
    gone = torch.zeros(len(chunks), heads, dtype=torch.bool, device=blocks.model.device)
    layers = [
        ChunkedLayer(
            first[i], [chunk[i] for chunk in placed], Layer(nothing[i], nothing[i]), gone.clone()
        )
        for i in range(blocks.layers)
    ]
    return ChunkedCache(layers, end, list(seeds))


def _placed(blocks: Blocks, segment: Segment, position: int) -> list[Layer]:
    """Each layer of a segment whose first token stands at a position."""
    device = blocks.model.device
    segment = segment.to(device)
    cos, sin = blocks.angles(torch.arange(position, position + len(segment), device=device))
    keys = turned(segment.keys, cos, sin)
    return [Layer(key, value) for key, value in zip(keys, segment.values, strict=True)]
