"""Change of time per output token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.bootstrap import Interval, median_ratio
from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.ratio import change_pct
from kvpareto.claims.study import Study
from kvpareto.claims.timescale import yardstick_ms


def tpot(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Change of time per token in percent.

    Each arm was timed beside the yardstick in a job of its own, so the two ratios to it are
    independent, and at one cap their yardstick is the same. Each cap has its own: between caps the
    yardstick's level in all jobs at the one and at the other enters, with its spread. The interval
    is of the study's confidence, which is no lower than the 90% that two one-sided tests need.
    """
    above, below = [_ratio(arm)], [_ratio(reference)]
    caps = [_cap(study, row) for row in (arm, reference)]
    if caps[0] != caps[1]:
        above.append(_level(study, arm, caps[0]))
        below.append(_level(study, reference, caps[1]))
    machines = sorted({arm["machine"], reference["machine"]})
    return Measured(change_pct(above, below), machine="; ".join(machines))


def _ratio(arm: pd.Series[Any]) -> Interval:
    return Interval(arm["tpot_ratio"], arm["tpot_ratio_lo"], arm["tpot_ratio_hi"])


def _cap(study: Study, arm: pd.Series[Any]) -> int:
    """The cap of the yardstick that an arm was timed with."""
    if not pd.isna(arm["cap"]):
        return int(arm["cap"])
    beside = (study.eviction["model"] == arm["model"]) & (study.eviction["text"] == arm["text"])
    return int(study.eviction.loc[beside, "cap"].max())


def _level(study: Study, arm: pd.Series[Any], cap: int) -> Interval:
    """Median over jobs of the yardstick's time per token at a cap, in milliseconds."""
    levels = yardstick_ms(study.arms("timing"), arm["model"], arm["text"], cap)
    return median_ratio(levels, np.ones(len(levels)), confidence=study.statistics.confidence)
