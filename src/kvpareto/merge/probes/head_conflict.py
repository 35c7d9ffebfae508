"""Heads want different chunks: what deciding for all of them together costs."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch

from kvpareto.merge.offset import offset_of
from kvpareto.merge.probing import Probing, Value


def run(probing: Probing) -> pd.DataFrame:
    """Compare deletion by each head with deletion by the heads' average.

    Measures: `disagreement`, the share of chunks that some heads of a layer keep and others delete
    after the question; `wanted_but_deleted`, of the gold chunks that a head keeps by itself, those
    that the average deletes; `kept_by_head` and `kept_by_average`, the share of all chunks; and
    what the average costs against each head for itself: `cost_score` in points of 100,
    `cost_kl` in nats from full attention.
    """
    return probing.table(_measured(probing))


def _measured(probing: Probing) -> Iterator[Value]:
    settings = probing.settings
    deficit = {"top_k": settings.top_k, "threshold": settings.threshold}
    methods = [offset_of("hard_drop", deficit | {"judge": one}) for one in ("head", "average")]
    setting = f"K{settings.top_k}-t{settings.threshold:g}"
    for context in probing.contexts():
        asked = probing.asked(context)
        kept = []
        for method in methods:
            cache = asked.cache()
            asked.ask(cache, method)
            kept.append(~torch.stack([layer.gone for layer in cache.layers]))
        by_head, by_average = kept
        gold = list(context.gold)
        wanted = by_head[:, gold]
        denied = (wanted & ~by_average[:, gold]).sum() / wanted.sum().clamp_min(1)
        own, together = (asked.row(method) for method in methods)
        split = by_head.any(2) & ~by_head.all(2)
        yield setting, "disagreement", "%", 100 * split.float().mean()
        yield setting, "wanted_but_deleted", "%", 100 * denied
        yield setting, "kept_by_head", "%", 100 * by_head.float().mean()
        yield setting, "kept_by_average", "%", 100 * by_average.float().mean()
        yield setting, "cost_score", "points", 100 * (own["score"] - together["score"])
        yield setting, "cost_kl", "nats", together["kl_to_full"] - own["kl_to_full"]
