"""Differences between two arms that were asked the same items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.bootstrap import Interval, item_mean
from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.metrics.ppl import CONFIDENCE
from kvpareto.claims.study import Study

Items = Callable[[Study, "pd.Series[Any]"], pd.DataFrame]
"""The item table of an arm."""


def paired(
    study: Study,
    items: Items,
    arm: pd.Series[Any],
    reference: pd.Series[Any],
    column: str,
    scale: float,
    unit: str,
) -> Measured:
    """Mean difference over the items that both arms answered, times `scale`."""
    pair = items(study, arm).merge(items(study, reference), on="item", suffixes=("", "_reference"))
    if pair.empty:
        return Measured(Interval(np.nan, np.nan, np.nan), why="no item was answered by both arms")
    difference = scale * (pair[column] - pair[f"{column}_reference"])
    found = item_mean(difference, resamples=study.statistics.resamples, confidence=CONFIDENCE)
    return Measured(found, why=f"in {unit}, {len(pair)} items")
