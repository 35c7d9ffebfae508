"""What the comparisons share: which arms make a pair, and the rows that a pair gives.

A comparison is a probe of the sources that needs no measurement of its own. It is one file under
`comparisons/` with one public function, `compare(study)`: rows for the `probes` table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.bootstrap import Interval
from kvpareto.claims.metrics.lengths import prunes, trajectory
from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.metrics.ppl import ppl
from kvpareto.claims.metrics.spikes import spike_area, spike_peak
from kvpareto.claims.metrics.tpot import tpot
from kvpareto.claims.study import KEYS, Study, references, select

Row = dict[str, Any]

PLACE = ["model", "text", "setting", "measure"]

_METRICS = {
    "ppl_delta_pct": ("eviction", ppl, "%"),
    "prunes_delta_pct": ("eviction", prunes, "%"),
    "steps_differ_pct": ("eviction", trajectory, "%"),
    "tpot_delta_pct": ("timing", tpot, "%"),
    "spike_peak_delta_pct": ("spikes", spike_peak, "%"),
    "spike_area_delta_pct": ("spikes", spike_area, "%"),
}


def pairs(
    study: Study, arm: dict[str, Any], reference: dict[str, Any]
) -> Iterator[tuple[pd.Series[Any], pd.Series[Any]]]:
    """Arms that a selector means, each with every arm that it is compared with."""
    arms = study.arms("eviction")
    for _, own in select(arms, arm).iterrows():
        for _, other in references(arms, own, reference).iterrows():
            yield own, other


def differences(
    study: Study, own: pd.Series[Any], other: pd.Series[Any], setting: str, measures: Sequence[str]
) -> list[Row]:
    """How an arm differs from another, a row per measure; none where a table lacks one of them."""
    rows = []
    for measure in measures:
        table, metric, unit = _METRICS[measure]
        found = [_in(study.arms(table), arm) for arm in (own, other)]  # type: ignore[arg-type]
        if any(one is None for one in found):
            continue
        failed = next((one for one in found if one["status"] != "ok"), None)
        if failed is not None:
            nothing = Measured(Interval(np.nan, np.nan, np.nan), why=failed["why"])
            rows.append(_row(own, setting, measure, nothing, unit) | {"status": failed["status"]})
        else:
            rows.append(_row(own, setting, measure, metric(study, *found), unit))
    return rows


def counted(arm: pd.Series[Any], setting: str, measure: str, value: float, unit: str) -> Row:
    """A row of an exact value."""
    return _row(arm, setting, measure, Measured(Interval(value, value, value)), unit)


def _row(arm: pd.Series[Any], setting: str, measure: str, found: Measured, unit: str) -> Row:
    value, lo, hi = found.difference
    place = {"model": arm["model"], "text": arm["text"], "setting": setting, "measure": measure}
    numbers = {"value": value, "lo": lo, "hi": hi, "unit": unit}
    return place | numbers | {"status": "ok", "why": found.why}


def _in(table: pd.DataFrame, arm: pd.Series[Any]) -> Any:
    """An arm's row of a table, run as arms are meant to; None where it has none."""
    if table.empty:
        return None
    found = select(table, {key: arm[key] for key in KEYS})
    return found.iloc[0] if len(found) else None
