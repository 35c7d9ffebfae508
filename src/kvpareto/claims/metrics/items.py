"""Differences between two arms that were asked the same items."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kvpareto.claims.bootstrap import Interval, item_mean
from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.metrics.ppl import CONFIDENCE
from kvpareto.claims.study import Study


def paired(
    study: Study, own: pd.DataFrame, other: pd.DataFrame, column: str, scale: float, unit: str
) -> Measured:
    """Mean difference over the items that are in both tables, times `scale`."""
    pair = own.merge(other, on="item", suffixes=("", "_reference"))
    if pair.empty:
        return Measured(Interval(np.nan, np.nan, np.nan), why="no item was answered by both arms")
    difference = scale * (pair[column] - pair[f"{column}_reference"])
    found = item_mean(difference, resamples=study.statistics.resamples, confidence=CONFIDENCE)
    return Measured(found, why=f"in {unit}, {len(pair)} items")
