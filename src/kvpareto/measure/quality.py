"""One quality run: an arm over all documents of a text, written as a run folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from kvpareto.eviction.arms import policy_of, setting_id
from kvpareto.eviction.policy import EvictionPolicy
from kvpareto.eviction.trajectory import Trajectory
from kvpareto.jobs import RefusedError, failure, progress
from kvpareto.measure.nll import perplexity, recompute_nll, stream_nll, thinned
from kvpareto.models import families
from kvpareto.records import write_json, write_parquet

log = logging.getLogger(__name__)

TOKEN_COLUMNS = (
    "document", "position", "nll_nats", "entropy_nats", "attended", "length_before",
    "length_after", "dropped", "pruned",
)  # fmt: skip


def run_quality(
    model: PreTrainedModel,
    ids: torch.Tensor,
    arm: dict[str, Any],
    score_start: int,
    positions_per_document: int | None,
    folder: Path,
    structural: torch.Tensor | None = None,
) -> None:
    """Measure one arm and write tokens.parquet, prune_events.parquet, setting.json, summary.json.

    A policy that raises, decides wrongly or leads to a non-finite loss is a result: its summary has
    the status `invalid` (or `oom`) and why, and its token table is empty. One that cannot run at
    all is `refused`.

    Args:
        ids: [documents, tokens].
        arm: model, text, policy and setting.
        positions_per_document: scored positions under recompute, which costs a window per token;
            None for every other policy.
        structural: as in `Stream`.
    """
    policy = policy_of(arm["policy"], arm["setting"])
    status, why = "ok", ""
    try:
        tokens = _measure(
            model, policy, ids, score_start, positions_per_document, arm["policy"], structural
        )
    except Exception as error:
        log.exception("%s failed", arm["policy"])
        status, why = failure(error)
    else:
        bad = ~np.isfinite(tokens["nll_nats"].to_numpy())
        if bad.any():
            first = tokens.loc[bad, ["document", "position"]].iloc[0].to_dict()
            status, why = "invalid", f"{bad.sum()} losses are not finite, the first at {first}"
        elif not np.isfinite(perplexity(tokens["nll_nats"])):
            status, why = "invalid", "the perplexity is not finite"
    if status != "ok":
        tokens = pd.DataFrame({name: [] for name in TOKEN_COLUMNS})
    write_parquet(folder / "tokens.parquet", tokens[list(TOKEN_COLUMNS)])
    write_parquet(folder / "prune_events.parquet", prune_events(tokens, policy.capacity))
    write_json(folder / "setting.json", arm)
    summary = {
        "model": arm["model"],
        "text": arm["text"],
        "policy": arm["policy"],
        "setting": setting_id(arm["policy"], arm["setting"]),
        "cap": arm["setting"]["cap"],
        "cap_on": arm["setting"]["cap_on"],
        "status": status,
        "why": why,
        **(_figures(tokens, policy, arm, model) if len(tokens) else {}),
    }
    write_json(folder / "summary.json", summary)


def _measure(
    model: PreTrainedModel,
    policy: EvictionPolicy,
    ids: torch.Tensor,
    score_start: int,
    positions_per_document: int | None,
    name: str,
    structural: torch.Tensor | None,
) -> pd.DataFrame:
    if policy.refusal:
        raise RefusedError(policy.refusal)
    report = progress(name)
    ids = ids.to(model.device)
    if policy.uses_cache:
        return stream_nll(model, policy, ids, score_start, structural=structural, progress=report)
    assert positions_per_document is not None
    positions = thinned(score_start, ids.shape[1] - 1, positions_per_document)
    return recompute_nll(model, policy.peak, ids, positions, progress=report)


def _figures(
    tokens: pd.DataFrame, policy: EvictionPolicy, arm: dict[str, Any], model: PreTrainedModel
) -> dict[str, Any]:
    first = tokens[tokens["document"] == 0]
    lengths = Trajectory(first["attended"].to_numpy(), first["dropped"].to_numpy())
    # Arms that keep sinks and recent tokens do the same if their lengths are the same; what any
    # other policy keeps, or decides by what it reads, is its own.
    same = policy.uses_cache and policy.keeps_sinks_and_recent and policy.reads is None
    return {
        "post_prune_len": lengths.post_prune,
        "mean_attended_len": lengths.mean_attended,
        "peak_attended_len": lengths.peak_attended,
        "extrapolating": _reach(policy, tokens, model) > families.trained_context(model),
        "semantics": f"S{policy.sinks}-{lengths.digest}"
        if same
        else f"{arm['policy']}/{setting_id(arm['policy'], arm['setting'])}",
        "scored_tokens": len(tokens),
        "ppl": perplexity(tokens["nll_nats"]),
    }


def _reach(policy: EvictionPolicy, tokens: pd.DataFrame, model: PreTrainedModel) -> int:
    """Longest distance, in positions, between a query and a key of any layer, plus one."""
    if policy.keeps_positions:
        return int(tokens["position"].max())
    layers = families.layer_count(model)
    longest = max(policy.for_layer(layer, layers).peak for layer in range(layers))
    most = int(tokens["attended"].max())
    return most + max(0, longest - policy.peak)


def prune_events(tokens: pd.DataFrame, capacity: int) -> pd.DataFrame:
    """One row per prune: document, position, dropped, and overflow (entries over the capacity)."""
    events = tokens.loc[tokens["dropped"] > 0, ["document", "position", "dropped", "attended"]]
    return events.assign(overflow=events["attended"] - capacity).drop(columns="attended")
