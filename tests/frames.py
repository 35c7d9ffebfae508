"""Rows as the leaf tables have them, for the figures, and what can be read off a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from kvpareto.records import digest

TITLE = "ref-neox on code"


def arm(policy: str, parts: str, cap: int | None = 512, cap_on: str = "post_prune", **more: Any):
    """A row of `eviction` with settings and times; `parts` is the readable part of its setting id.

    Perplexity and time are plain unless `more` says otherwise.
    """
    head = [f"cap{cap}", cap_on.replace("_", "")] if cap else []
    setting = "-".join([*head, *parts.split(), digest([policy, parts, cap_on, cap])])
    ppl, ratio = more.pop("ppl", 1.0), more.pop("ratio", 1.0)
    reach = 0.3 + 0.05 * abs(ppl)
    row = {
        "model": "ref-neox", "text": "code", "policy": policy, "setting": setting, "cap": cap,
        "cap_on": cap_on if cap else None, "layout": "compact", "within": True,
        "alias_of": "", "period": None, "sinks": 4, "trigger": None, "peak_attended_len": 512,
        "ppl": 15 * (1 + ppl / 100), "ppl_delta_pct": ppl, "ppl_delta_lo": ppl - reach,
        "ppl_delta_hi": ppl + reach, "ppl_delta_strict_pct": ppl, "ppl_delta_strict_lo": ppl - 0.1,
        "ppl_delta_strict_hi": ppl + 0.1, "tpot_ratio": ratio, "tpot_ratio_lo": 0.98 * ratio,
        "tpot_ratio_hi": 1.03 * ratio, "yardstick_ms": 3.0, "tpot_ms": 3 * ratio,
        "tpot_ms_lo": 2.97 * ratio, "tpot_ms_hi": 3.06 * ratio, "status": "ok",
    }  # fmt: skip
    unknown = more.keys() - row.keys()
    assert not unknown, unknown
    return row | more


def study(lazy_arms: int) -> pd.DataFrame:
    """References, controls, outliers, a failed arm, an unknown policy, and a grid of lazy arms."""
    rows = [
        arm("recompute", "", cap_on="peak", ppl=0, ratio=13, layout="none"),
        arm("start_recent", "S4"),
        arm("full", "", cap=None, ppl=900, ratio=2, within=False),
        arm("random", "S4 R16 seed0", ppl=60, ratio=0.8, tpot_ms_lo=np.nan, tpot_ms_hi=np.nan),
        arm("recent", "R1", ppl=340, ratio=0.97, ppl_delta_lo=np.nan, ppl_delta_hi=np.nan),
        arm("of_tomorrow", "S4 width3", ppl=1.4, ratio=0.9),
        arm("h2o", "S4 R16", ppl=np.nan, ratio=np.nan, status="timeout"),
    ]
    for index in range(lazy_arms):
        period, sinks = 2 ** (2 + index % 6), (4, 16, 32)[index // 6 % 3]
        rows.append(
            arm(
                "lazy",
                f"S{sinks} R{period} overflow",
                cap_on=("post_prune", "peak")[index // 18 % 2],
                ppl=1 + 0.05 * period - 0.01 * sinks,
                ratio=0.9 - 0.026 * (index % 6) + 0.0017 * index,
                within=index // 18 % 2 == 1 or index % 4 == 0,
            )
        )
    return pd.DataFrame(rows)


def sweep(cliff: float = 0.0) -> pd.DataFrame:
    """Lazy and strict arms over caps, cap_on, triggers and periods; one of them failed."""
    rows = []
    for cap in (256, 512):
        for cap_on in ("post_prune", "peak"):
            strict = arm("start_recent", "S4", cap, cap_on, ppl=0.9, peak_attended_len=cap + 1)
            rows.append(strict)
            for trigger in ("overflow", "clock"):
                for period in (4, 16, 64, 128):
                    peak = cap + (period if cap_on == "post_prune" else 0)
                    more = {"period": period, "trigger": trigger, "peak_attended_len": peak}
                    ppl = 1 + period / 64 + cliff * (peak > 512)
                    parts = f"S4 R{period} {trigger}"
                    rows.append(
                        arm("lazy", parts, cap, cap_on, ppl=ppl, ratio=0.6 + 0.4 / period, **more)
                    )
    rows[3] |= {"status": "oom", "ppl_delta_pct": np.nan, "tpot_ratio": np.nan}
    rows.append(arm("random", "S4 R16", ppl=60.0, period=16, peak_attended_len=528))
    rows.append(arm("full", "", cap=None, ppl=900.0, sinks=0, peak_attended_len=4096))
    return typed(rows)


def typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """As the aggregated table has them: counts that may be missing."""
    return pd.DataFrame(rows).astype({"cap": "Int64", "period": "Int64"})


def words(figure: Figure) -> str:
    """All text of a figure."""
    return "\n".join(
        text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))
    )


def labels(figure: Figure) -> list[Annotation]:
    return [text for text in figure.findobj(Annotation) if text.get_text()]
