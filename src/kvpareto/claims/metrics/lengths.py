"""How the cache's length runs: counted, hence exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.ratio import exact
from kvpareto.claims.study import Study, path_of


def prunes(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Difference in the number of prunes, in percent of the reference's."""
    own, other = (int(study.tokens(path_of(row))["pruned"].sum()) for row in (arm, reference))
    change = 100 * (own / other - 1) if other else np.nan
    return Measured(exact(change), why=f"{own} prunes against {other}")


def trajectory(study: Study, arm: pd.Series[Any], reference: pd.Series[Any]) -> Measured:
    """Share of scored steps, in percent, at which the two caches are not of one length."""
    own, other = (study.tokens(path_of(row)) for row in (arm, reference))
    pair = own.merge(other, on=["document", "position"], suffixes=("", "_reference"))
    differs = (pair["attended"] != pair["attended_reference"]) | (
        pair["length_after"] != pair["length_after_reference"]
    )
    share = 100 * float(differs.mean())
    return Measured(exact(share), why=f"{differs.sum()} of {len(pair)} steps differ")
