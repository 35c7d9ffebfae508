"""What is merged: a task's item with fewer chunks, or a stretch of text cut into chunks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from kvpareto.merge_settings import WindowSettings
from kvpareto.text.tasks.item import Item


class ContextError(ValueError):
    """An item or a text has too few chunks, or does not say where its answer is."""


@dataclass(frozen=True)
class Context:
    """An item and which of its chunks hold the answer.

    Attributes:
        item: without `support`, whose positions no longer hold.
        gold: numbers of the chunks that the answer is to be found in; none for a text.
    """

    item: Item
    gold: tuple[int, ...] = ()

    @property
    def seeds(self) -> list[int]:
        """One for each chunk, by its content and the item."""
        return [zlib.crc32(repr((self.item.id, chunk)).encode()) for chunk in self.item.chunks]


def gold_chunks(item: Item) -> list[int]:
    """Numbers of the chunks that hold the answer's support.

    Raises:
        ContextError: the item does not say where its answer is.
    """
    if not item.support:
        raise ContextError(
            f"item {item.id} does not say where its answer is (no support): noise chunks cannot be "
            "told from others; merge needs a task with support"
        )
    return [
        number
        for number, (start, end) in enumerate(item.spans)
        if any(first < end and start < last for first, last in item.support)
    ]


def with_chunks(item: Item, count: int) -> Context:
    """The item with the chunks that hold its answer and the first others, in their order.

    So the contexts of one item are nested: with more chunks, only noise is added.

    Raises:
        ContextError: there are not so many chunks, or more of them hold the answer.
    """
    gold = gold_chunks(item)
    if not len(gold) <= count <= len(item.chunks):
        raise ContextError(
            f"item {item.id} has {len(item.chunks)} chunks, {len(gold)} of them with its answer: "
            f"chunks: {count} is not between the two; change it, or the task's lengths"
        )
    noise = [number for number in range(len(item.chunks)) if number not in gold]
    kept = sorted(gold + noise[: count - len(gold)])
    return Context(
        replace(item, chunks=tuple(item.chunks[number] for number in kept), support=()),
        tuple(kept.index(number) for number in gold),
    )


def windows(
    documents: Sequence[torch.Tensor], settings: WindowSettings, chunks: int, bos: int | None
) -> Iterator[Item]:
    """Stretches of a text: `chunks` chunks and the tokens to be scored, evenly spread.

    Args:
        documents: token ids of each.
        bos: what stands first, as the only token of the prefix; None: nothing.

    Raises:
        ContextError: a document is too short.
    """
    context = chunks * settings.chunk_tokens
    for number, ids in enumerate(documents):
        room = len(ids) - context - settings.scored_tokens
        if room < settings.per_document - 1:
            raise ContextError(
                f"document {number} has {len(ids)} tokens; {settings.per_document} windows of "
                f"{chunks} chunks of {settings.chunk_tokens} and {settings.scored_tokens} scored "
                "tokens need more: lower merge.<group>.chunks or windows, or raise the text's "
                "tokens"
            )
        for index in range(settings.per_document):
            start = context + (room * index) // max(1, settings.per_document - 1)
            before = ids[start - context : start].tolist()
            yield Item(
                id=f"{number}-{start}",
                prefix=() if bos is None else (bos,),
                chunks=tuple(
                    tuple(before[i : i + settings.chunk_tokens])
                    for i in range(0, context, settings.chunk_tokens)
                ),
                question=tuple(ids[start : start + settings.scored_tokens].tolist()),
                answers=(),
            )


def last_chunks(item: Item, count: int) -> Context:
    """A stretch of text with the chunks that come last before its scored tokens."""
    return Context(replace(item, chunks=item.chunks[-count:]))
