"""Negative results: the tricks that do not pay, as a view of the ledger."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kvpareto.claim_settings import Claim

COLUMNS = (
    "trick", "id", "says", "verdict", "metric", "estimate", "lo", "hi", "margin", "machine",
    "decided_by",
)  # fmt: skip


def negative_results(ledger: pd.DataFrame, claims: Mapping[str, Claim]) -> pd.DataFrame:
    """The `negative_results` table: claims on a trick whose verdict is that it does not pay.

    Undecided claims are none: that nothing was seen is not that there is nothing.

    Args:
        ledger: the `claims` table.
        claims: by id; those that name a trick count.
    """
    against = {"reproduced": "contradicted", "contradicted": "reproduced"}
    negative = {
        name: against[claim.pays_if] for name, claim in claims.items() if claim.trick is not None
    }
    found = ledger[ledger["verdict"] == ledger["id"].map(negative)]
    tricks = found["id"].map({name: claim.trick for name, claim in claims.items()})
    return found.assign(trick=tricks)[list(COLUMNS)].reset_index(drop=True)
