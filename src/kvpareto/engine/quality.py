"""Whether engines compute what they should: each against the oracle, token by token."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from kvpareto.engine.engine import Arm, Bench, engine_name, engine_of
from kvpareto.jobs import failure

log = logging.getLogger(__name__)


def engine_quality(arms: list[Arm], bench: Bench) -> pd.DataFrame:
    """Hold engines against the oracle of their own dtype, over the bench's document.

    Returns:
        One row per engine: engine, the fields of `Agreement`, first_non_finite (a layer, where
        logits are not finite), status, why.
    """
    rows = []
    for name, parameters in arms:
        row: dict[str, Any] = {"engine": engine_name(name, parameters), "status": "ok", "why": ""}
        log.info("comparing %s", row["engine"])
        try:
            row |= engine_of(name, parameters).compare(bench)
        except Exception as error:
            log.exception("%s cannot be compared", row["engine"])
            row["status"], row["why"] = failure(error)
        rows.append(row)
    return pd.DataFrame(rows)
