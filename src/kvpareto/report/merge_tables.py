"""The leaf table of the merge part: item tables and the memory runs, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.bootstrap import Interval, item_mean
from kvpareto.eviction_settings import StatisticsSettings
from kvpareto.records import read_json, read_parquet

MERGE_COLUMNS = (
    "model", "task", "positions", "arm", "top_k", "chunks", "extrapolating", "gold_mass", "score",
    "score_lo", "score_hi", "kl_to_full", "peak_extra_bytes", "status", "setting", "alias_of",
    "score_name", "items", "gold_chunks", "tokens", "gold_mass_before", "kl_lo", "kl_hi", "run",
    "pass_ms", "pass_ratio", "pass_ratio_lo", "pass_ratio_hi", "step_ms", "step_ratio",
    "step_ratio_lo", "step_ratio_hi", "machine", "why", "gold_mass_lo", "gold_mass_hi",
    "gold_mass_before_lo", "gold_mass_before_hi", "score_delta", "score_delta_lo",
    "score_delta_hi", "ppl_delta_pct", "ppl_delta_lo", "ppl_delta_hi",
)  # fmt: skip

PPL = "ppl"
"""The score_name of a text."""

MEMORY = "memory and time"
"""The task of rows about a cache of random chunks, in which nothing is asked."""

_CONTEXT = ("positions", "chunks", "windows", "top_k")


def merge_table(
    root: Path,
    arms: list[dict[str, Any]],
    memory: dict[str, Path],
    statistics: StatisticsSettings,
) -> pd.DataFrame:
    """The `merge` table: one row per arm and number of chunks, then those of memory and time.

    A text's score is its perplexity (`score_name` is `ppl`), a task's a share. `score_delta` and
    `ppl_delta_pct` are against the arm without an offset on the same items. Parameters of the
    methods are the last columns, by name.

    Args:
        root: results.
        arms: for each arm path, model, task, offset, setting and alias_of.
        memory: the memory run of each model.
    """
    folder = root / "merge"
    zeros = {
        _subject(arm): read_parquet(folder / arm["path"] / "items.parquet")
        for arm in arms
        if arm["offset"] == "zero"
    }
    rows = [
        row
        for arm in arms
        for row in _rows(folder / arm["path"], arm, zeros[_subject(arm)], statistics)
    ]
    parts = [pd.DataFrame(rows)]
    for model, file in memory.items():
        own = read_parquet(file).rename(columns={"offset": "arm"})
        parts.append(own.assign(model=model, task=MEMORY, alias_of=""))
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True)
    others = sorted(set(frame.columns) - set(MERGE_COLUMNS))
    return frame.reindex(columns=[*MERGE_COLUMNS, *others])


def _subject(arm: dict[str, Any]) -> str:
    """What arms have in common that were asked the same."""
    setting = arm["setting"]
    return repr([arm["model"], arm["task"], *(setting.get(name) for name in _CONTEXT[:3])])


def _rows(
    folder: Path, arm: dict[str, Any], zero: pd.DataFrame, statistics: StatisticsSettings
) -> list[dict[str, Any]]:
    summary = read_json(folder / "summary.json")
    items = read_parquet(folder / "items.parquet")
    setting = arm["setting"]
    about = {
        **{name: arm[name] for name in ("model", "task", "alias_of")},
        "arm": arm["offset"],
        **{name: setting.get(name) for name in ("positions", "top_k")},
        **{name: summary[name] for name in ("setting", "items", "score_name", "status", "why")},
        **{name: value for name, value in setting.items() if name not in _CONTEXT},
    }
    if items.empty:
        return [about | {"chunks": chunks} for chunks in setting["chunks"]]
    return [
        about
        | {"chunks": chunks}
        | _figures(own, zero[zero["chunks"] == chunks], "windows" in setting, statistics)
        for chunks, own in items.groupby("chunks")
    ]


def _figures(
    items: pd.DataFrame, zero: pd.DataFrame, is_text: bool, statistics: StatisticsSettings
) -> dict[str, Any]:
    both = items.merge(zero[["item", "score"]], on="item", suffixes=("", "_zero"))
    score = _mean(items["score"], statistics)
    delta = _mean(both["score"] - both["score_zero"], statistics)
    kl = _mean(items["kl_to_full"], statistics)
    found = {name: _mean(items[name], statistics) for name in ("gold_mass", "gold_mass_before")}
    figures: dict[str, Any] = {
        "extrapolating": bool(items["extrapolating"].any()),
        "tokens": items["tokens"].median(),
        "gold_chunks": items["gold_chunks"].median(),
        "kl_to_full": kl.estimate,
        "kl_lo": kl.lo,
        "kl_hi": kl.hi,
    }
    if is_text:
        # Losses become a perplexity; the bounds go the same way, which only ever rises.
        score = Interval(*np.exp(score))
        change = Interval(*(100 * np.expm1(delta)))
        figures |= {
            "score_name": PPL,
            "ppl_delta_pct": change.estimate,
            "ppl_delta_lo": change.lo,
            "ppl_delta_hi": change.hi,
        }
    else:
        found["score_delta"] = delta
    for name, interval in {**found, "score": score}.items():
        figures |= {
            name: interval.estimate,
            f"{name}_lo": interval.lo,
            f"{name}_hi": interval.hi,
        }
    return figures


def _mean(values: pd.Series[Any], statistics: StatisticsSettings) -> Interval:
    """Over items; NaN where some have no value."""
    numbers = values.astype(float)
    if numbers.empty or numbers.isna().any():
        return Interval(np.nan, np.nan, np.nan)
    return item_mean(numbers, resamples=statistics.resamples, confidence=statistics.confidence)
