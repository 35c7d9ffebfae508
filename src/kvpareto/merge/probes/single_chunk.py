"""A context of one chunk: the sources' offset is -ln 2 there, and not zero."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch

from kvpareto.merge.asking import Weights
from kvpareto.merge.context import gold_chunks, with_chunks
from kvpareto.merge.offset import offset_of
from kvpareto.merge.probing import Probing, Value


def run(probing: Probing) -> pd.DataFrame:
    """Merge the chunk with the answer, and no other, with and without the sources' offset.

    Items whose answer lies in several chunks are left out.

    Measures: `offset` in nats (mean over layers and heads, of the last query), `mass_before`
    and `mass_after`, the chunk's share of the last query's attention; `lost_mass`, their
    difference; and against no offset `cost_score` in points of 100, `cost_kl` in nats.
    """
    return probing.table(_measured(probing))


def _measured(probing: Probing) -> Iterator[Value]:
    deficit, zero = offset_of("energy_deficit", {"top_k": 1}), offset_of("zero", {})
    for item in probing.task.items:
        if len(gold_chunks(item)) > 1:
            continue
        asked = probing.asked(with_chunks(item, 1))
        weights = Weights()
        gated = asked.outcome(asked.cache(), deficit, weights.watch)
        plain = asked.outcome(asked.cache(), zero)
        # Of each layer's three blocks the last is the chunk.
        before, after = (torch.stack(own[2::3]) for own in (weights.before, weights.after))
        masses = [100 * weights.mass(own, 3, [0]) for own in (weights.before, weights.after)]
        yield "K1", "offset", "nats", (after - before).mean()
        yield "K1", "mass_before", "%", masses[0]
        yield "K1", "mass_after", "%", masses[1]
        yield "K1", "lost_mass", "points", masses[0] - masses[1]
        yield "K1", "cost_score", "points", 100 * (plain["score"] - gated["score"])
        yield "K1", "cost_kl", "nats", gated["kl_to_full"] - plain["kl_to_full"]
