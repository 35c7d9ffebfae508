"""How far apart the times of arms are that do the same at every step: the noise of the machine."""

from __future__ import annotations

import pandas as pd

from kvpareto.claims.comparing import differences
from kvpareto.claims.study import Study


def compare(study: Study) -> pd.DataFrame:
    """Every alias against the arm that it repeats.

    Measures: `ppl_delta_pct`, which is 0 or the two are no aliases, and `tpot_delta_pct`, whose
    largest value is the least margin of every verdict on time.
    """
    arms = study.arms("eviction")
    arms = arms.assign(name=arms["policy"] + "/" + arms["setting"])
    rows = []
    for _, arm in arms[arms["alias_of"].fillna("") != ""].iterrows():
        place = (arms["model"] == arm["model"]) & (arms["text"] == arm["text"])
        other = arms[place & (arms["name"] == arm["alias_of"])].iloc[0]
        setting = f"{arm['name']} as {arm['alias_of']}"
        rows += differences(study, arm, other, setting, ("ppl_delta_pct", "tpot_delta_pct"))
    return pd.DataFrame(rows)
