"""What reuse costs an answer and saves of the time to its first token."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kvpareto.claims.bootstrap import Interval
from kvpareto.claims.metrics.items import paired
from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.ratio import change_pct, exact
from kvpareto.claims.study import Study, path_of


def score(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Difference of the mean score in points (of 100), over the items that both arms answered."""
    return paired(study, _answers, arm, reference, "score", 100.0, "points")


def kl_first_token(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Difference of the first answer token's KL from a full prefill, in nats."""
    return paired(study, _answers, arm, reference, "kl_first_token", 1.0, "nats")


def _answers(study: Study, arm: pd.Series[Any]) -> pd.DataFrame:
    return study.answers(path_of(arm))


def ttft(study: Study, arm: pd.Series[Any], reference: pd.Series[Any] | None) -> Measured:
    """Change of the time to first token in percent; without a reference, of a full prefill's.

    Each arm was timed in turns with a full prefill, so the two ratios to it are independent.
    """
    below = [] if reference is None else [_ratio(reference)]
    return Measured(change_pct([_ratio(arm)], below), machine=str(arm["machine"]))


def ttft_operations(
    study: Study, arm: pd.Series[Any], reference: pd.Series[Any] | None
) -> Measured:
    """How far the ratio of times lies above what the count of operations predicts, in percent."""
    found = change_pct([_ratio(arm)], [exact(arm["operations_ratio"])])
    return Measured(found, machine=str(arm["machine"]))


def _ratio(arm: pd.Series[Any]) -> Interval:
    return Interval(arm["ttft_ratio"], arm["ttft_ratio_lo"], arm["ttft_ratio_hi"])
