"""What was noise for one question holds the answer to the next: deletion cannot take it back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd
import torch

from kvpareto.measure.scores import score
from kvpareto.merge.chunked import ChunkedCache
from kvpareto.merge.context import Context
from kvpareto.merge.forward import answer, forward
from kvpareto.merge.offset import Offset, offset_of
from kvpareto.merge.probing import Probing, Value
from kvpareto.text.tasks.item import Item


def run(probing: Probing) -> pd.DataFrame:
    """Ask two questions in turn whose answers lie in different chunks of one context.

    The second question is that of the next item, whose gold chunks take the place of noise. It is
    also asked first, of a cache that nothing was deleted from: the difference is what the first
    question has cost it.

    Measures, for each method: `asked_first` and `asked_second` (score of the second question),
    `forgotten` (the difference), all in points of 100; and `gold_deleted`, the share of its gold
    chunks, over layers and heads, that the first question has deleted.
    """
    return probing.table(_measured(probing))


def _measured(probing: Probing) -> Iterator[Value]:
    deficit = {"top_k": probing.settings.top_k}
    drop = deficit | {"threshold": probing.settings.threshold}
    methods = {
        "zero": offset_of("zero", {}),
        "energy_deficit": offset_of("energy_deficit", deficit),
        "hard_drop-head": offset_of("hard_drop", drop | {"decided_by": "head"}),
        "hard_drop-average": offset_of("hard_drop", drop | {"decided_by": "average"}),
    }
    for here, there in itertools.pairwise(probing.contexts()):
        pair = _Pair.of(here, there)
        for name, offset in methods.items():
            cache = probing.asked(pair.context).cache()
            first = _answered(probing, cache.fork(), pair.later, offset)
            _answered(probing, cache, pair.context.item, offset)
            gone = torch.stack([layer.gone[list(pair.gold)] for layer in cache.layers])
            second = _answered(probing, cache, pair.later, offset)
            yield name, "asked_first", "points", 100 * first
            yield name, "asked_second", "points", 100 * second
            yield name, "forgotten", "points", 100 * (first - second)
            yield name, "gold_deleted", "%", 100 * gone.float().mean()


@dataclass(frozen=True)
class _Pair:
    """A context with the answers to two questions.

    Attributes:
        context: with the first question.
        later: with the second one.
        gold: numbers of the chunks that hold its answer.
    """

    context: Context
    later: Item
    gold: tuple[int, ...]

    @classmethod
    def of(cls, context: Context, other: Context) -> _Pair:
        chunks = list(context.item.chunks)
        noise = [number for number in range(len(chunks)) if number not in context.gold]
        # From the end: there the later items' chunks are, whatever the first gold chunk's place.
        taken = noise[-len(other.gold) :]
        for number, gold in zip(taken, other.gold, strict=True):
            chunks[number] = other.item.chunks[gold]
        item = replace(context.item, chunks=tuple(chunks))
        return cls(replace(context, item=item), other.item, tuple(taken))


def _answered(probing: Probing, cache: ChunkedCache, item: Item, offset: Offset) -> float:
    """Score of an item's question, which the cache has then seen, with the answer given."""
    task, bench = probing.task, probing.bench
    logits = forward(bench.blocks, cache, torch.tensor(item.question), offset)[-1]
    ends = bench.ends(task.stop)
    tokens = answer(bench.blocks, cache, logits, offset, task.max_new_tokens, ends)
    prediction = bench.text(tokens, task.stop)
    return score(task.score, prediction, item.answers, item.classes)
