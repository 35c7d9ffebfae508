"""Timing runs: the arms of one policy, and the fixed baseline, each paired with the yardstick."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from kvpareto.cache.layouts import Layout
from kvpareto.claims.bootstrap import median_ratio
from kvpareto.eviction.arms import YARDSTICK, policy_of, setting_id
from kvpareto.jobs import failure, progress
from kvpareto.measure.latency import (
    CachedDecoder,
    RecomputeDecoder,
    block_means,
    paired_blocks,
    prefill_times,
    summarise,
)
from kvpareto.measure.memory import peak_allocation
from kvpareto.provenance import machine
from kvpareto.settings import TimingSettings

log = logging.getLogger(__name__)

_PREFILL_REPEATS = 3
_PROFILED_STEPS = 64


def time_policy(
    model: PreTrainedModel,
    ids: torch.Tensor,
    policy: str,
    arms: list[dict[str, Any]],
    score_start: int,
    timing: TimingSettings,
    confidence: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Time every setting of one policy in every layout.

    Args:
        ids: [documents, tokens]; the first document is decoded.
        arms: for each setting: `setting` and `yardstick` (the yardstick's setting).

    Returns:
        One row per setting and layout (columns of the `timing` table, failures with their status),
        and the times of all tokens.
    """
    rows, tokens = [], []
    document = ids[:1]
    for arm in arms:
        name = setting_id(policy, arm["setting"])
        for layout in timing.layouts:
            log.info("timing %s %s, layout %s", policy, name, layout)
            row: dict[str, Any] = {
                "setting": name,
                "layout": layout,
                "machine": machine(),
                "yardstick_cap": arm["yardstick"]["cap"],
            }
            try:
                figures, measured = _time_arm(
                    model, document, policy, arm, layout, score_start, timing, confidence
                )
            except Exception as error:
                log.exception("%s %s failed", policy, name)
                status, why = failure(error)
                rows.append(row | {"status": status, "why": why})
                continue
            rows.append(row | figures | {"status": "ok", "why": ""})
            tokens.append(measured.assign(setting=name, layout=layout))
    return pd.DataFrame(rows), pd.concat(tokens) if tokens else pd.DataFrame()


def _time_arm(
    model: PreTrainedModel,
    document: torch.Tensor,
    policy: str,
    arm: dict[str, Any],
    layout: Layout,
    score_start: int,
    timing: TimingSettings,
    confidence: float,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Figures of one arm in one layout, and the times of all tokens."""
    yardstick = CachedDecoder(
        model, policy_of(YARDSTICK, arm["yardstick"]), "compact", document, score_start
    )
    built = policy_of(policy, arm["setting"])
    decoder = CachedDecoder(model, built, layout, document, score_start)
    yardstick.start()
    started = prefill_times(decoder, _PREFILL_REPEATS)
    measured = paired_blocks(
        decoder,
        yardstick,
        timing.blocks,
        whole_periods(timing.tokens_per_block, built.overshoot),
        timing.warm_up_tokens,
        progress(setting_id(policy, arm["setting"])),
    )
    profiled = max(_PROFILED_STEPS, built.overshoot + 1)
    return {
        **_figures(measured, started, confidence),
        "kv_bytes": decoder.peak_entries * decoder.stream.cache.bytes_per_entry,
        "peak_extra_bytes": peak_allocation(decoder.token, profiled, model.device),
    }, measured


def _figures(
    measured: pd.DataFrame, started: dict[str, float], confidence: float
) -> dict[str, Any]:
    """What every timed arm reports: start, tokens, total, and the ratio to the yardstick."""
    timed = measured.loc[measured["runner"] == "arm", "ms"]
    return {
        **started,
        **summarise(measured),
        **ratio(measured, confidence),
        "total_ms": started["ttft_ms"] + float(timed.sum()),
        "timed_tokens": len(timed),
    }


def whole_periods(tokens: int, period: int) -> int:
    """`tokens`, rounded up to whole prune periods: every block then holds as many prunes."""
    return -(-tokens // period) * period


def ratio(tokens: pd.DataFrame, confidence: float) -> dict[str, float]:
    """tpot_ratio with its interval (arm over yardstick), and the yardstick's own time."""
    own, other = block_means(tokens, "arm"), block_means(tokens, "yardstick")
    interval = median_ratio(own, other, confidence=confidence)
    return {
        "tpot_ratio": interval.estimate,
        "tpot_ratio_lo": interval.lo,
        "tpot_ratio_hi": interval.hi,
        "yardstick_ms": float(other.median()),
    }


def time_baseline(
    model: PreTrainedModel,
    ids: torch.Tensor,
    cap: int,
    yardstick_setting: dict[str, Any],
    runs: int,
    tokens_per_run: int,
    confidence: float,
) -> dict[str, Any]:
    """Time of recompute at one cap: `runs` runs, each over its own part of the document.

    Every run alternates with the yardstick in blocks of a tenth of its tokens.

    Returns:
        run_ms (mean per run), tpot_ms figures over all runs, and the ratio to the yardstick.
    """
    document = ids[:1]
    arm = RecomputeDecoder(model, cap, document)
    yardstick = CachedDecoder(
        model, policy_of(YARDSTICK, yardstick_setting), "compact", document, cap
    )
    started = prefill_times(arm, _PREFILL_REPEATS)
    yardstick.start()
    per_block = max(1, tokens_per_run // 10)
    measured, means = [], []
    for run in range(runs):
        part = paired_blocks(arm, yardstick, 10, per_block, 2, progress(f"recompute run {run + 1}"))
        means.append(float(part.loc[part["runner"] == "arm", "ms"].mean()))
        measured.append(part.assign(block=part["block"] + 10 * run))
    tokens = pd.concat(measured)
    return {
        "run_ms": means,
        "tokens_per_run": 10 * per_block,
        **_figures(tokens, started, confidence),
        "peak_extra_bytes": peak_allocation(arm.token, 2, model.device),
        "machine": machine(),
    }
