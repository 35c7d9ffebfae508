"""What happens to the loss where entries are evicted, and how far lengths drift between prunes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kvpareto.claims.comparing import counted
from kvpareto.claims.study import KEYS, Study, path_of, select


def compare(study: Study) -> pd.DataFrame:
    """The sources' diagnosis of every lazy arm.

    Measures: `prunes`, `dropped_per_prune`, `drift_tokens` (longest less shortest attended length
    once pruning has begun), and from the event study `peak_nats`, `area_nats`, `width_tokens`;
    `spike_share_pct` is the part of the arm's whole loss against strict streaming that the spikes
    hold: area times prunes over the sum of differences. It says little where that sum is near 0.
    """
    rows = []
    for _, arm in select(study.arms("eviction"), {"policy": "lazy"}).iterrows():
        tokens = study.tokens(path_of(arm))
        events = tokens[tokens["pruned"]]
        if events.empty:
            continue
        begun = tokens[tokens["position"] > events["position"].min()]
        drift = begun["attended"].max() - begun["attended"].min()
        name = arm["setting"]
        rows += [
            counted(arm, name, "prunes", len(events), "prunes"),
            counted(arm, name, "dropped_per_prune", events["dropped"].mean(), "entries"),
            counted(arm, name, "drift_tokens", float(drift), "tokens"),
        ]
        found = select(study.arms("spikes"), {key: arm[key] for key in KEYS} | {"status": "ok"})
        if found.empty:
            continue
        spike = found.iloc[0]
        rows += [
            counted(arm, name, "width_tokens", spike["width_tokens"], "tokens"),
            *(
                counted(arm, name, f"{part}_nats", spike[f"{part}_nats"], "nats")
                | {"lo": spike[f"{part}_lo"], "hi": spike[f"{part}_hi"]}
                for part in ("peak", "area")
            ),
        ]
        excess = _excess(study, arm, tokens)
        if excess:
            share = 100 * spike["area_nats"] * spike["events"] / excess
            rows.append(counted(arm, name, "spike_share_pct", share, "%"))
    return pd.DataFrame(rows)


def _excess(study: Study, arm: pd.Series[Any], tokens: pd.DataFrame) -> float:
    """Nats that an arm loses in all against strict streaming at the same cap; 0 without such."""
    arms = study.arms("eviction")
    same = {name: arm[name] for name in ("model", "text", "cap", "cap_on", "sinks")}
    strict = select(arms, same | {"policy": "start_recent"})
    if strict.empty:
        return 0.0
    other = study.tokens(path_of(strict.iloc[0]))
    pair = tokens.merge(other, on=["document", "position"], suffixes=("", "_strict"))
    return float((pair["nll_nats"].astype(float) - pair["nll_nats_strict"].astype(float)).sum())
