"""Encoding chunks alone, once, for the store."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd
import torch
from torch import nn

from kvpareto.attention.masks import attend, visible
from kvpareto.attention.rope import turned
from kvpareto.cache.store import ChunkStore, DamagedEntryError, Identity, Segment
from kvpareto.jobs import progress
from kvpareto.models.families import Blocks
from kvpareto.text.tasks.item import Item

log = logging.getLogger(__name__)

PrefixMode = Literal["bos", "prompt"]
"""What a chunk is encoded after: BOS alone, so that it fits into any prompt, or the whole prefix,
so that it fits into prompts with that prefix."""


@torch.inference_mode()
def encode(blocks: Blocks, ids: torch.Tensor, skip: int, surprisal: bool) -> Segment:
    """Keys before RoPE and values of `ids` after the first `skip` tokens, in all layers.

    Args:
        ids: [tokens]; the first `skip` of them are only looked at.
        surprisal: whether to keep the losses; the output layer is not computed otherwise.
    """
    device = blocks.model.device
    ids = ids.to(device)
    positions = torch.arange(len(ids), device=device)
    cos, sin = blocks.angles(positions)
    hidden = blocks.embed(ids)
    keys, values = [], []
    for layer in range(blocks.layers):
        query, key, value = blocks.project(layer, hidden)
        keys.append(key[0, :, skip:].cpu())
        values.append(value[0, :, skip:].cpu())
        placed = turned(query, cos, sin), turned(key, cos, sin)
        window = blocks.windows[layer]
        mask = None if window is None else visible(positions, len(ids), window)
        hidden = blocks.finish(layer, hidden, attend(*placed, value, mask, blocks.softmax_scale))
    losses = None
    if surprisal:
        logits = blocks.logits(hidden[:, skip:])[0, :-1].float()
        rest = nn.functional.cross_entropy(logits, ids[skip + 1 :], reduction="none")
        losses = nn.functional.pad(rest, (1, 0)).cpu()
    return Segment(torch.stack(keys), torch.stack(values), losses)


@dataclass
class SegmentSource:
    """A model's way to segments: from the store, or encoded and stored.

    Attributes:
        identity: of the model; its `prefix` is empty and is set by chunk.
        bos: what stands before a chunk encoded alone; None for a tokenizer without BOS.
        rebuilt: entries that were damaged and have been made anew.
    """

    blocks: Blocks
    store: ChunkStore
    identity: Identity
    mode: PrefixMode
    bos: int | None
    hits: int = 0
    misses: int = 0
    rebuilt: list[str] = field(default_factory=list)

    def before_chunks(self, item: Item) -> tuple[int, ...]:
        """What the chunks of an item are encoded after."""
        if self.mode == "prompt":
            return item.prefix
        return () if self.bos is None else (self.bos,)

    def parts(self, item: Item) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Each segment of an item that is stored: what it is encoded after, and its tokens.

        The prefix is encoded as it stands; then come the chunks.
        """
        if item.prefix:
            yield (), item.prefix
        for chunk in item.chunks:
            yield self.before_chunks(item), chunk

    def key(self, before: tuple[int, ...], tokens: tuple[int, ...]) -> str:
        return replace(self.identity, prefix=before).key(tokens)

    def segment(self, before: tuple[int, ...], tokens: tuple[int, ...]) -> Segment:
        """A segment from the store; encoded and stored where it is missing or damaged."""
        key = self.key(before, tokens)
        try:
            found = self.store.get(key)
        except DamagedEntryError as error:
            log.warning("%s; it is made anew", error)
            self.rebuilt.append(key)
            found = None
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        made = encode(
            self.blocks, torch.tensor([*before, *tokens]), len(before), self.identity.surprisal
        )
        self.store.put(key, made)
        return made

    def alone(self, item: Item) -> Segment:
        """The question encoded alone; it is new with every request and is not stored."""
        before = () if self.bos is None else (self.bos,)
        return encode(self.blocks, torch.tensor([*before, *item.question]), len(before), False)

    def segments(self, item: Item) -> list[Segment]:
        """The stored segments of an item, in the order of the prompt."""
        return [self.segment(before, tokens) for before, tokens in self.parts(item)]


def precompute(source: SegmentSource, items: Sequence[Item]) -> pd.DataFrame:
    """Have every segment of the items in the store.

    Returns:
        One row per entry: key, tokens, bytes, references (how often the items name it).
    """
    wanted: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    references: Counter[str] = Counter()
    for item in items:
        for before, tokens in source.parts(item):
            key = source.key(before, tokens)
            wanted[key] = (before, tokens)
            references[key] += 1
    report = progress("precompute, segments")
    rows = []
    for done, (key, (before, tokens)) in enumerate(wanted.items(), start=1):
        segment = source.segment(before, tokens)
        rows.append((key, len(tokens), segment.bytes, references[key]))
        report(done, len(wanted))
    log.info(
        "%d entries: %d were there, %d made, %d of them in place of damaged ones",
        len(rows), source.hits, source.misses, len(source.rebuilt),
    )  # fmt: skip
    return pd.DataFrame(rows, columns=["key", "tokens", "bytes", "references"])
