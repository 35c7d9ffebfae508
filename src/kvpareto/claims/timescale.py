"""What every comparison of times rests on: the yardstick's level, and the noise of the machine."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kvpareto.claims.study import joined, measured_times


def yardstick_ms(timed: pd.DataFrame, model: str, text: str, cap: int) -> pd.Series[float]:
    """The yardstick's time per token at one cap, as each timed arm found it beside itself.

    Arms without a cap are timed at the largest one.

    Args:
        timed: rows of `timing` with the columns of `eviction`.
    """
    here = timed[(timed["model"] == model) & (timed["text"] == text)]
    here = here[here["layout"].isin(["compact", "none"])]
    uncapped = here["cap"].isna() & (here["cap"].max() == cap)
    levels: pd.Series[float] = here.loc[
        (here["cap"] == cap).fillna(False) | uncapped, "yardstick_ms"
    ].dropna()
    return levels


def noise_floor_pct(eviction: pd.DataFrame, timing: pd.DataFrame) -> float:
    """Largest difference of time, in percent, between arms that do the same at every step.

    Aliases keep the same entries, so what sets their times apart is noise. 0 without timed aliases.
    """
    timed = joined(eviction, measured_times(timing))
    if timed.empty:
        return 0.0
    timed = timed[timed["status"] == "ok"]
    timed = timed.assign(name=timed["policy"] + "/" + timed["setting"])
    place = ["model", "text", "cap", "layout"]
    pairs = timed.merge(
        timed[[*place, "name", "tpot_ratio"]],
        left_on=[*place, "alias_of"],
        right_on=[*place, "name"],
        suffixes=("", "_alias"),
    )
    if pairs.empty:
        return 0.0
    apart = np.abs(np.log(pairs["tpot_ratio"] / pairs["tpot_ratio_alias"]))
    return float(100 * np.expm1(apart.max()))
