"""What an offset does to an answer, to the loss and to the weight of the chunk with the answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.bootstrap import Interval
from kvpareto.claims.metrics.items import paired
from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.ratio import change_pct, exact
from kvpareto.claims.study import Study, path_of


def merge_score(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Difference of the mean score in points (of 100), over the items of a task."""
    return paired(study, _items, arm, reference, "score", 100.0, "points")


def merge_kl(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Difference of the KL from full attention over the same keys, in nats."""
    return paired(study, _items, arm, reference, "kl_to_full", 1.0, "nats")


def merge_mass(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Difference of the attention that the chunk with the answer gets, in points (of 100)."""
    return paired(study, _items, arm, reference, "gold_mass", 100.0, "points")


def merge_ppl(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Change of a text's perplexity, in percent."""
    nats = paired(study, _items, arm, reference, "score", 1.0, "nats")
    change = Interval(*(float(100 * np.expm1(value)) for value in nats.difference))
    return Measured(change, why=nats.why.replace("nats", "percent"))


def merge_peak(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Change of the peak memory beyond the chunks' own entries, in percent; it is counted."""
    own, other = ([exact(row["peak_extra_bytes"])] for row in (arm, reference))
    return Measured(change_pct(own, other))


def _items(study: Study, arm: pd.Series[Any]) -> pd.DataFrame:
    return study.merged(path_of(arm)).query("chunks == @arm.chunks")
