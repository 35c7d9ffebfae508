"""Spikes of the loss at prunes, between arms or against chance."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kvpareto.claims.bootstrap import Interval
from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.ratio import change_pct
from kvpareto.claims.study import Study


def spike_peak(study: Study, arm: pd.Series[Any], reference: pd.Series[Any] | None) -> Measured:
    """Difference of peaks: in percent between arms, in nats against the null."""
    return _spike("peak", arm, reference)


def spike_area(study: Study, arm: pd.Series[Any], reference: pd.Series[Any] | None) -> Measured:
    """Difference of areas: in percent between arms, in nats (summed over tokens) to the null."""
    return _spike("area", arm, reference)


def _spike(name: str, arm: pd.Series[Any], reference: pd.Series[Any] | None) -> Measured:
    if reference is not None:
        return Measured(change_pct([_interval(name, arm)], [_interval(name, reference)]))
    # What is left of the statistic after each value that shifted boundaries give: all of it
    # positive exactly if the statistic is above its null interval.
    value = arm[f"{name}_nats"]
    lo, hi = value - arm[f"{name}_null_hi"], value - arm[f"{name}_null_lo"]
    return Measured(Interval((lo + hi) / 2, lo, hi), why="in nats, against shifted boundaries")


def _interval(name: str, arm: pd.Series[Any]) -> Interval:
    return Interval(arm[f"{name}_nats"], arm[f"{name}_lo"], arm[f"{name}_hi"])
