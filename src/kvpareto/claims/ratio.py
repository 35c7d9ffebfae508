"""A ratio of independent estimates, with an interval made of theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvpareto.claims.bootstrap import Interval


def change_pct(above: Sequence[Interval], below: Sequence[Interval]) -> Interval:
    """`100 * (product of above / product of below - 1)` of independent positive quantities.

    On the log scale the distances from estimate to bound add up as squares, each on its own side,
    so intervals need not be symmetric. It covers as much as its parts do. Source: Zou and Donner,
    Construction of confidence limits about effect measures, Statistics in Medicine 27 (2008).

    Returns:
        NaN throughout if an estimate is not positive. Bounds are NaN if one of a part is, or if a
        divisor may be zero; -100 if a factor may be zero.
    """
    parts = [*above, *below]
    if not all(part.estimate > 0 for part in parts):
        return Interval(np.nan, np.nan, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.log(np.maximum(part, 0)) for part in parts]
        down = [value[0] - value[1] for value in logs]
        up = [value[2] - value[0] for value in logs]
        split = len(above)
        total = sum(log[0] for log in logs[:split]) - sum(log[0] for log in logs[split:])
        lo = total - np.sqrt(np.square([*down[:split], *up[split:]]).sum())
        hi = total + np.sqrt(np.square([*up[:split], *down[split:]]).sum())
    if np.isinf(hi):
        lo = hi = np.nan
    return Interval(*(float(100 * np.expm1(value)) for value in (total, lo, hi)))


def exact(value: float) -> Interval:
    """A counted value: an interval without width."""
    return Interval(value, value, value)
