"""Peak memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.ratio import exact
from kvpareto.claims.study import Study


def peak_bytes(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Change of peak memory in percent: weights, cache, transient and staging."""
    own, other = arm["peak_bytes"], reference["peak_bytes"]
    change = 100 * (own / other - 1) if other else np.nan
    return Measured(exact(change), machine=study.machines)
