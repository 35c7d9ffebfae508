"""Is pruning often kinder than pruning seldom? R = 16 against R = 64, by perplexity and spikes."""

from __future__ import annotations

import pandas as pd

from kvpareto.claims.comparing import differences, pairs
from kvpareto.claims.study import Study

MEASURES = ("ppl_delta_pct", "spike_peak_delta_pct", "spike_area_delta_pct", "tpot_delta_pct")


def compare(study: Study) -> pd.DataFrame:
    """The sources' summary (their K is R): all lazy arms of R = 16 against those of R = 64."""
    rows = []
    for often, seldom in pairs(
        study,
        {"policy": "lazy", "period": 16},
        {"policy": "lazy", "period": 64, "trigger": "same"},
    ):
        setting = f"{often['setting']} against R64"
        rows += differences(study, often, seldom, setting, MEASURES)
    return pd.DataFrame(rows)
