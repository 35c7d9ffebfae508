"""Does slack do anything? At each sigma, with and without max_drop, against none."""

from __future__ import annotations

import pandas as pd

from kvpareto.claims.comparing import differences, pairs
from kvpareto.claims.study import Study

MEASURES = ("ppl_delta_pct", "prunes_delta_pct", "spike_area_delta_pct", "tpot_delta_pct")


def compare(study: Study) -> pd.DataFrame:
    """The sources' probe, paired per sigma: control (delta = 0) against sigma = 0, which is `lazy`,
    and staged (delta > 0) against control.
    """
    rows = []
    same = {"period": "same", "slack": "same"}
    for arm, plain in pairs(
        study, {"policy": "slack"}, {"policy": "lazy", "period": "same", "trigger": "overflow"}
    ):
        setting = f"{arm['setting']} control against sigma0"
        rows += differences(study, arm, plain, setting, MEASURES)
    for arm, control in pairs(study, {"policy": "max_drop"}, {"policy": "slack"} | same):
        setting = f"{arm['setting']} staged against control"
        rows += differences(study, arm, control, setting, MEASURES)
    return pd.DataFrame(rows)
