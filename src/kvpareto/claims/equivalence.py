"""The verdict of one test, from an interval and a margin that was fixed before looking."""

from __future__ import annotations

from typing import Literal

from kvpareto.claim_settings import Expect
from kvpareto.claims.bootstrap import Interval

Verdict = Literal["reproduced", "contradicted", "undecided"]


def verdict(difference: Interval, margin: float, expect: Expect) -> Verdict:
    """Hold the interval of a difference against what a claim expects of it.

    `higher` and `lower` are superiority: the whole interval lies beyond the margin. `equal` is
    equivalence: it lies inside the margin, bounds included, which with a 90% interval is two
    one-sided tests at 5% (Schuirmann 1987). `not_higher` and `not_lower` deny `higher` and `lower`.
    A claim is contradicted where the whole interval denies it. An exact difference is an interval
    without width, for which a margin of zero is right.

    Args:
        difference: zero where arm and reference are the same; bounds of NaN decide nothing.
        margin: in the unit of `difference`.

    Raises:
        ValueError: the margin is negative or the bounds are in the wrong order.
    """
    _, lo, hi = difference
    if not margin >= 0:
        raise ValueError(f"margin {margin} must not be negative")
    if lo > hi:
        raise ValueError(f"the lower bound {lo} is above the upper bound {hi}")
    higher, not_higher = lo > margin, hi <= margin
    lower, not_lower = hi < -margin, lo >= -margin
    holds, fails = {
        "higher": (higher, not_higher),
        "not_higher": (not_higher, higher),
        "lower": (lower, not_lower),
        "not_lower": (not_lower, lower),
        "equal": (not_higher and not_lower, higher or lower),
    }[expect]
    if holds:
        return "reproduced"
    return "contradicted" if fails else "undecided"
