"""The leaf table of the merge part: item tables and the memory runs, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.bootstrap import item_mean
from kvpareto.eviction_settings import StatisticsSettings
from kvpareto.records import read_json, read_parquet

MERGE_COLUMNS = (
    "model", "task", "positions", "arm", "top_k", "chunks", "extrapolating", "gold_mass", "score",
    "score_lo", "score_hi", "kl_to_full", "peak_extra_bytes", "status", "setting", "alias_of",
    "score_name", "items", "gold_chunks", "tokens", "gold_mass_before", "kl_lo", "kl_hi", "run",
    "pass_ms", "pass_ratio", "pass_ratio_lo", "pass_ratio_hi", "step_ms", "step_ratio",
    "step_ratio_lo", "step_ratio_hi", "machine", "why",
)  # fmt: skip

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

    A text's score is its perplexity, a task's a share. Parameters of the methods are the last
    columns, by name.

    Args:
        root: results.
        arms: for each arm path, model, task, offset, setting and alias_of.
        memory: the memory run of each model.
    """
    rows = [row for arm in arms for row in _rows(root / "merge" / arm["path"], arm, statistics)]
    parts = [pd.DataFrame(rows)]
    for model, file in memory.items():
        own = read_parquet(file).rename(columns={"offset": "arm"})
        parts.append(own.assign(model=model, task=MEMORY, alias_of=""))
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True)
    others = sorted(set(frame.columns) - set(MERGE_COLUMNS))
    return frame.reindex(columns=[*MERGE_COLUMNS, *others])


def _rows(
    folder: Path, arm: dict[str, Any], statistics: StatisticsSettings
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
        about | {"chunks": chunks} | _figures(own, "windows" in setting, statistics)
        for chunks, own in items.groupby("chunks")
    ]


def _figures(items: pd.DataFrame, is_text: bool, statistics: StatisticsSettings) -> dict[str, Any]:
    options = {"resamples": statistics.resamples, "confidence": statistics.confidence}
    score = item_mean(items["score"], **options)  # type: ignore[arg-type]
    if is_text:
        # Losses become a perplexity; the bounds go the same way, which only ever rises.
        score = type(score)(*np.exp(score))
    kl = item_mean(items["kl_to_full"], **options)  # type: ignore[arg-type]
    return {
        "extrapolating": bool(items["extrapolating"].any()),
        "tokens": items["tokens"].median(),
        "gold_chunks": items["gold_chunks"].median(),
        **{name: items[name].astype(float).mean() for name in ("gold_mass", "gold_mass_before")},
        "score": score.estimate, "score_lo": score.lo, "score_hi": score.hi,
        "kl_to_full": kl.estimate, "kl_lo": kl.lo, "kl_hi": kl.hi,
    }  # fmt: skip
