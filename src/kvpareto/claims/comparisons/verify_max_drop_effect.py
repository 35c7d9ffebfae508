"""Does max_drop do anything? Each of its arms against the same arm without it."""

from __future__ import annotations

import pandas as pd

from kvpareto.claims.comparing import differences, pairs
from kvpareto.claims.study import Study

MEASURES = (
    "steps_differ_pct", "prunes_delta_pct", "ppl_delta_pct", "spike_peak_delta_pct",
    "spike_area_delta_pct", "tpot_delta_pct",
)  # fmt: skip


def compare(study: Study) -> pd.DataFrame:
    """The sources' probe: fixed sinks, cap, R and sigma; delta = 0 (`slack`) against delta > 0."""
    rows = []
    same = {"period": "same", "slack": "same"}
    for arm, control in pairs(study, {"policy": "max_drop"}, {"policy": "slack"} | same):
        setting = f"{arm['setting']} against {control['setting']}"
        rows += differences(study, arm, control, setting, MEASURES)
    return pd.DataFrame(rows)
