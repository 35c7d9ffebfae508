"""A row of measured values against a value that a claim names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claim_settings import ValueTest
from kvpareto.claims.bootstrap import Interval
from kvpareto.claims.metrics.measured import Measured


def against(row: pd.Series[Any], test: ValueTest, machine: str) -> Measured:
    """Difference of a row's `value`, with its bounds, from the test's, as the test counts it."""
    values = np.array([row["value"], row["lo"], row["hi"]], dtype=float)
    percent = test.difference == "percent"
    difference = 100 * (values / test.value - 1) if percent else values - test.value
    # A negative divisor turns the bounds around.
    ordered = Interval(difference[0], *sorted(difference[1:]))
    return Measured(ordered, machine, f"{row['value']:.4g} against {test.value:g}")
