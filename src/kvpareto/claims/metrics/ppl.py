"""Change of perplexity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.bootstrap import Interval, ppl_delta_pct
from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.study import Study, path_of

CONFIDENCE = 0.90
"""Of an interval that serves two one-sided tests at 5%."""


def ppl(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Change of perplexity in percent, over the tokens that both arms scored."""
    own, other = study.tokens(path_of(arm)), study.tokens(path_of(reference))
    pair = own.merge(other, on=["document", "position"], suffixes=("", "_reference"))
    if pair.empty:
        return Measured(Interval(np.nan, np.nan, np.nan), why="no token was scored by both arms")
    change = ppl_delta_pct(
        pair["nll_nats"],
        pair["nll_nats_reference"],
        pair["document"],
        pair["position"],
        block_tokens=study.statistics.block_tokens,
        resamples=study.statistics.resamples,
        confidence=CONFIDENCE,
        seed=0,
    )
    return Measured(change)
