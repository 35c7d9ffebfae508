"""Time per token of two decode engines that took turns in one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.bootstrap import Interval, median_ratio
from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.study import Study, run_path


def decode_tpot(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Change of time per token in percent: block means, paired.

    Both ran in one process, so blocks of one number were neighbours in time, and the machine's
    drift is in neither ratio.
    """
    means = _blocks(study, arm)["ms"].mean(), _blocks(study, reference)["ms"].mean()
    return _change(study, arm, *means)


def decode_tail(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Change of the 99th percentile over the median, both of a block's tokens, in percent."""
    tails = _tail(_blocks(study, arm)["ms"]), _tail(_blocks(study, reference)["ms"])
    return _change(study, arm, *tails)


def _blocks(study: Study, arm: pd.Series[Any]) -> Any:
    """The tokens of an engine in a run, by block."""
    tokens = study.decode_tokens(run_path(arm))
    return tokens[tokens["engine"] == arm["engine"]].groupby("block")


def _tail(times: Any) -> pd.Series[float]:
    tail: pd.Series[float] = times.quantile(0.99) / times.median()
    return tail


def _change(
    study: Study, arm: pd.Series[Any], own: pd.Series[float], other: pd.Series[float]
) -> Measured:
    """Median of the paired ratios less 1, with its interval of the study's confidence."""
    own, other = own.align(other, join="inner")
    if own.empty:
        nothing = Interval(np.nan, np.nan, np.nan)
        return Measured(nothing, arm["machine"], "no block was timed of both engines")
    ratio = median_ratio(own, other, confidence=study.statistics.confidence)
    change = Interval(*(100 * (value - 1) for value in ratio))
    return Measured(change, arm["machine"])
