"""What was noise for one question holds the answer to the next: deletion cannot take it back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import torch

from kvpareto.merge.context import Context
from kvpareto.merge.offset import offset_of
from kvpareto.merge.probing import Probing, Value


def run(probing: Probing) -> pd.DataFrame:
    """Ask two questions in turn whose answers lie in different chunks of one context.

    The second question is that of another item, whose gold chunks take the place of noise. It is
    also asked first, of a cache that nothing was deleted from.

    Measures, for each method: `asked_first` and `asked_second` (score of the second question, in
    points of 100), `forgotten` (how much it loses by being second, less what it loses without any
    offset, where nothing is deleted either), and `gold_deleted`, the share of its gold chunks, over
    layers and heads, that the first question has deleted.
    """
    return probing.table(_measured(probing))


def _measured(probing: Probing) -> Iterator[Value]:
    deficit = {"top_k": probing.settings.top_k}
    drop = deficit | {"threshold": probing.settings.threshold}
    methods = {
        "zero": offset_of("zero", {}),
        "energy_deficit": offset_of("energy_deficit", deficit),
        "hard_drop-head": offset_of("hard_drop", drop | {"judge": "head"}),
        "hard_drop-average": offset_of("hard_drop", drop | {"judge": "average"}),
    }
    contexts = probing.contexts()
    # Each item is in one pair only, so that pairs are independent draws.
    for here, there in zip(contexts[::2], contexts[1::2], strict=False):
        if here.item.question == there.item.question:
            continue
        context, gold = _with_both(here, there)
        lost: dict[str, float] = {}
        for name, offset in methods.items():
            earlier, later = probing.asked(context), probing.asked(_asking(context, there))
            cache = earlier.cache()
            first = later.score(cache.fork(), offset)
            earlier.score(cache, offset)
            gone = torch.stack([layer.gone[gold] for layer in cache.layers])
            second = later.score(cache, offset)
            lost[name] = first - second
            yield name, "asked_first", "points", 100 * first
            yield name, "asked_second", "points", 100 * second
            yield name, "forgotten", "points", 100 * (lost[name] - lost["zero"])
            yield name, "gold_deleted", "%", 100 * gone.float().mean()


def _with_both(here: Context, there: Context) -> tuple[Context, list[int]]:
    """A context with the gold chunks of another one in the place of noise, and their numbers."""
    chunks = list(here.item.chunks)
    noise = [number for number in range(len(chunks)) if number not in here.gold]
    taken = noise[-len(there.gold) :]
    for number, gold in zip(taken, there.gold, strict=True):
        chunks[number] = there.item.chunks[gold]
    return replace(here, item=replace(here.item, chunks=tuple(chunks))), taken


def _asking(context: Context, other: Context) -> Context:
    """The same context with the question of another one."""
    question, answers = other.item.question, other.item.answers
    return replace(context, item=replace(context.item, question=question, answers=answers))
