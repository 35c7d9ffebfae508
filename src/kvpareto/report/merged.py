"""Frames that the figures draw: the leaf tables joined with each other and with the settings."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kvpareto.records import read_json


def with_settings(eviction: pd.DataFrame, files: list[str]) -> pd.DataFrame:
    """Add the columns sinks, period and trigger from the arms' setting.json files.

    Args:
        eviction: rows of the `eviction` table.
        files: .../<model>/<text>/<policy>/<setting>/setting.json of at least these rows' arms.
    """
    rows = []
    for file in files:
        model, text, policy, setting = Path(file).parts[-5:-1]
        values = read_json(file)["setting"]
        known = {name: values.get(name) for name in ("sinks", "period", "trigger")}
        rows.append({"model": model, "text": text, "policy": policy, "setting": setting} | known)
    return eviction.merge(pd.DataFrame(rows), on=["model", "text", "policy", "setting"])


def pareto_frame(
    eviction: pd.DataFrame, timing: pd.DataFrame, model: str, text: str, cap: int
) -> pd.DataFrame:
    """Quality and time of every arm at one cap; at the largest, also of the arms without one.

    Times were taken by different jobs on a machine whose speed drifts, so they are put on one
    scale: an arm's ratio to the yardstick times the yardstick's median over all jobs at this cap
    (columns tpot_ms, tpot_ms_lo, tpot_ms_hi).
    """
    arms = eviction[(eviction["model"] == model) & (eviction["text"] == text)]
    uncapped = arms["cap"].isna() & (arms["cap"].max() == cap)
    arms = arms[(arms["cap"] == cap) | uncapped]
    times = timing[(timing["model"] == model) & (timing["text"] == text)]
    times = times[times["layout"].isin(["compact", "none"])]
    own = ["policy", "setting", "status", "yardstick_ms"]
    ratios = ["tpot_ratio", "tpot_ratio_lo", "tpot_ratio_hi"]
    frame: pd.DataFrame = arms.merge(
        times[own + ratios], on=["policy", "setting"], how="left", suffixes=("", "_timing")
    )
    yardstick_ms = frame["yardstick_ms"].median()
    for ratio in ratios:
        frame[ratio.replace("ratio", "ms")] = frame[ratio] * yardstick_ms
    untimed = (frame["status"] == "ok") & (frame["status_timing"] != "ok")
    frame.loc[untimed, "status"] = frame.loc[untimed, "status_timing"].fillna("not timed")
    return frame
